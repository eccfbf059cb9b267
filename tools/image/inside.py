"""What tools/build-image --check runs inside the image, as its user, with only two folders writable.

    python - < tools/image/inside.py

Every command answers --help, every module can be imported, a worker starts and ends, byte code is there for
all, no library is missing, nothing is setuid and nothing was written. Prints one line for each; exits 1 if
one fails.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import pkgutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

ROLES = ("mafalda-operator", "mafalda-mediaserver", "mafalda-gateway", "mafalda-worker", "mafalda")
PACKAGES = (
    *("mafalda_operator", "mediaserver", "aiortc", "av", "pymediasoup", "cryptography", "aiohttp", "kopf"),
    *(
        "kubernetes.aio.config",
        "kubernetes.aio.client.models.v1_pod",
        "kubernetes.aio.client.api.core_v1_api",
    ),
    *("google_crc32c", "msgspec", "pydantic_core", "pylibsrtp", "uvloop", "yaml"),
)
# They want what only tests have.
NOT_IMPORTED = ("aiohttp.pytest_plugin", "aiohttp.test_utils", "kopf.testing")
SITE = Path(sysconfig.get_path("purelib"))
WRITABLE = (Path("/tmp"), Path("/var/lib/mafalda"))


def _answer(*command: str) -> str:
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode or "sage: " not in done.stdout:
        raise AssertionError(
            f"{' '.join(command)} --help: exit code {done.returncode}: {done.stderr.strip()}"
        )
    return done.stdout


def commands_answer() -> str:
    for role in ROLES:
        _answer(role)
    listed = importlib.import_module("mafalda_operator.cli.main").main.list_commands(None)
    for command in listed:
        _answer("mafalda", command)
    return f"{len(ROLES)} roles, {len(listed)} commands of mafalda"


def _modules(package: str) -> Iterator[str]:
    yield package
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{package}."):
        yield found.name


def everything_is_imported() -> str:
    count, failed = 0, []
    for package in PACKAGES:
        for name in _modules(package):
            if name.endswith("__main__") or name in NOT_IMPORTED:
                continue
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                # An optional part of somebody's package, which needs a package that we don't install.
                ours = (error.name or "").partition(".")[0]
                if ours == package.partition(".")[0] or package in ("mafalda_operator", "mediaserver"):
                    failed.append(f"{name}: {error}")
                continue
            except ImportError as error:
                failed.append(f"{name}: {error}")
            count += 1
    if failed:
        raise AssertionError("; ".join(failed))
    return f"{count} modules"


def worker_starts() -> str:
    mediasoup = importlib.import_module("mediaserver.mediasoup")

    async def run() -> str:
        async with await mediasoup.create_worker() as worker:
            await worker.create_router()
            await worker.dump()
        return f"mediasoup-worker {mediasoup.WORKER_VERSION}, {mediasoup.find_worker_bin()}"

    return asyncio.run(run())


def bytecode_is_there() -> str:
    sources = [path for path in SITE.rglob("*.py") if path.parent.name != "templates"]
    missing = [path for path in sources if not Path(importlib.util.cache_from_source(str(path))).exists()]
    if missing:
        raise AssertionError(f"{len(missing)} files, such as {missing[0]}, would be compiled at every start")
    return f"{len(sources)} files"


def no_library_is_missing() -> str:
    objects = [os.environ["MAFALDA_WORKER_BIN"], *map(str, SITE.rglob("*.so*"))]
    for path in objects:
        told = subprocess.run(["ldd", path], capture_output=True, text=True, timeout=60, check=False).stdout
        missing = [line.strip() for line in told.splitlines() if "not found" in line]
        if missing:
            raise AssertionError(f"{path}: {'; '.join(missing)}")
    return f"{len(objects)} objects"


def nothing_was_written() -> str:
    for folder in ("/", "/opt/mafalda", str(SITE), "/etc"):
        if os.access(folder, os.W_OK):
            raise AssertionError(f"{folder} can be written by user {os.getuid()}")
    everything = subprocess.run(
        ["find", "/", "-xdev", "-type", "f", "-perm", "/6000"], capture_output=True, text=True, check=False
    )
    if everything.stdout:
        raise AssertionError(f"setuid or setgid: {' '.join(everything.stdout.split())}")
    left = [str(path) for folder in WRITABLE for path in folder.iterdir()]
    if left:
        raise AssertionError(f"left: {', '.join(left)}")
    return "not in " + " or ".join(map(str, WRITABLE))


CHECKS: tuple[Callable[[], str], ...] = (
    commands_answer,
    everything_is_imported,
    worker_starts,
    bytecode_is_there,
    no_library_is_missing,
    nothing_was_written,
)


def main() -> int:
    failed = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            print(f"  {name}: {check()}", flush=True)
        except Exception as error:  # noqa: BLE001  whatever it is, it is told, and the next check runs
            failed += 1
            print(f"  FAILED {name}: {type(error).__name__}: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
