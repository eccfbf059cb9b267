"""One whole system for the tests of a module: starting it takes longer than most of them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from mafalda_operator.cli.demo import layout as layouts
from mafalda_operator.cli.demo.stack import GATEWAY, OPERATOR, Stack
from support.rig import Rig

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything runs, no session exists yet."""
    directory = tmp_path_factory.mktemp("stack") / "run"
    objects = layouts.parse_documents((ROOT / "examples" / "demo.yaml").read_text())
    wanted = layouts.default_layout(objects)
    stack = Stack.start_on_free_ports(directory, wanted, crds=ROOT / "crds", say=print)
    layout = stack.layout
    try:
        without_session = [found for found in objects if found["kind"] != "MediaSession"]
        manifest = directory / "objects.yaml"
        manifest.write_text(layouts.rewrite(without_session, layout))
        stack.apply(manifest)
        yield stack
    finally:
        for name in (OPERATOR, GATEWAY, *(server.name for server in layout.servers)):
            print(f"--- {name}\n{stack.cluster.processes.log_tail(name, 40)}")
        stack.stop()


@pytest.fixture
async def rig(stack: Stack) -> AsyncIterator[Rig]:
    """The system with everything running; a test's sessions go with it."""
    rig = Rig(stack)
    await rig.restore()
    yield rig
    await rig.delete_sessions()
