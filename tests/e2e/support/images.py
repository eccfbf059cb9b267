"""A small image to try the testbed with: busybox. `tools/e2e` makes it, outside the testbed's network."""

import asyncio
import tempfile
from pathlib import Path

from e2e.support.running import CommandFailed, run
from e2e.support.testbed import cluster

BUSYBOX = "localhost/mafalda-busybox:1"
_DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
CMD ["sleep", "infinity"]
"""


async def busybox() -> str:
    """Its name, once every node has it."""
    await cluster("load", BUSYBOX)
    return BUSYBOX


async def make() -> None:
    """Of Debian's static busybox, unless buildah's store has it."""
    try:
        await run("buildah", "images", "-q", BUSYBOX)
    except CommandFailed:
        with tempfile.TemporaryDirectory() as folder:
            script = f"cd {folder} && apt-get download busybox-static && dpkg-deb -x busybox-static*.deb root"
            await run("sh", "-euc", script, seconds=120)
            (Path(folder) / "root/bin/busybox").rename(Path(folder) / "busybox")
            (Path(folder) / "Dockerfile").write_text(_DOCKERFILE)
            await run("buildah", "bud", "-q", "--isolation", "chroot", "-t", BUSYBOX, folder, seconds=120)


if __name__ == "__main__":
    asyncio.run(make())
