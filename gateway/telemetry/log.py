"""Logging of the gateway itself: text or JSON lines on the standard error output, credentials taken out, libraries tamed.

`setup` is called at the start and after every change of configuration; it replaces what it set up before.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson

from gateway.telemetry.redact import redact

Level = Literal["debug", "info", "warning", "error"]

REPEAT_S = 60.0
"""A library that says the same again within this time is not heard."""
_MAX_REPEATS = 256

_QUIET = ("asyncio", "httpx", "httpcore", "urllib3", "requests", "kubernetes", "uvicorn.access")
"""Loggers of libraries that have nothing to tell an operator below a warning."""
_REPEATING = ("opentelemetry", "kubernetes", "urllib3")
"""Loggers of libraries that repeat an error for as long as the other side is away."""
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO gateway.app: ready`, then the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        line = f"{_time(record.created)} {record.levelname} {record.name}: {record.getMessage()}"
        trace = _traceback(self, record)
        return redact(f"{line}\n{trace}" if trace else line)


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, redacted."""
        fields: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _plain(redact(record.getMessage())),
            "pid": record.process,
        }
        trace = _traceback(self, record)
        if trace:
            fields["exception"] = _plain(redact(trace))
        return orjson.dumps(fields).decode()


class RepeatFilter(logging.Filter):
    """Lets a record of some libraries through once in `REPEAT_S` for each place in the code that it comes from."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last_s: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is heard."""
        if not record.name.startswith(_REPEATING):
            return True
        now_s = self._clock()
        key = (record.pathname, record.lineno)
        last_s = self._last_s.get(key)
        if last_s is not None and now_s - last_s < REPEAT_S:
            return False
        if len(self._last_s) >= _MAX_REPEATS:
            self._last_s.clear()
        self._last_s[key] = now_s
        return True


class _Handler(logging.StreamHandler[TextIO]):
    """Our handler, told apart from others'."""


def setup(level: Level, *, json_lines: bool, stream: TextIO | None = None) -> None:
    """Set the root logger up. Handlers that somebody else put there stay.

    Args:
        level: Least level of the gateway's own loggers; libraries are heard from a warning on.
        json_lines: JSON lines instead of text.
        stream: Where to; the standard error output unless given.
    """
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if json_lines else TextFormatter())
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _UVICORN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in (*_QUIET, *_REPEATING):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _time(created_s: float) -> str:
    return datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _plain(text: str) -> str:
    """Return text that can be encoded."""
    return text.encode("utf-8", "replace").decode()
