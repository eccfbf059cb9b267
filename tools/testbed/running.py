"""Running programs: with a deadline, inside a namespace, and with errors that say what was said."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.errors import CommandError, NotReadyError

NAMESPACES = Path("/run/netns")
_PAUSE = 0.1


def run(
    *command: str,
    timeout: float = 30.0,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What `command` prints. Raises CommandError if it fails or takes longer than `timeout` seconds."""
    try:
        done = subprocess.run(
            command,
            input=stdin if stdin is not None else "",
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(command, None, f"no end within {timeout:g} s") from error
    except OSError as error:
        raise CommandError(command, 127, f"{error.strerror}") from error
    if done.returncode != 0:
        raise CommandError(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def succeeds(*command: str, timeout: float = 10.0) -> bool:
    try:
        run(*command, timeout=timeout)
    except CommandError:
        return False
    return True


def entered(namespace: str) -> list[str]:
    """What to put before a command so that it runs in that network namespace and nowhere else.

    Not `ip netns exec`, which gives each program a mount namespace of its own: what containerd mounts there,
    the kubelet would not see.
    """
    return ["nsenter", f"--net={NAMESPACES / namespace}"]


def wait_until(
    what: str,
    holds: Callable[[], bool],
    *,
    seconds: float,
    why_not: Callable[[], str] = str,
    ended: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Returns when `holds`. Raises NotReadyError, with what `why_not` says, after `seconds` or as soon as
    `ended` names programs that ended.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if gone := ended():
            raise NotReadyError(f"{what}: {', '.join(gone)} ended. {why_not()}")
        if time.monotonic() > deadline:
            raise NotReadyError(f"{what}: not within {seconds:g} s. {why_not()}")
        time.sleep(_PAUSE)
