"""What the health listener answers, and how the loop's lag is remembered."""

from __future__ import annotations

from aiohttp.test_utils import TestClient, TestServer

from mediaserver.control.contract import (
    LinkState,
    Load,
    PeerAge,
    RouterLoad,
    RouterState,
    WorkerLoad,
    WorkerState,
)
from mediaserver.health import LAG_WINDOW, LoopLag, health_app
from mediaserver.metrics import Figures, metrics

STATES = {
    "worker/0": WorkerState(slot=0, state="Running", restarts=2),
    "worker/1": WorkerState(slot=1, state="Failing", reason="died"),
    "router/shop/a": RouterState(
        namespace="shop", name="a", session_uid="s", worker_slot=0, ready=True, id="x"
    ),
    "link/shop/a/b": LinkState(namespace="shop", local_router="a", remote_router="b", ready=False),
}
LOAD = Load(
    workers=[WorkerLoad(slot=0, cpu=0.25, routers=1, producers=2, consumers=3)],
    routers={"router/shop/a": RouterLoad(participants=4, producers=2, consumers=3)},
    peers=[PeerAge(server="media/b", instance_id="i", age=0.5)],
    free_pipe_ports=99,
)


def figures(load: Load | None) -> Figures:
    return Figures(
        info={"version": "1"},
        states=STATES,
        load=load,
        control_connections={"operator": 1},
        loop_lag=0.5,
        draining=False,
    )


async def get(path: str, problems: list[str], load: Load | None = LOAD) -> tuple[int, str]:
    app = health_app(lambda: problems, lambda: metrics(figures(load)))
    async with TestClient(TestServer(app)) as client:
        response = await client.get(path)
        return response.status, await response.text()


async def test_ready_or_why_not() -> None:
    assert await get("/readyz", []) == (200, "ok\n")
    assert await get("/readyz", ["starting", "slow"]) == (503, "starting\nslow\n")
    assert await get("/healthz", ["starting"]) == (200, "ok\n")


async def test_metrics() -> None:
    status, text = await get("/metrics", [])
    assert status == 200
    for line in (
        'mafalda_mediaserver_workers{state="Running"} 1.0',
        'mafalda_mediaserver_workers{state="Failing"} 1.0',
        'mafalda_mediaserver_worker_restarts_total{slot="0"} 2.0',
        'mafalda_mediaserver_routers{ready="true"} 1.0',
        'mafalda_mediaserver_links{ready="false"} 1.0',
        'mafalda_mediaserver_worker_cpu_cores{slot="0"} 0.25',
        "mafalda_mediaserver_participants 4.0",
        'mafalda_mediaserver_producers{slot="0"} 2.0',
        'mafalda_mediaserver_consumers{slot="0"} 3.0',
        "mafalda_mediaserver_free_pipe_ports 99.0",
        'mafalda_mediaserver_peer_age_seconds{server="media/b"} 0.5',
        'mafalda_mediaserver_control_connections{role="operator"} 1.0',
        "mafalda_mediaserver_event_loop_lag_seconds 0.5",
    ):
        assert line in text.splitlines(), text


async def test_figures_not_measured_yet_are_left_out() -> None:
    _, text = await get("/metrics", [], load=None)
    assert "cpu_cores" not in text
    assert "mafalda_mediaserver_participants" not in text


def test_the_worst_lag_is_remembered_for_a_while() -> None:
    now = 100.0
    lag = LoopLag(lambda: now)
    assert lag.worst == 0.0
    lag.note(2.0)
    lag.note(-0.1)
    assert lag.worst == 2.0
    now += LAG_WINDOW + 1
    lag.note(0.25)
    assert lag.worst == 0.25
