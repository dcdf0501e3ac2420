"""The answers of the control plane: JSON, never cached, and errors in OpenAI's shape with every problem named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.errors import Code, ConfigError, GatewayError
from gateway.protocol.error_body import openai_type

WORKER_NOT_FOUND = "WORKER_NOT_FOUND"
WORKER_ALREADY_EXISTS = "WORKER_ALREADY_EXISTS"
"""smg's own codes of the workers API, in its spelling."""


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json")


def refusal(error: GatewayError, code: str | None = None) -> Response:
    """Return an error; `code` replaces its own where the API has a more telling one."""
    name = code if code is not None else str(error.code)
    body: dict[str, Any] = {"message": error.message, "type": openai_type(error.status), "param": error.param, "code": name}
    if isinstance(error, ConfigError):
        body["problems"] = error.problems
    headers = {"x-smg-error-code": name}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.code is Code.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return answer({"error": body}, error.status, headers)
