"""Phase transform: what one worker gets."""

from __future__ import annotations

import orjson
import pytest

from gateway.config.model import Engine
from tests.support.exchange import ANSWER, CHAT, Rig, state

BODY = b'{ "model":"m",  "messages":[{"role":"user","content":"caf\\u00e9 \xc3\xa9"}], "x": 1.0e3 }'


def test_the_body_travels_untouched() -> None:
    """Unless something must change, the worker gets the client's bytes."""
    with Rig() as rig:
        rig.ask(BODY)
        assert rig.call.body == BODY and rig.call.headers["content-length"] == str(len(BODY))


def test_workers_that_are_not_asked_for_usage() -> None:
    """Each worker gets the body that its settings want, and a retry does not mix them up."""
    with Rig([state(0, ask_usage=True), state(1, ask_usage=False), state(2, ask_usage=True)]) as rig:
        x, _ = rig.ask(stream=True)
        first = rig.call
        first.refuse()
        rig.advance(1)
        second = rig.call
        second.refuse()
        rig.advance(1)
        assert orjson.loads(first.body)["stream_options"] == {"include_usage": True} and rig.call.body is first.body
        assert second.body is x.body
        rig.driver.close()


@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/responses", b"/generate", b"/v1/embeddings"])
def test_usage_is_asked_for_only_where_it_can_be(path: bytes) -> None:
    """Dialects whose streams tell usage anyway are left alone."""
    with Rig() as rig:
        x, _ = rig.ask(path=path, stream=True)
        assert rig.call.body is x.body


def test_alias_and_usage_together() -> None:
    """A stream by an alias has both changes, and keeps its other members."""
    with Rig(1, {"models": [{"name": "m", "aliases": ["a"]}]}) as rig:
        rig.ask(model="a", stream=True, stream_options={"x": 1}, temperature=0.5)
        assert orjson.loads(rig.call.body) == {
            "model": "m", "messages": [], "stream": True, "temperature": 0.5, "stream_options": {"x": 1, "include_usage": True},
        }  # fmt: skip


def test_an_alias_that_is_not_rewritten() -> None:
    """With `rewrite_alias` off the client's body travels untouched."""
    with Rig(1, {"models": [{"name": "m", "aliases": ["a"], "rewrite_alias": False}]}) as rig:
        x, _ = rig.ask(model="a")
        assert rig.call.body is x.body


@pytest.mark.parametrize(
    ("engine", "path", "expected"),
    [
        (Engine.VLLM, b"/v1/tokenize", "/tokenize"),
        (Engine.OPENAI, b"/v1/tokenize", "/v1/tokenize"),
        (Engine.SGLANG, b"/rerank", "/v1/rerank"),
        (Engine.VLLM, b"/rerank", "/rerank"),
        (Engine.TRTLLM, CHAT, "/v1/chat/completions"),
    ],
)
def test_the_path_at_the_worker(engine: Engine, path: bytes, expected: str) -> None:
    """Each engine is asked where it has the endpoint, behind the worker's own path, with the client's query."""
    with Rig([state(0, engine=engine, url="http://w0:8000/base/")]) as rig:
        rig.ask(path=path, query=b"?a=1&b")
        assert rig.call.head.startswith(f"POST /base{expected}?a=1&b HTTP/1.1\r\nhost: w0:8000\r\n".encode())
        assert rig.call.path == f"/base{expected}?a=1&b"


def test_the_gateways_own_key_goes_instead_of_the_clients() -> None:
    """Where the worker has a key of its own, the client's is not handed on."""
    with Rig([state(0, api_key="own")]) as rig:
        rig.ask(headers=[(b"authorization", b"Bearer mine")])
        assert rig.call.head.count(b"uthorization:") == 1 and rig.call.headers["authorization"] == "Bearer own"
        rig.call.answer(200, ANSWER)
