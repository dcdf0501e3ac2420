"""What can go wrong with a call, and how an error answer is read.

SmgError
+-- Unreachable    no answer: refused, timed out, broken off, not HTTP
+-- SmgApiError    an answer that says no; also an error event inside a stream
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

MAX_MESSAGE = 2000
"""Characters of a message that are kept; whatever answers there need not be a gateway."""


class SmgError(Exception):
    """A call that failed."""


class Unreachable(SmgError):
    """No answer came. The call may or may not have been carried out."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class SmgApiError(SmgError):
    """The gateway answered with an error."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 200 for an error inside a stream."""
        self.code = code
        """The gateway's error code (`worker_not_found`); `http_STATUS` where the answer has none."""
        self.message = message
        self.retry_after_s = retry_after_s
        self.problems = problems
        """Every mistake, where the gateway refused a configuration."""

    def __repr__(self) -> str:
        return f"<SmgApiError {self.status} {self.code}: {self.message}>"


def api_error(status: int, headers: Mapping[str, str], body: bytes) -> SmgApiError:
    """Make the error of an answer, whatever its body is."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    code, message = read_error(value)
    if not message:
        try:
            message = HTTPStatus(status).phrase.lower()
        except ValueError:
            message = f"status {status}"
    code = code or headers.get("x-smg-error-code", "") or f"http_{status}"
    return SmgApiError(status, code, message, _seconds(headers.get("retry-after")), _problems(value))


def read_error(value: Any) -> tuple[str, str]:
    """Return code and message of an error body in the OpenAI, the Anthropic or a flat shape; empty where there is none."""
    error = value.get("error", value) if isinstance(value, dict) else None
    if isinstance(error, str):
        return "", error[:MAX_MESSAGE]
    if not isinstance(error, dict):
        return "", ""
    code = error.get("code") or error.get("type") or ""
    message = error.get("message") or ""
    return str(code), str(message)[:MAX_MESSAGE]


def _problems(value: Any) -> tuple[str, ...]:
    error = value.get("error") if isinstance(value, dict) else None
    problems = error.get("problems") if isinstance(error, dict) else None
    return tuple(str(problem)[:MAX_MESSAGE] for problem in problems) if isinstance(problems, list) else ()


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None
