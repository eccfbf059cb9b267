# Shared by tools/build-*: the cache outside the checkout, progress, locks. Sourced, not run.
#
# A script sets NAME, then calls, in this order: cache_init, cache_lock KEY; if KEY is not built cache_begin, its own
# steps by `phase` and `run`, cache_publish; then cache_select. A build happens in a directory of its own and is
# renamed into place when it is whole, so a build that is killed leaves nothing that looks finished; builds of the
# same key wait for each other.

STARTED=$SECONDS
STEP_LOG=
BUILD_DIR=
export LC_ALL=C

say() { printf '%s: %s\n' "$NAME" "$*"; }

# phase WHAT: one line of progress with the seconds since the start.
phase() { printf '%s: [%3ds] %s\n' "$NAME" $((SECONDS - STARTED)) "$*"; }

# fail MESSAGE...: one line each to stderr, then exit 1.
fail() {
  printf '%s: %s\n' "$NAME" "$1" >&2
  shift
  [ $# -eq 0 ] || printf '  %s\n' "$@" >&2
  exit 1
}

# tied COMMAND...: it ends with this script, even if that is killed, so that no compiler goes on unseen.
tied() {
  if command -v setpriv >/dev/null; then
    exec setpriv --pdeathsig KILL "$@"
  else
    exec "$@"
  fi
}

# run COMMAND...: output goes to the log; on failure its last lines are shown with the log's path.
run() {
  printf '\n$ %s\n' "$*" >>"$STEP_LOG"
  (tied "$@") >>"$STEP_LOG" 2>&1 </dev/null || run_failed "$*"
}

run_failed() {
  { echo "$NAME: failed: $1"; echo "  last lines of $STEP_LOG:"; tail -n 30 "$STEP_LOG" | sed 's/^/  | /'; } >&2
  exit 1
}

# cache_init: sets CACHE, this script's folder, $MAFALDA_CACHE/NAME or its default.
cache_init() {
  CACHE=${MAFALDA_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME, XDG_CACHE_HOME or MAFALDA_CACHE}/.cache}/mafalda}/$NAME
  case $CACHE in /*) ;; *) CACHE=$PWD/$CACHE ;; esac
}

# hash_of FILE...: 12 hex digits over names and contents.
hash_of() { sha256sum "$@" | sha256sum | cut -c1-12; }

# cache_lock KEY: one build of KEY at a time; the lock ends with this process.
cache_lock() {
  KEY=$1
  mkdir -p "$CACHE/logs"
  exec {LOCK_FD}>"$CACHE/.lock-$KEY"
  if ! flock -n "$LOCK_FD"; then
    phase "another build of it is running; waiting for it"
    flock -w 3600 "$LOCK_FD" || fail "another build still holds $CACHE/.lock-$KEY after an hour; end it and try again"
  fi
}

# cache_begin: makes BUILD_DIR and the log. What killed builds left goes first: those of this key, which the lock makes
# safe, and those of any key after a day.
cache_begin() {
  rm -rf "$CACHE"/.build-"$KEY".*
  find "$CACHE" -maxdepth 1 -name '.build-*' -mtime +0 -exec rm -rf {} +
  BUILD_DIR=$(mktemp -d "$CACHE/.build-$KEY.XXXXXX")
  STEP_LOG=$CACHE/logs/$KEY.log
  : >"$STEP_LOG"
  trap 'rm -rf "$BUILD_DIR"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# cache_publish DIR: DIR becomes the finished result of KEY.
cache_publish() {
  rm -rf "${CACHE:?}/$KEY"
  mv -T "$1" "$CACHE/$KEY"
}

# cache_select: `current` names KEY, replaced in one step.
cache_select() {
  [ "$(readlink "$CACHE/current" 2>/dev/null)" = "$KEY" ] && return
  ln -s "$KEY" "$CACHE/.current.$$"
  mv -T "$CACHE/.current.$$" "$CACHE/current"
}

# need_command COMMAND REMEDY
need_command() { command -v "$1" >/dev/null || fail "$1 is not on PATH" "$2"; }

# at_least HAVE WANT: versions.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
