"""Log lines as events, for applications that don't use Python's logging.

Everything is logged under `mediaserver.mediasoup` anyhow, and what workers say under
`mediaserver.mediasoup.worker`; `logging` is the way to direct that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeAlias

logger: Final = logging.getLogger("mediaserver.mediasoup")

LogListener: TypeAlias = Callable[[str, str], None]
"""Gets the logger's name and the line."""
ErrorLogListener: TypeAlias = Callable[[str, str, BaseException | None], None]
"""Gets the exception as well, if the line tells of one."""


class _ListenerHandler(logging.Handler):
    """Calls the listener of a record's level; one that raises is told of on stderr (logging's rule)."""

    def __init__(
        self, on_debug: LogListener | None, on_warn: LogListener | None, on_error: ErrorLogListener | None
    ) -> None:
        super().__init__()
        self._on_debug, self._on_warn, self._on_error = on_debug, on_warn, on_error

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._call(record.name, record.getMessage(), record)
        except Exception:  # noqa: BLE001 - handed to logging's own hook
            self.handleError(record)

    def _call(self, namespace: str, log: str, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            if self._on_error is not None:
                self._on_error(namespace, log, record.exc_info[1] if record.exc_info else None)
        elif record.levelno >= logging.WARNING:
            if self._on_warn is not None:
                self._on_warn(namespace, log)
        elif self._on_debug is not None:
            self._on_debug(namespace, log)


def set_log_event_listeners(
    *,
    on_debug: LogListener | None = None,
    on_warn: LogListener | None = None,
    on_error: ErrorLogListener | None = None,
) -> None:
    """Calls these with every line that this package, and its workers, log from now on; replaces earlier ones.

    Debug lines come only if the logger `mediaserver.mediasoup` is enabled for them (`setLevel`).
    """
    for handler in tuple(logger.handlers):
        if isinstance(handler, _ListenerHandler):
            logger.removeHandler(handler)
    if on_debug or on_warn or on_error:
        logger.addHandler(_ListenerHandler(on_debug, on_warn, on_error))
