import pytest

from gateway.sdk.errors import MAX_MESSAGE, api_error


@pytest.mark.parametrize(
    ("status", "headers", "body", "code", "message", "retry_after_s"),
    [
        (404, {}, b'{"error":{"code":"not_found","message":"no worker w1"}}', "not_found", "no worker w1", None),
        (429, {"retry-after": "3"}, b'{"error":{"code":"rate_limited","message":"slow down"}}', "rate_limited", "slow down", 3.0),
        (529, {}, b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}', "overloaded_error", "busy", None),
        (400, {}, b'{"object":"error","message":"bad","type":"BadRequest","code":400}', "400", "bad", None),
        (503, {"x-smg-error-code": "draining"}, b"", "draining", "service unavailable", None),
        (502, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"<html>", "http_502", "bad gateway", None),
        (599, {"retry-after": "-1"}, b"[]", "http_599", "status 599", None),
        (500, {}, b'{"error":"flat"}', "http_500", "flat", None),
        (500, {}, b"\xff\xfe", "http_500", "internal server error", None),
    ],
)
def test_an_error_answer_is_read_whatever_its_shape(
    status: int, headers: dict[str, str], body: bytes, code: str, message: str, retry_after_s: float | None
) -> None:
    """OpenAI's, Anthropic's and flat bodies, no body, and what is no JSON all give code and message."""
    error = api_error(status, headers, body)
    assert (error.status, error.code, error.message, error.retry_after_s) == (status, code, message, retry_after_s)


def test_mistakes_of_a_configuration_come_along() -> None:
    """The gateway's list of problems is kept."""
    body = b'{"error":{"code":"config_invalid","message":"2 mistakes","problems":["a:1: x","a:2: y"]}}'
    assert api_error(400, {}, body).problems == ("a:1: x", "a:2: y")
    assert api_error(400, {}, b'{"error":{"code":"config_invalid","message":"m"}}').problems == ()


def test_a_message_is_bounded() -> None:
    """Whatever answers need not be a gateway."""
    assert len(api_error(500, {}, b'{"error":"' + b"x" * 100_000 + b'"}').message) == MAX_MESSAGE
