"""The gateway's own errors in the client's dialect: whole bodies, and events inside a stream that has already begun.

Shapes, as the official SDKs read them:

- OpenAI: `{"error": {"message", "type", "param", "code"}}`; inside a stream the same object is the data of an event.
- Anthropic: `{"type": "error", "error": {"type", "message"}, "request_id"}`; inside a stream under `event: error`.
- OpenAI Responses, inside a stream: `event: error` with `{"type": "error", "code", "message", "param", "sequence_number"}`.
"""

from __future__ import annotations

import msgspec

from gateway.errors import GatewayError
from gateway.protocol.dialect import Dialect

_encode = msgspec.json.encode

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def openai_type(status: int) -> str:
    """Return OpenAI's `error.type` for a status (the platform's error code page)."""
    return _OPENAI_TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")


def anthropic_type(status: int) -> str:
    """Return Anthropic's `error.type` for a status (the API's errors page); 503 is its overloaded one."""
    return _ANTHROPIC_TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")


def error_body(dialect: Dialect | None, error: GatewayError, request_id: bytes = b"") -> bytes:
    """Return the JSON body of an error answer in a dialect; OpenAI's for every dialect but Anthropic's."""
    if dialect is Dialect.MESSAGES:
        return _anthropic(error, request_id)
    return _openai(error)


def error_event(dialect: Dialect | None, error: GatewayError, request_id: bytes = b"", sequence_number: int = 0) -> bytes:
    """Return a whole server-sent event that tells a client of an error after its stream has begun.

    Args:
        dialect: whose shape to use.
        error: what happened.
        request_id: told in Anthropic's shape.
        sequence_number: of this event in a Responses stream: one more than the last event's.
    """
    if dialect is Dialect.MESSAGES:
        return b"event: error\ndata: %b\n\n" % _anthropic(error, request_id)
    if dialect is Dialect.RESPONSES:
        data = {
            "type": "error",
            "code": str(error.code),
            "message": error.message,
            "param": error.param,
            "sequence_number": sequence_number,
        }
        return b"event: error\ndata: %b\n\n" % _encode(data)
    return b"data: %b\n\n" % _openai(error)


def _openai(error: GatewayError) -> bytes:
    return _encode(
        {
            "error": {
                "message": error.message,
                "type": openai_type(error.status),
                "param": error.param,
                "code": str(error.code),
            }
        }
    )


def _anthropic(error: GatewayError, request_id: bytes) -> bytes:
    body: dict[str, object] = {"type": "error", "error": {"type": anthropic_type(error.status), "message": error.message}}
    if request_id:
        body["request_id"] = request_id.decode("ascii", "replace")
    return _encode(body)
