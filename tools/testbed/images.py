"""Images: the one that every pod needs, and bringing images to the nodes."""

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.cluster import Testbed
from testbed.errors import CommandError, NotRunningError
from testbed.layout import PAUSE, Node
from testbed.node_files import RUNTIME
from testbed.running import run, succeeds

_PAUSE_SOURCE = """\
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
static void end(int number) { exit(0); }
int main(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  signal(SIGCHLD, SIG_IGN);
  for (;;) pause();
}
"""


def image_id(image: str) -> str | None:
    """Its id in buildah's store; None if it is not there."""
    try:
        return run("buildah", "images", "-q", "--no-trunc", image).split()[0]
    except (CommandError, IndexError):
        return None


def ensure_pause(say: Callable[[str], None]) -> None:
    """The image of every pod's first container: a static program of a few lines."""
    if image_id(PAUSE) is not None:
        return
    say(f"making {PAUSE}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pause.c"
        source.write_text(_PAUSE_SOURCE)
        run("gcc", "-Os", "-static", "-o", f"{folder}/pause", str(source))
        (Path(folder) / "Dockerfile").write_text('FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n')
        _build(folder, PAUSE)


def _build(folder: str, image: str) -> None:
    run("buildah", "bud", "-q", "--isolation", "chroot", "-t", image, folder, timeout=300)


def load(testbed: Testbed, images: Sequence[str], say: Callable[[str], None]) -> None:
    """Brings images of buildah's store to all nodes; those that a node has already are left out.

    Raises NotRunningError if the store lacks one.
    """
    for image in images:
        _load_one(testbed, image, say)


def _load_one(testbed: Testbed, image: str, say: Callable[[str], None]) -> None:
    wanted = image_id(image)
    if wanted is None:
        raise NotRunningError(f"buildah's store has no image {image}: build it, or look at `buildah images`")
    loaded = testbed.loaded_images()
    having = loaded.setdefault(image, {})
    lacking = [node for node in testbed.nodes if having.get(node.name) != wanted]
    if not lacking:
        return
    say(f"loading {image} into {', '.join(node.name for node in lacking)}")
    with tempfile.TemporaryDirectory(dir=testbed.paths.directory) as folder:
        archive = Path(folder) / "image.tar"
        run("buildah", "push", "-q", image, f"docker-archive:{archive}:{image}", timeout=300)
        with ThreadPoolExecutor(len(lacking)) as pool:
            list(pool.map(lambda node: _import(testbed, node, archive), lacking))
    loaded[image] = {**having, **{node.name: wanted for node in lacking}}
    temporary = testbed.paths.images.with_suffix(".new")
    temporary.write_text(json.dumps(loaded, indent=2))
    temporary.rename(testbed.paths.images)


def _import(testbed: Testbed, node: Node, archive: Path) -> None:
    run(*containerd(testbed, node), "images", "import", str(archive), timeout=300)


def containerd(testbed: Testbed, node: Node) -> list[str]:
    """The start of a command to that node's containerd."""
    return ["ctr", "-a", str(testbed.paths.node(node).socket), "-n", RUNTIME]


def containerd_answers(testbed: Testbed, node: Node) -> bool:
    return succeeds(*containerd(testbed, node), "version", timeout=5)
