"""The traps are those of the installed versions: when one changes, these tell."""

import aioice.ice
import pytest
from aiortc import RTCRtpReceiver
from mafalda_operator.cli.participant import MediaError, traps
from mafalda_operator.cli.participant.rtc import Rtc
from pymediasoup.transport import Transport


def addresses() -> list[str]:
    return aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)


def test_loopback_is_offered_to_servers_on_loopback_only() -> None:
    usual = addresses()
    assert "127.0.0.1" not in usual
    with traps.reach([{"ip": "127.0.0.1"}, {"ip": "127.0.0.1"}]):
        assert addresses() == ["127.0.0.1"]
    with traps.reach([{"ip": "127.0.0.1"}, {"ip": "192.0.2.1"}]):
        assert addresses() == usual
    with traps.reach([{"ip": "media.example.com"}]):
        assert addresses() == usual
    assert addresses() == usual


def test_what_listeners_raise_is_raised() -> None:
    faults = traps.Faults()
    with pytest.raises(MediaError, match="produce: no room"), faults.raised("produce"):
        faults.add(ValueError("no room"))

    def fail() -> None:
        with faults.raised("produce"):
            faults.add(ValueError("the reason"))
            raise IndexError("what comes of it")

    with pytest.raises(MediaError, match="the reason"):
        fail()
    with faults.raised("produce"):
        pass


async def test_the_private_names_are_still_there() -> None:
    assert "_probatorConsumerCreated" in Transport.__init__.__code__.co_names
    assert "_RTCRtpReceiver__remote_streams" in RTCRtpReceiver.__init__.__code__.co_names


async def test_bandwidth_estimates_are_left_out() -> None:
    async def ask(method: str, data: dict[str, object]) -> dict[str, object]:
        raise AssertionError(method)

    rtc = Rtc(ask, lambda _: None)
    feedback = [{"type": "nack"}, {"type": "goog-remb"}, {"type": "transport-cc"}]
    await rtc.load(
        {
            "codecs": [
                {
                    "kind": "video",
                    "mimeType": "video/VP8",
                    "clockRate": 90000,
                    "preferredPayloadType": 101,
                    "rtcpFeedback": feedback,
                }
            ],
            "headerExtensions": [],
        }
    )
    (codec,) = rtc.capabilities["codecs"]
    assert [entry["type"] for entry in codec["rtcpFeedback"]] == ["nack"]
