"""PipeTransport: between two routers, on one host or two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from . import ortc
from ._fbs import pipe_transport as fbs
from .consumer import Consumer
from .convert_transport import pipe_dump, pipe_stats, srtp_to_fbs, tuple_from_fbs
from .messages import Method
from .node import new_id
from .reports import PipeTransportDump, PipeTransportStats
from .rtp_parameters import RtpParameters
from .transport import Transport, random_ssrc
from .types import AppData, ProducerId, SrtpParameters, TransportId, TransportTuple

if TYPE_CHECKING:
    from .observers import PipeTransportObserver
    from .router_transports import RouterTransports


class PipeTransport(Transport):
    """One end of a pipe between two routers; each end is connected to the other's address.

    Made by `Router.create_pipe_transport`. To pipe a producer, `consume` it on the origin's end and
    `produce` on the other with the consumer's `rtp_parameters`, `paused` as its `producer_paused`, and, if
    the routers live in different workers, the same id. There is no handshake: whether media arrives is told
    by `get_stats` only, and packets from any address but the connected one are dropped.
    """

    KIND = "PipeTransport"
    TYPE = "pipe"

    def __init__(
        self, router: RouterTransports, *, id: TransportId, dump: PipeTransportDump, app_data: AppData | None
    ) -> None:
        super().__init__(router, id=id, dump=dump, parents=(router,), app_data=app_data)
        self._tuple = dump.tuple
        self._rtx = dump.rtx
        self._srtp_parameters = dump.srtp_parameters

    @property
    def observer(self) -> PipeTransportObserver:
        return self

    @property
    def tuple(self) -> TransportTuple:
        """`local_address` is the announced one where that was given."""
        return self._tuple

    @property
    def rtx(self) -> bool:
        """Whether lost packets are sent again; must be the same on both ends."""
        return self._rtx

    @property
    def srtp_parameters(self) -> SrtpParameters | None:
        """Ours, for the other end's `connect` (AEAD_AES_256_GCM); None without `enable_srtp`."""
        return self._srtp_parameters

    async def connect(self, *, ip: str, port: int, srtp_parameters: SrtpParameters | None = None) -> None:
        """Takes the other end's address (an IP, no host name) and SRTP parameters. Once only.

        Raises RequestRejectedError if SRTP parameters are missing, not wanted, or have a wrong key.
        """
        request = fbs.ConnectRequest(ip=ip, port=port, srtp_parameters=srtp_to_fbs(srtp_parameters))
        answer = await self._request(
            Method.PIPETRANSPORT_CONNECT, request, lambda body: body.read(fbs.ConnectResponse)
        )
        self._tuple = tuple_from_fbs(answer.tuple)

    async def consume(
        self, *, producer_id: ProducerId, paused: bool = False, app_data: AppData | None = None
    ) -> Consumer:
        """Sends all of a producer's encodings to the other end, with parameters by the pipe rules.

        Created `paused`, nothing is sent before `resume`: the other end then produces before packets come.
        Raises NotFoundError without such a producer in this router.
        """
        producer = self._find_producer(producer_id)
        params = ortc.get_pipe_consumer_rtp_parameters(
            producer.consumable_rtp_parameters,
            enable_rtx=self._rtx,
            ssrc=random_ssrc(),
            rtx_ssrc=random_ssrc(),
        )
        return await self._consume(
            producer, type="pipe", rtp_parameters=params, paused=paused, app_data=app_data
        )

    async def dump(self) -> PipeTransportDump:
        return await self._request(
            Method.TRANSPORT_DUMP, None, lambda body: pipe_dump(body.read(fbs.DumpResponse))
        )

    async def get_stats(self) -> PipeTransportStats:
        return await self._request(
            Method.TRANSPORT_GET_STATS, None, lambda body: pipe_stats(body.read(fbs.GetStatsResponse))
        )

    def _with_cname(self, params: RtpParameters) -> RtpParameters:
        """Each piped producer keeps its CNAME; one without gets its own, lest it share another's clock."""
        if params.rtcp.cname:
            return params
        return replace(params, rtcp=replace(params.rtcp, cname=new_id()[:8]))
