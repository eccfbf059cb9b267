"""Logs: one event a line on stderr, JSON or text, standard library loggers included.

Every line has ``ts``, ``level`` and ``message``. What it is about is named by the same keys in operator,
media server and gateway: ``session``, ``router``, ``server`` and ``cluster`` by namespace/name,
``participant``, ``worker`` (its slot), ``reason`` (why, in a word where a condition or close code has one).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import structlog

Format = Literal["json", "text"]
_CLAIMED = 128
LEVELS = ("debug", "info", "warning", "error")


def configure(level: str, fmt: Format) -> None:
    """Route structlog and logging to stderr at ``level`` (one of LEVELS), times in UTC as RFC 3339.

    May be called again; the last call counts. Raises ValueError for an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"log level is {level!r}, must be one of {', '.join(LEVELS)}")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
    ]
    render: structlog.typing.Processor = _as_json if fmt == "json" else _as_text
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Access logs would carry query strings, and with them tokens.
    logging.getLogger("aiohttp.access").disabled = True
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def claimed(query: Mapping[str, str]) -> dict[str, str]:
    """Session and participant that a request names, existing or not: never long, never the token."""
    return {"session": query.get("roomId", "")[:_CLAIMED], "participant": query.get("peerId", "")[:_CLAIMED]}


def _split(event: Mapping[str, Any]) -> tuple[str, str, str, dict[str, Any]]:
    rest = {key: value for key, value in event.items() if key not in ("ts", "level", "event", "message")}
    if "message" in event:  # a library's own field of that name
        event = {**event, "event": f"{event.get('event', '')}: {event['message']}"}
    return str(event.get("ts", "")), str(event.get("level", "")), str(event.get("event", "")), rest


def _as_json(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
    time, level, message, rest = _split(event)
    return json.dumps({"ts": time, "level": level, "message": message, **rest}, default=str)


def _as_text(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
    time, level, message, rest = _split(event)
    pairs = "".join(f" {key}={_word(value)}" for key, value in rest.items())
    return f"{time} {level:<7} {json.dumps(message, ensure_ascii=False)[1:-1]}{pairs}"


def _word(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and text and not set(text) & set(' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)
