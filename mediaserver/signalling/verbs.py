"""What a participant may ask for, verb by verb: parameters checked, rights and bounds held, errors told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from mediaserver.cascade.errors import CascadeError
from mediaserver.mediasoup import (
    ChannelError,
    MediasoupError,
    RequestTimeoutError,
    WebRtcTransport,
    WorkerError,
)
from mediaserver.mediasoup.ortc import validate_rtp_capabilities
from mediaserver.signalling import messages
from mediaserver.signalling.candidates import announced_candidates
from mediaserver.signalling.errors import (
    BAD_REQUEST,
    INTERNAL,
    OUT_OF_ORDER,
    TOO_MANY,
    UNAVAILABLE,
    UNKNOWN_METHOD,
    Refused,
)
from mediaserver.signalling.participant import Participant
from mediaserver.signalling.protoo import Request

_ICE_CONSENT_TIMEOUT = 20
"""Seconds without a STUN binding request after which ICE counts as disconnected."""


class Membership(Protocol):
    """What of a room the verbs need."""

    def join(self, participant: Participant, params: messages.Join) -> messages.Joined: ...

    def rename(self, participant: Participant, name: str) -> None: ...


Handler = Callable[[Membership, Participant, Any], Awaitable[Any]]


@dataclass(frozen=True)
class _Verb:
    params: type[messages.Params]
    handler: Handler
    joined: bool


_VERBS: dict[str, _Verb] = {}


def _verb(name: str, params: type[messages.Params], *, joined: bool = True) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _VERBS[name] = _Verb(params, handler, joined)
        return handler

    return register


async def answer(room: Membership, participant: Participant, request: Request) -> Any:
    """Carries out `request`. Raises Refused, whose reason names what is wrong."""
    verb = _VERBS.get(request.method)
    if verb is None:
        raise Refused(UNKNOWN_METHOD, f"unknown method {request.method[:64]!r}")
    if verb.joined:
        participant.require_joined()
    try:
        params = msgspec.json.decode(request.data, type=verb.params)
    except msgspec.MsgspecError as error:
        raise Refused(BAD_REQUEST, f"{request.method}: {error}") from error
    try:
        return await verb.handler(room, participant, params)
    except (ChannelError, WorkerError, RequestTimeoutError) as error:
        raise Refused(UNAVAILABLE, f"{request.method}: the media worker is not available: {error}") from error
    except (MediasoupError, CascadeError) as error:
        raise Refused(BAD_REQUEST, f"{request.method}: {error}") from error


# -- the session -----------------------------------------------------------------------------------------


@_verb("getRouterRtpCapabilities", messages.Nothing, joined=False)
async def _capabilities(_: Membership, participant: Participant, __: messages.Nothing) -> Any:
    return participant.hosted.router.rtp_capabilities


@_verb("join", messages.Join, joined=False)
async def _join(room: Membership, participant: Participant, params: messages.Join) -> Any:
    if participant.joined:
        raise Refused(OUT_OF_ORDER, "joined already")
    _check_name(participant, params.display_name, "displayName")
    _check_app_data(participant, params.device, "device")
    if params.rtp_capabilities is not None:
        capabilities = validate_rtp_capabilities(params.rtp_capabilities)
        params = msgspec.structs.replace(params, rtp_capabilities=capabilities)
    return room.join(participant, params)


@_verb("changeDisplayName", messages.ChangeDisplayName)
async def _rename(room: Membership, participant: Participant, params: messages.ChangeDisplayName) -> Any:
    _check_name(participant, params.display_name, "displayName")
    room.rename(participant, params.display_name)


# -- transports ------------------------------------------------------------------------------------------


@_verb("createWebRtcTransport", messages.CreateTransport, joined=False)
async def _create_transport(_: Membership, participant: Participant, params: messages.CreateTransport) -> Any:
    if params.producing:
        participant.require(participant.claims.publish, "publish")
    if params.consuming:
        participant.require(participant.claims.subscribe, "subscribe")
    if not (params.producing or params.consuming):
        raise Refused(BAD_REQUEST, "createWebRtcTransport: one of producing and consuming must be true")
    _check_app_data(participant, params.app_data, "appData")
    _check_bound(len(participant.transports), participant.settings.max_transports, "transports")
    server = participant.hosted.slot.webrtc_server
    if server is None:
        raise Refused(UNAVAILABLE, "the media worker is not available; dial again")
    transport = await participant.hosted.router.create_webrtc_transport(
        webrtc_server=server,
        enable_udp=not params.force_tcp,
        enable_tcp=True,
        prefer_udp=True,
        ice_consent_timeout=_ICE_CONSENT_TIMEOUT,
        app_data={
            **(params.app_data or {}),
            "producing": params.producing,
            "consuming": params.consuming,
            "peerId": participant.peer_id,
        },
    )
    _keep(participant, transport)
    participant.own(transport)
    if params.consuming and participant.joined:
        participant.receive(tuple(participant.hosted.producers.values()))
    return messages.TransportCreated(
        id=transport.id,
        ice_parameters=transport.ice_parameters,
        ice_candidates=announced_candidates(transport.ice_candidates, participant.settings.announced),
        dtls_parameters=transport.dtls_parameters,
    )


@_verb("connectWebRtcTransport", messages.ConnectTransport, joined=False)
async def _connect(_: Membership, participant: Participant, params: messages.ConnectTransport) -> Any:
    await participant.transport(params.transport_id).connect(dtls_parameters=params.dtls_parameters)


@_verb("restartIce", messages.OfTransport, joined=False)
async def _restart_ice(_: Membership, participant: Participant, params: messages.OfTransport) -> Any:
    return await participant.transport(params.transport_id).restart_ice()


@_verb("getTransportStats", messages.OfTransport, joined=False)
async def _transport_stats(_: Membership, participant: Participant, params: messages.OfTransport) -> Any:
    stats = await participant.transport(params.transport_id).get_stats()
    return stats if isinstance(stats, list) else [stats]


# -- producers -------------------------------------------------------------------------------------------


@_verb("produce", messages.Produce)
async def _produce(_: Membership, participant: Participant, params: messages.Produce) -> Any:
    participant.require(participant.claims.publish, "publish")
    transport = participant.transport(params.transport_id)
    if not transport.app_data.get("producing"):
        raise Refused(OUT_OF_ORDER, "produce: the transport was not made for producing")
    _check_app_data(participant, params.app_data, "appData")
    source = _source(participant, params)
    replaced = participant.producer_of(source)
    if replaced is None:
        _check_bound(len(participant.producers), participant.settings.max_producers, "producers")
    app_data = {**(params.app_data or {}), "peerId": participant.peer_id, "source": source}
    producer = await transport.produce(
        kind=params.kind, rtp_parameters=params.rtp_parameters, paused=params.paused, app_data=app_data
    )
    _keep(participant, producer)
    if replaced is not None:
        replaced.close()
    participant.own_producer(producer)
    participant.hosted.publish(producer, peer_id=participant.peer_id, source=source, app_data=app_data)
    return messages.Created(id=producer.id)


@_verb("closeProducer", messages.OfProducer)
async def _close_producer(_: Membership, participant: Participant, params: messages.OfProducer) -> Any:
    participant.producer(params.producer_id).close()


@_verb("pauseProducer", messages.OfProducer)
async def _pause_producer(_: Membership, participant: Participant, params: messages.OfProducer) -> Any:
    await participant.producer(params.producer_id).pause()


@_verb("resumeProducer", messages.OfProducer)
async def _resume_producer(_: Membership, participant: Participant, params: messages.OfProducer) -> Any:
    await participant.producer(params.producer_id).resume()


@_verb("getProducerStats", messages.OfProducer)
async def _producer_stats(_: Membership, participant: Participant, params: messages.OfProducer) -> Any:
    return await participant.producer(params.producer_id).get_stats()


# -- consumers -------------------------------------------------------------------------------------------


@_verb("pauseConsumer", messages.OfConsumer)
async def _pause_consumer(_: Membership, participant: Participant, params: messages.OfConsumer) -> Any:
    await participant.consumer(params.consumer_id).pause()


@_verb("resumeConsumer", messages.OfConsumer)
async def _resume_consumer(_: Membership, participant: Participant, params: messages.OfConsumer) -> Any:
    await participant.consumer(params.consumer_id).resume()


@_verb("setConsumerPreferredLayers", messages.SetPreferredLayers)
async def _layers(_: Membership, participant: Participant, params: messages.SetPreferredLayers) -> Any:
    await participant.consumer(params.consumer_id).set_preferred_layers(params.layers)


@_verb("setConsumerPriority", messages.SetPriority)
async def _priority(_: Membership, participant: Participant, params: messages.SetPriority) -> Any:
    await participant.consumer(params.consumer_id).set_priority(params.priority)


@_verb("requestConsumerKeyFrame", messages.OfConsumer)
async def _key_frame(_: Membership, participant: Participant, params: messages.OfConsumer) -> Any:
    await participant.consumer(params.consumer_id).request_key_frame()


@_verb("getConsumerStats", messages.OfConsumer)
async def _consumer_stats(_: Membership, participant: Participant, params: messages.OfConsumer) -> Any:
    return await participant.consumer(params.consumer_id).get_stats()


# -- checks ----------------------------------------------------------------------------------------------


def _source(participant: Participant, params: messages.Produce) -> str:
    """The producer's stable name. The demo application gives none: a shared screen says `share`."""
    app_data = params.app_data or {}
    source = app_data.get("source", "share" if app_data.get("share") else params.kind)
    if not isinstance(source, str) or not source:
        raise Refused(BAD_REQUEST, "produce: appData.source must be a string that is not empty")
    _check_name(participant, source, "appData.source")
    return source


def _check_name(participant: Participant, name: str, field: str) -> None:
    limit = participant.settings.max_name_length
    if len(name) > limit:
        raise Refused(BAD_REQUEST, f"{field} has {len(name)} characters, at most {limit} are allowed")


def _check_app_data(participant: Participant, data: dict[str, Any] | None, field: str) -> None:
    limit = participant.settings.max_app_data_bytes
    if data and len(msgspec.json.encode(data)) > limit:
        raise Refused(BAD_REQUEST, f"{field} is larger than {limit} bytes")


def _check_bound(count: int, limit: int, what: str) -> None:
    if count >= limit:
        raise Refused(TOO_MANY, f"you have {count} {what}, at most {limit} are allowed; close one first")


def _keep(participant: Participant, made: WebRtcTransport | Any) -> None:
    """Frees what was made for a participant that has left meanwhile."""
    if participant.closed:
        made.close()
        raise Refused(INTERNAL, "you have left")
