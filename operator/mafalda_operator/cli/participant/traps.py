"""What aiortc, aioice and pymediasoup do against expectation, and what is done about it. All of it, here.

trap                                                     | here, or where
---------------------------------------------------------+-------------------------------------------------
aioice offers no loopback address, so with a server on   | `reach` sets the addresses for the server's
127.0.0.1 alone there is no media and no error           | candidates
`iceServers=None` means a public STUN server             | `NO_ICE_SERVERS`, given to every transport
listeners' exceptions become "error" events and the call | `Faults` collects them and raises after the call
goes on, or fails with IndexError                        |
calls on one transport that overlap garble its SDP       | rtc.py holds a lock around each
the first call does not wait for "connect"               | rtc.py does
any `encodings` lose the SSRC                            | rtc.py passes none
consumer.close() has the next consumer take its place in  | rtc.py stops the receiver instead
the SDP, and pymediasoup then finds the stopped track    |
pymediasoup receives, and aiortc decodes, the probation   | `without_probation`
packets that mediasoup measures bandwidth with           |
aiortc's bandwidth estimates (REMB) are not what the      | `without_estimates`
worker measures with, which says so for each             |
a track that nobody reads is decoded all the same into a | receiving.py reads every track until it ends
queue without bound                                      |
`producer.pause()` and `close()` send nothing to the     | attachment.py asks the server, then closes here
wire                                                     |
`consumer.resume()` is local                             | the server resumes after our answer
receivers' statistics of a stream and of its             | `lost_packets` reads the stream's own counter
retransmissions have one id, so one hides the other      |
MediaPlayer in a loop is unpaced after the first round,   | sources.py plays files itself
and with video alone fills its queue without bound       |
a sender stops its track for good at the end             | sources.py opens a new one for each attachment
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import aioice.ice
from aiortc import RTCIceServer, RTCRtpReceiver

from mafalda_operator.cli.participant.errors import MediaError

NO_ICE_SERVERS: list[RTCIceServer] = []

_ESTIMATES = ("goog-remb", "transport-cc")
_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"

_addresses: contextvars.ContextVar[tuple[str, ...] | None] = contextvars.ContextVar("addresses", default=None)
_found_by_aioice: Callable[..., list[str]] = aioice.ice.get_host_addresses


def _host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    chosen = _addresses.get()
    return list(chosen) if chosen is not None else _found_by_aioice(use_ipv4, use_ipv6)


aioice.ice.get_host_addresses = _host_addresses


@contextlib.contextmanager
def reach(candidates: list[dict[str, Any]]) -> Iterator[None]:
    """Has ICE gather the addresses from which `candidates` (the server's) can be reached.

    Loopback ones are reached from loopback only; for all others aioice's own choice stands.
    """
    servers = [candidate["ip"] for candidate in candidates]
    loopback = tuple(sorted({ip for ip in servers if _is_loopback(ip)}))
    token = _addresses.set(loopback if loopback and len(loopback) == len(set(servers)) else None)
    try:
        yield
    finally:
        _addresses.reset(token)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a host name
        return False


class Faults:
    """What listeners of one pymediasoup transport raised during a call."""

    def __init__(self) -> None:
        self._raised: list[BaseException] = []

    def add(self, error: BaseException) -> None:
        """The transport's "error" listener."""
        self._raised.append(error)

    @contextlib.contextmanager
    def raised(self, what: str) -> Iterator[None]:
        """Raises, after the calls within, what their listeners raised; other errors become MediaError."""
        self._raised.clear()
        try:
            yield
        except Exception as error:
            raise self._fault(what, error) from error
        if self._raised:
            raise self._fault(what, self._raised[0]) from self._raised[0]

    def _fault(self, what: str, error: Exception | BaseException) -> MediaError:
        cause = self._raised[0] if self._raised else error
        text = str(cause) or type(cause).__name__
        return MediaError(f"{what}: {text}")


def without_probation(transport: Any) -> None:
    """Keeps pymediasoup from receiving a stream that is not for decoding."""
    transport._probatorConsumerCreated = True


def without_estimates(capabilities: dict[str, Any]) -> dict[str, Any]:
    """Capabilities to receive, without those by which bandwidth is estimated."""
    return {
        "codecs": [
            {
                **codec,
                "rtcpFeedback": [f for f in codec.get("rtcpFeedback", ()) if f["type"] not in _ESTIMATES],
            }
            for codec in capabilities.get("codecs", ())
        ],
        "headerExtensions": [e for e in capabilities.get("headerExtensions", ()) if e["uri"] != _SEND_TIME],
    }


def timestamp(receiver: RTCRtpReceiver, pts: int | None) -> int | None:
    """The RTP time stamp of a frame: aiortc counts each track's from its first packet on, so that two tracks
    of one producer could not be compared."""
    mapper = getattr(receiver, "_RTCRtpReceiver__timestamp_mapper", None)
    origin = getattr(mapper, "_origin", None)
    return None if pts is None or origin is None else (pts + int(origin)) % (1 << 32)


def lost_packets(receiver: RTCRtpReceiver, ssrc: int) -> int:
    """Packets of stream `ssrc` that never came, or only as retransmissions (RFC 3550 appendix A.3)."""
    streams: dict[int, Any] = getattr(receiver, "_RTCRtpReceiver__remote_streams")  # noqa: B009  name-mangled
    stream = streams.get(ssrc)
    return 0 if stream is None else int(stream.packets_lost)
