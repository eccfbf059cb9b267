"""Applications' workers through the gateway: mafalda-worker at one end, real workers at the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from contract.control_client import dialled
from doubles.api import FakeApi
from support.media_server import until
from support.remote import HOST, ISSUER, KEYS, RemoteServer, environment, process_exists, remote_worker, token

from mediaserver.control.contract import CONTROL_PATH, Address, Load, TenantOffer
from mediaserver.control.fake import FakeMediaServer
from mediaserver.gateway.server import Gateway, GatewayConfig
from mediaserver.mediasoup import WORKER_VERSION, WorkerDiedError, WorkerStartError
from mediaserver.mediasoup.rtp_parameters import RtpCodecCapability
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.membership import ClusterKey

KEY = ClusterKey(b"the key of the cluster under test")
ANY_PORT = ListenAddress(HOST, 0)
AUDIO = RtpCodecCapability(mime_type="audio/opus", clock_rate=48000, channels=2)


class Controlled(FakeMediaServer):
    """The control side of a server whose other side is real."""

    def __init__(self, remote: RemoteServer) -> None:
        super().__init__(KEY, participants=Address(host=HOST, port=remote.port))
        self.instance_id = "instance-1"
        self.tenant_offer = TenantOffer(versions=[WORKER_VERSION], cores=2)
        self._remote = remote

    def load(self) -> Load:
        self.tenant_load = self._remote.tenants.load()
        return super().load()


class World:
    """MediaCluster media/main, MediaServer media/one, and a gateway that can be replaced by another."""

    def __init__(self, remote: RemoteServer, control: Controlled) -> None:
        self.remote = remote
        self.control = control
        self.api = FakeApi()
        self.gateway: Gateway
        key_set = {"name": "apps", "secretRef": {"name": "keys"}, "workers": True}
        spec = {"tokens": {"keySets": [key_set]}}
        self.api.put("mediaclusters", "media", "main", spec=spec, metadata={"uid": ISSUER})
        self.api.secrets["media/keys"] = dict(KEYS)
        spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": control.endpoint}}
        self.api.put("mediaservers", "media", "one", spec=spec)

    @property
    def port(self) -> int:
        return self.gateway.address.port

    async def start(self, listen: ListenAddress = ANY_PORT) -> None:
        self.gateway = Gateway(GatewayConfig(listen, ANY_PORT, KEY), self.api)
        await self.gateway.start()

    async def replace_gateway(self) -> None:
        """The gateway stops, and what applications dial leads to another one."""
        address = self.gateway.address
        await self.gateway.close()
        await self.start(address)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        remote = await stack.enter_async_context(RemoteServer())
        control = await stack.enter_async_context(Controlled(remote))
        async with dialled(f"http://{control.address}{CONTROL_PATH}") as operator:
            await operator.hello(KEY, cluster_uid=ISSUER, server_name="media/one")
        made = World(remote, control)
        await made.start()
        try:
            yield made
        finally:
            await made.gateway.close()


async def test_a_worker_through_the_gateway(world: World) -> None:
    async with remote_worker(world.port) as worker:
        (tenant,) = world.remote.tenants.workers()
        assert (await worker.dump()).pid == worker.pid != tenant.pid
        await worker.create_router(media_codecs=[AUDIO])
        real = tenant.pid
    await until(lambda: not process_exists(real), "the real worker is gone")
    await until(lambda: not world.remote.tenants.workers(), "no tenant is left")


async def test_another_gateway_takes_over(world: World) -> None:
    """The application sees a pause: what it asked for meanwhile is answered, everything is still there."""
    async with remote_worker(world.port) as worker:
        router = await worker.create_router(media_codecs=[AUDIO])
        for _ in range(2):
            replacing = asyncio.create_task(world.replace_gateway())
            asked = [asyncio.create_task(worker.dump()) for _ in range(50)]
            await replacing
            async with asyncio.timeout(20):
                answers = await asyncio.gather(*asked)
            assert {answer.router_ids[0] for answer in answers} == {router.id}
        assert len(world.remote.tenants.workers()) == 1


async def test_coming_back_to_a_server_that_was_restarted(world: World) -> None:
    async with remote_worker(world.port) as worker:
        died: asyncio.Future[WorkerDiedError] = asyncio.get_running_loop().create_future()
        worker.on_died.subscribe(lambda error: died.done() or died.set_result(error))
        world.control.instance_id = "instance-2"
        await world.replace_gateway()
        async with asyncio.timeout(20):
            await died


async def test_a_refusal_reaches_the_developer(world: World) -> None:
    for claims, told in (
        (
            {"nbf": 0, "exp": 1000},
            r"the token is refused \(expired\): .*; make a token with `mafalda worker-token`",
        ),
        ({"server": "two"}, "the token's `server` 'two' is no MediaServer of MediaCluster media/main"),
    ):
        with pytest.raises(WorkerStartError, match=told):
            async with remote_worker(world.port, environment(world.port, token=token(**claims))):
                pass


async def test_the_tokens_bound_over_time(world: World) -> None:
    """Whatever the server has told of by then, a worker counts once, and no more when it has ended."""
    env = environment(world.port, token=token(workers=2))
    async with remote_worker(world.port, env), remote_worker(world.port, env):
        for _ in range(3):
            with pytest.raises(WorkerStartError, match="admits 2 workers at the same time and 2 run"):
                async with remote_worker(world.port, env):
                    pass
    await until(lambda: not world.remote.tenants.workers(), "no tenant is left")
    async with remote_worker(world.port, env), remote_worker(world.port, env):
        pass
