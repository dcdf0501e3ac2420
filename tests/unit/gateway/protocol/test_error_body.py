"""The gateway's errors have the shape that each client's SDK reads."""

from __future__ import annotations

import json

import pytest

from gateway.errors import ClientError, Code, GatewayError, status_of
from gateway.protocol.dialect import Dialect
from gateway.protocol.error_body import anthropic_type, error_body, error_event, openai_type

ERROR = ClientError(Code.MODEL_NOT_FOUND, 'no model "x"\n', param="model")


@pytest.mark.parametrize("dialect", [one for one in Dialect if one is not Dialect.MESSAGES] + [None])
def test_openai_shape(dialect: Dialect | None) -> None:
    """`error` with message, type, param and code."""
    assert json.loads(error_body(dialect, ERROR, b"req-1")) == {
        "error": {"message": 'no model "x"\n', "type": "not_found_error", "param": "model", "code": "model_not_found"}
    }


def test_anthropic_shape() -> None:
    """`type` error, `error` with type and message, and the request id where there is one."""
    inner = {"type": "not_found_error", "message": 'no model "x"\n'}
    assert json.loads(error_body(Dialect.MESSAGES, ERROR, b"msg_1")) == {"type": "error", "error": inner, "request_id": "msg_1"}
    assert json.loads(error_body(Dialect.MESSAGES, ERROR)) == {"type": "error", "error": inner}
    assert json.loads(error_body(Dialect.MESSAGES, ERROR, b"\xff"))["request_id"] == "\ufffd"


def lines(event: bytes) -> list[bytes]:
    assert event.endswith(b"\n\n") and event.count(b"\n\n") == 1
    return event[:-2].split(b"\n")


def test_events_of_openai_streams() -> None:
    """A chat stream carries the body as data, without a name."""
    (data,) = lines(error_event(Dialect.CHAT, ERROR))
    assert data == b"data: " + error_body(Dialect.CHAT, ERROR)
    assert lines(error_event(None, ERROR)) == [data]


def test_events_of_messages_streams() -> None:
    """Anthropic's SDK takes an error from its name."""
    name, data = lines(error_event(Dialect.MESSAGES, ERROR, b"msg_1"))
    assert name == b"event: error" and data == b"data: " + error_body(Dialect.MESSAGES, ERROR, b"msg_1")


def test_events_of_responses_streams() -> None:
    """A Responses stream has an error event with a number of its own."""
    name, data = lines(error_event(Dialect.RESPONSES, ERROR, b"x", 7))
    assert name == b"event: error"
    assert json.loads(data[6:]) == {
        "type": "error", "code": "model_not_found", "message": 'no model "x"\n', "param": "model", "sequence_number": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "openai", "anthropic"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"),
        (404, "not_found_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (422, "invalid_request_error", "invalid_request_error"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (502, "server_error", "api_error"),
        (503, "service_unavailable_error", "overloaded_error"),
        (504, "server_error", "timeout_error"),
    ],
)
def test_types(status: int, openai: str, anthropic: str) -> None:
    """Each status has the type that the vendor's own API gives it."""
    assert (openai_type(status), anthropic_type(status)) == (openai, anthropic)


@pytest.mark.parametrize("code", list(Code))
@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_code_in_every_dialect(code: Code, dialect: Dialect) -> None:
    """Every error can be told in every dialect, as valid JSON on one line."""
    error = GatewayError(code, "words")
    body = error_body(dialect, error, b"id")
    assert "words" in json.dumps(json.loads(body)) and b"\n" not in body and 400 <= status_of(code) < 600
    lines(error_event(dialect, error, b"id", 1))
