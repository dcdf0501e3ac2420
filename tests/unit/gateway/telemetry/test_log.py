"""The log is text or JSON lines, redacted, and libraries do not shout."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gateway.telemetry.log import REPEAT_S, RepeatFilter, setup
from tests.support.turns import HandClock

TOUCHED = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "httpx", "opentelemetry", "kubernetes", "urllib3")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the loggers as they were."""
    before = {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in TOUCHED}
    yield
    for name, (level, handlers) in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = handlers


def logged(*, json_lines: bool, level: str = "info") -> tuple[logging.Logger, io.StringIO]:
    """Set the log up and return one of our loggers and what it writes to."""
    stream = io.StringIO()
    setup(level, json_lines=json_lines, stream=stream)  # type: ignore[arg-type]
    return logging.getLogger("gateway.test"), stream


def test_a_line_of_text_says_when_what_and_who() -> None:
    """Time in UTC, level, logger, message."""
    log, stream = logged(json_lines=False)
    log.info("ready on %s", "http://127.0.0.1:1")
    time, rest = stream.getvalue().split(" ", 1)
    assert rest == "INFO gateway.test: ready on http://127.0.0.1:1\n"
    assert time.endswith("Z") and "T" in time


def test_a_line_of_json_is_one_object() -> None:
    """An exception and newlines stay within the line."""
    log, stream = logged(json_lines=True)
    try:
        raise ValueError("first\nsecond \ud800")
    except ValueError:
        log.exception("it broke\nhere")
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == ("error", "gateway.test", "it broke\nhere")
    assert "ValueError: first" in fields["exception"]


@pytest.mark.parametrize("json_lines", [True, False])
def test_credentials_are_taken_out_of_messages_and_tracebacks(json_lines: bool) -> None:
    """Also where an exception carries one."""
    log, stream = logged(json_lines=json_lines)
    try:
        raise ValueError("Bearer Zq7xW9aB3cD5eF7gH9iJ")
    except ValueError:
        log.exception("sent %s", "authorization: Bearer Zq7xW9aB3cD5eF7gH9iJ")
    assert "Zq7x" not in stream.getvalue()
    assert "authorization: Bearer [redacted]" in stream.getvalue()
    assert "ValueError: Bearer [redacted]" in stream.getvalue()


def test_the_level_holds_and_changes() -> None:
    """A second setup replaces the first."""
    log, stream = logged(json_lines=False, level="warning")
    log.info("no")
    log.warning("yes")
    assert "no" not in stream.getvalue() and "yes" in stream.getvalue()
    _, second = logged(json_lines=False, level="debug")
    log.debug("more")
    assert "more" in second.getvalue()
    assert "more" not in stream.getvalue()


def test_libraries_are_heard_from_a_warning_on() -> None:
    """httpx's line a request is not ours to print; uvicorn speaks through our handler."""
    _, stream = logged(json_lines=False, level="debug")
    logging.getLogger("httpx").info("HTTP Request: GET")
    logging.getLogger("uvicorn.error").warning("odd")
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert stream.getvalue().count("\n") == 1
    assert "odd" in stream.getvalue()


def test_a_library_that_repeats_itself_is_heard_once_a_minute() -> None:
    """A collector that is away does not fill the disk; our own loggers are never held back."""
    clock = HandClock()
    once = RepeatFilter(clock)

    def heard(name: str, line: int = 1) -> bool:
        return once.filter(logging.LogRecord(name, logging.ERROR, "a.py", line, "m", (), None))

    assert heard("opentelemetry.exporter")
    assert not heard("opentelemetry.exporter")
    assert heard("opentelemetry.exporter", line=2)
    clock.now_s += REPEAT_S
    assert heard("opentelemetry.exporter")
    assert heard("gateway.app") and heard("gateway.app")
