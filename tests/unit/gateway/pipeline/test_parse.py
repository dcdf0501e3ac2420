"""Phase parse: request ids, credentials, and the header lines that travel on."""

from __future__ import annotations

import re

import pytest

from tests.support.exchange import Rig


def lines(head: bytes) -> list[tuple[str, str]]:
    """The header lines of a request, in order."""
    text = head.decode("latin-1")
    assert text.endswith("\r\n\r\n")
    return [(line.partition(": ")[0], line.partition(": ")[2]) for line in text.split("\r\n")[1:-2]]


def test_a_request_id_is_made_in_the_dialects_shape() -> None:
    """Without an id of the client each request gets its own, and worker and client see the same."""
    shapes = {b"/v1/chat/completions": "chatcmpl-", b"/v1/completions": "cmpl-", b"/v1/messages": "msg_", b"/v1/rerank": "req-"}
    with Rig() as rig:
        seen = set()
        for path, prefix in shapes.items():
            _, client = rig.ask(path=path)
            call = rig.call
            call.answer(200, b"{}")
            told = client.headers["x-request-id"]
            assert re.fullmatch(prefix + "[0-9A-Za-z]{24}", told) and call.headers["x-request-id"] == told
            seen.add(told)
        assert len(seen) == len(shapes)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(b"x-request-id", b"a")], "a"),
        ([(b"x-correlation-id", b"b"), (b"x-request-id", b"a")], "a"),
        ([(b"request-id", b"d"), (b"x-trace-id", b"c")], "c"),
        ([(b"x-request-id", b"not ok"), (b"x-correlation-id", b"b")], "b"),
        ([(b"x-request-id", b""), (b"request-id", b"x" * 129)], None),
        ([(b"x-request-id", b"caf\xe9")], None),
        ([(b"x-request-id", b"first"), (b"x-request-id", b"second")], "first"),
    ],
)
def test_the_clients_request_id(given: list[tuple[bytes, bytes]], expected: str | None) -> None:
    """The first acceptable id by the order of `server.request_id_headers` counts; an id that is not safe is replaced."""
    with Rig() as rig:
        x, _ = rig.ask(headers=given)
        (told,) = [value for name, value in lines(rig.call.head) if name == "x-request-id"]
        assert x.request_id.decode() == told
        assert told == expected if expected is not None else told.startswith("chatcmpl-")


def test_only_known_headers_travel_on() -> None:
    """Tracing, Anthropic and configured headers go to the worker; all others, framing and cookies above all, do not."""
    config = {"upstream": {"forward_headers": ["x-mine", "content-length", "host", "transfer-encoding", "te", "connection"]}}
    given = [
        (b"traceparent", b"00-1-2-01"),
        (b"tracestate", b"a=b"),
        (b"anthropic-version", b"2023-06-01"),
        (b"anthropic-beta", b"x"),
        (b"x-correlation-id", b"corr"),
        (b"x-request-id-parent", b"p"),
        (b"x-smg-routing-key", b"k"),
        (b"x-mine", b"1"),
        (b"x-mine", b"2"),
        (b"accept", b"text/event-stream"),
        (b"cookie", b"secret"),
        (b"content-length", b"999"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"trailers"),
        (b"connection", b"x-mine"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"accept-encoding", b"gzip"),
    ]
    with Rig(1, config) as rig:
        rig.ask(headers=given)
        found = lines(rig.call.head)
        names = [name for name, _ in found]
        assert names.count("content-length") == names.count("host") == names.count("content-type") == 1
        assert found[0] == ("host", "w0:8000") and dict(found)["content-length"] == str(len(rig.call.body))
        assert [value for name, value in found if name == "x-mine"] == ["1", "2"]
        assert dict(found)["traceparent"] == "00-1-2-01" and dict(found)["tracestate"] == "a=b"
        assert set(names) == {
            "host", "content-length", "content-type", "x-request-id", "traceparent", "tracestate", "anthropic-version", "anthropic-beta",
            "x-correlation-id", "x-request-id-parent", "x-smg-routing-key", "x-mine", "accept",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        (b"/v1/chat/completions", [(b"authorization", b"Bearer a b ")], ("authorization", "Bearer a b")),
        (b"/v1/chat/completions", [(b"authorization", b"bEARER a")], ("authorization", "Bearer a")),
        (b"/v1/chat/completions", [(b"x-api-key", b"k")], ("authorization", "Bearer k")),
        (b"/v1/messages", [(b"x-api-key", b"k")], ("x-api-key", "k")),
        (b"/v1/messages", [(b"authorization", b"Bearer a")], ("authorization", "Bearer a")),
        (b"/v1/chat/completions", [(b"authorization", b"Basic a")], None),
        (b"/v1/chat/completions", [], None),
    ],
)
def test_the_clients_credential(path: bytes, given: list[tuple[bytes, bytes]], expected: tuple[str, str] | None) -> None:
    """Where neither gateway nor worker has keys, the client's own goes on, in the way of its dialect."""
    with Rig() as rig:
        rig.ask(path=path, headers=given)
        found = [line for line in lines(rig.call.head) if line[0] in ("authorization", "x-api-key")]
        assert found == ([expected] if expected is not None else [])


def test_a_body_that_cannot_be_read() -> None:
    """The error names the field, the request id is set, and nothing else is known of the request."""
    with Rig() as rig:
        x, client = rig.ask(b'{"model":"m","stream":"yes"}', headers=[(b"x-correlation-id", b"b")])
        assert client.status == 400 and client.json["error"]["param"] == "stream" and client.headers["x-request-id"] == "b"
        assert x.facts.model == "" and x.cells is None and x.usage is None
        rig.check_idle()
