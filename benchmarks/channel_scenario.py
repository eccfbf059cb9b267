"""What the channel benchmark has both sides do, as JSON: the same codecs, producers and capabilities."""

from __future__ import annotations

from typing import Any, Final

from mediaserver.mediasoup import ortc, process

Json = dict[str, Any]

PRODUCERS: Final = 10
CONSUMERS: Final = 500
CAPABILITIES: Final = 20
_MIME_TYPES: Final = ("audio/opus", "video/VP8", "video/VP9", "video/H264")
_URIS: Final = sorted({extension.uri for extension in ortc.SUPPORTED_RTP_CAPABILITIES.header_extensions})
_FEEDBACK: Final = [
    {"type": "nack"},
    {"type": "nack", "parameter": "pli"},
    {"type": "ccm", "parameter": "fir"},
    {"type": "goog-remb"},
    {"type": "transport-cc"},
]


def scenario(requests: int) -> Json:
    """`requests` are made one after another in one step, and four times as many with 64 in flight."""
    return {
        "workerBin": str(process.find_worker_bin()),
        "mediaCodecs": [_media_codec(name) for name in _MIME_TYPES],
        "producers": [_producer(i) for i in range(PRODUCERS)],
        "capabilities": [_capabilities(i) for i in range(CAPABILITIES)],
        "endpoints": CONSUMERS // PRODUCERS,
        "memoryEndpoints": 2000 // PRODUCERS,
        "requests": requests,
        "inFlight": 64,
        "requestsInFlight": 4 * requests,
        "pauses": 1,
    }


def _media_codec(mime_type: str) -> Json:
    if mime_type == "audio/opus":
        return {"kind": "audio", "mimeType": mime_type, "clockRate": 48_000, "channels": 2}
    codec: Json = {"kind": "video", "mimeType": mime_type, "clockRate": 90_000}
    if mime_type == "video/H264":
        codec["parameters"] = _h264()
    return codec


def _h264() -> Json:
    return {"packetization-mode": 1, "profile-level-id": "42e01f", "level-asymmetry-allowed": 1}


def _producer(i: int) -> Json:
    """Half of them microphones; of the cameras some send simulcast."""
    uris = ["urn:ietf:params:rtp-hdrext:sdes:mid"]
    if i % 2 == 0:
        codec: Json = {
            "mimeType": "audio/opus",
            "payloadType": 111,
            "clockRate": 48_000,
            "channels": 2,
            "parameters": {"useinbandfec": 1, "usedtx": 1},
            "rtcpFeedback": [{"type": "transport-cc"}],
        }
        codecs = [codec]
        encodings: list[Json] = [{"ssrc": 1000 + 10 * i}]
        uris.append("urn:ietf:params:rtp-hdrext:ssrc-audio-level")
    else:
        mime_type = _MIME_TYPES[1 + i // 2 % 3]
        parameters = _h264() if mime_type == "video/H264" else {}
        codecs = [
            {
                "mimeType": mime_type,
                "payloadType": 96,
                "clockRate": 90_000,
                "parameters": parameters,
                "rtcpFeedback": _FEEDBACK,
            },
            {"mimeType": "video/rtx", "payloadType": 97, "clockRate": 90_000, "parameters": {"apt": 96}},
        ]
        layers = 3 if mime_type == "video/VP8" else 1
        encodings = [
            {
                "ssrc": 1000 + 10 * i + 2 * n,
                "rtx": {"ssrc": 1001 + 10 * i + 2 * n},
                "maxBitrate": 300_000 << n,
            }
            for n in range(layers)
        ]
        uris += ["urn:3gpp:video-orientation", "urn:ietf:params:rtp-hdrext:toffset"]
    return {
        "kind": "audio" if i % 2 == 0 else "video",
        "rtpParameters": {
            "codecs": codecs,
            "headerExtensions": [{"uri": uri, "id": 1 + n} for n, uri in enumerate(uris)],
            "encodings": encodings,
            "rtcp": {"cname": f"producer-{i}"},
        },
    }


def _capabilities(i: int) -> Json:
    """Like a browser's: no two of them have the same header extensions and payload types."""
    codecs: list[Json] = []
    for n, mime_type in enumerate(_MIME_TYPES):
        payload_type = 96 + (2 * n + i) % 30
        codec = _media_codec(mime_type) | {"preferredPayloadType": payload_type}
        if mime_type == "audio/opus":
            codecs.append(
                codec | {"parameters": {"minptime": 10 + i}, "rtcpFeedback": [{"type": "transport-cc"}]}
            )
            continue
        codecs.append(codec | {"rtcpFeedback": _FEEDBACK})
        rtx = {
            "kind": "video",
            "mimeType": "video/rtx",
            "clockRate": 90_000,
            "parameters": {"apt": payload_type},
        }
        codecs.append(rtx | {"preferredPayloadType": payload_type + 1})
    extensions = [
        {
            "kind": extension.kind,
            "uri": extension.uri,
            "preferredId": extension.preferred_id,
            "preferredEncrypt": False,
            "direction": "sendrecv",
        }
        for extension in ortc.SUPPORTED_RTP_CAPABILITIES.header_extensions
        if extension.uri != _URIS[i % len(_URIS)] or i >= len(_URIS)
    ]
    return {"codecs": codecs, "headerExtensions": extensions}
