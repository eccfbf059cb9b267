import random
import socket
from contextlib import closing

import pytest
from mafalda_operator.cli.local.errors import NoFreePortsError
from mafalda_operator.cli.local.ports import (
    HIGHEST,
    LOWEST,
    PortPicker,
    Protocol,
    find_free_port,
    find_free_range,
    is_free,
)


def bound(kind: int, port: int = 0) -> socket.socket:
    holder = socket.socket(socket.AF_INET, kind)
    holder.bind(("127.0.0.1", port))
    return holder


@pytest.mark.parametrize(
    ("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")], ids=["tcp", "udp"]
)
def test_a_held_port_is_not_free_for_its_protocol(kind: int, protocol: Protocol) -> None:
    with closing(bound(kind)) as holder:
        port = holder.getsockname()[1]
        assert not is_free(port, protocols=(protocol,))
        assert not is_free(port, protocols=("tcp", "udp"))


def test_ports_lie_below_the_ephemeral_range_and_can_be_bound() -> None:
    port = find_free_port()
    assert HIGHEST < 32768
    assert LOWEST <= port <= HIGHEST
    bound(socket.SOCK_STREAM, port).close()


def test_a_range_is_consecutive_and_free_for_both_protocols() -> None:
    found = find_free_range(12)
    assert len(found) == 12
    assert found.start >= LOWEST
    assert found.stop - 1 <= HIGHEST
    assert all(is_free(port, protocols=("tcp", "udp")) for port in found)


def test_a_picker_never_gives_a_port_twice() -> None:
    picker = PortPicker(rng=random.Random(1))
    given = [picker.port() for _ in range(50)]
    given += [port for _ in range(5) for port in picker.range(20)]
    assert len(given) == len(set(given))


class StartsAt(random.Random):
    """Begins every search at one port."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def randrange(self, *_: object, **__: object) -> int:
        return self._port - LOWEST


def test_a_range_goes_around_a_port_that_is_held() -> None:
    start = find_free_range(12).start
    with closing(bound(socket.SOCK_DGRAM, start + 3)):
        found = PortPicker(rng=StartsAt(start)).range(6)
    assert found.start == start + 4


def test_the_search_goes_on_at_the_lowest_port_after_the_highest() -> None:
    found = PortPicker(rng=StartsAt(HIGHEST)).range(2)
    assert LOWEST <= found.start < HIGHEST


def test_no_free_ports_says_how_many_were_wanted() -> None:
    picker = PortPicker(avoid=range(LOWEST, HIGHEST + 1))
    with pytest.raises(NoFreePortsError, match=r"no 4 consecutive free tcp/udp ports on 127\.0\.0\.1"):
        picker.range(4)


def test_asking_for_no_port_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        PortPicker().range(0)
