"""Participants: protoo signalling over WebSocket, rooms, tokens and close codes (docs: signalling)."""

from mediaserver.signalling.endpoint import SignallingEndpoint
from mediaserver.signalling.settings import SignallingSettings

__all__ = ["SignallingEndpoint", "SignallingSettings"]
