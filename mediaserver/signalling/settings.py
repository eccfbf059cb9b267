"""Bounds and deadlines of signalling, each with its unit and default."""

from __future__ import annotations

import msgspec


class SignallingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a media server grants its participants. Durations are seconds."""

    announced: tuple[str, ...] = ()
    """Where participants reach the workers, in the order to try; empty: at what the workers listen on."""

    linger: float = 10.0
    """How long transports live on when signalling is lost without a goodbye."""
    ping_interval: float = 10.0
    """A WebSocket ping is sent so often; no pong within half of it means that signalling is lost."""
    answer_timeout: float = 10.0
    """For a participant to answer a request such as newConsumer."""
    join_timeout: float = 30.0
    """From the dial to `join`; a socket that never joins is closed."""
    close_timeout: float = 3.0
    """For a participant to answer a close frame before its connection is cut."""
    attach_timeout: float = 5.0
    """For a remote producer to reach this router."""
    retry_pause: float = 0.5
    """Before the first new try to consume a producer; doubles up to `max_retry_pause`."""
    max_retry_pause: float = 5.0

    leave_within: float = 10.0
    """For a participant that was asked to attach elsewhere; then it is told to dial again."""
    leave_burst: int = 5
    """Participants of all routers that are asked at once; see `leave_pause`."""
    leave_pause: float = 0.1
    """Between two bursts, so that hundreds do not dial at once."""
    overlap: float = 2.0
    """How long a producer of an attachment goes on after its owner produces the same source elsewhere, since
    receivers need a moment to get that one."""
    handover: float = 8.0
    """How long an attachment lives at most once its owner has attached elsewhere when asked to."""

    max_message_bytes: int = 65_536
    max_app_data_bytes: int = 4_096
    """Of the application data of one transport or producer, as JSON."""
    max_name_length: int = 128
    """Of a display name or source, in characters."""
    max_outgoing: int = 512
    """Messages that may wait for a participant to read; one more and it is closed."""
    max_requests: int = 64
    """Requests of a participant that may wait for their turn."""
    max_offers: int = 16
    """newConsumer requests a participant has to answer at once; more wait."""
    max_participants: int = 1_000
    """Attachments to one router, joined or not."""
    max_transports: int = 8
    max_producers: int = 16
    max_consumers: int = 512
    """Per participant, as the two above."""
