# Shared by the scripts that build programs from pinned Go modules, after lib/cache.sh. Sourced, not run.
#
# A module is a folder with go.mod, go.sum and a tools.go that names the programs; it is copied into BUILD_DIR, so
# nothing is written to the checkout.

BUILD_OPTIONS=(-trimpath -buildvcs=false)

# kube_ldflags VERSION: a Kubernetes built without these reports v0.0.0, and clients misjudge what it can do.
kube_ldflags() {
  local v=k8s.io/component-base/version
  echo "-s -w -X $v.gitVersion=v$1 -X $v.gitMajor=${1%%.*} -X $v.gitMinor=$(cut -d. -f2 <<<"$1")"
}

# require_go REMEDY GO_MOD...: the newest Go that these modules ask for is there.
require_go() {
  local remedy=$1 want have
  shift
  want=$(sed -n 's/^go //p' "$@" | sort -V | tail -n 1)
  need_command go "Install Go $want or newer$remedy."
  have=$(GOTOOLCHAIN=local go env GOVERSION)
  at_least "${have#go}" "$want" || fail "$(command -v go) is $have, but Go $want or newer is needed" \
    "Put a newer one first on PATH$remedy."
}

# Prints a line each 10 % of the packages; what Go has in its own cache is not compiled again and never shows.
compile_progress() {
  local total=$1 line done=0 shown=0
  while IFS= read -r line; do
    printf '%s\n' "$line" >>"$STEP_LOG"
    done=$((done + 1))
    if [ $((done * 10 / total)) -gt "$shown" ]; then
      shown=$((done * 10 / total))
      phase "compiled $done of $total packages"
    fi
  done
}

# build_go MODULE_DIR LDFLAGS PACKAGE...: the programs land in $BUILD_DIR/result/bin.
build_go() {
  local name=${1##*/} module=$BUILD_DIR/${1##*/} flags=$2 total
  cp -R "$1" "$module"
  shift 2
  cd "$module"
  export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local GOWORK=off
  phase "downloading modules of $name"
  total=$(go list -deps "$@" 2>>"$STEP_LOG" | wc -l) || run_failed "go list -deps $*"
  phase "compiling $name: $total packages"
  tied go build -v "${BUILD_OPTIONS[@]}" -ldflags "$flags" -o "$BUILD_DIR/result/bin/" "$@" 2>&1 </dev/null |
    compile_progress "$total" || run_failed "go build $*"
}
