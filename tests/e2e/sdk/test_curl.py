"""curl before a whole gateway: what people paste into a shell, and the corners of HTTP that SDKs never touch."""

from __future__ import annotations

import json
import pathlib
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.flavours import MESSAGES_FLAVOURS, Flavours, model_of

SAY = [{"role": "user", "content": "echo: the quick brown fox"}]
ECHOED = "the quick brown fox"
LARGE_BYTES = 3 << 20


@dataclass(frozen=True)
class Got:
    """What curl saw: the heads of all answers, interim ones too, and the last one's body."""

    heads: list[str]
    body: bytes
    log: str

    @property
    def status(self) -> int:
        return int(self.heads[-1].split(" ")[1])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        for line in self.heads[-1].split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name:
                return value.strip()
        return None


def curl(folder: pathlib.Path, *arguments: str, data: bytes | None = None) -> Got:
    """Run curl; `data` is its standard input."""
    heads, body = folder / "heads", folder / "body"
    command = ["curl", "-sS", "-v", "--noproxy", "*", "--max-time", "30", "-D", str(heads), "-o", str(body), *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = heads.read_bytes().decode("latin-1").split("\r\n\r\n")
    return Got(
        [head for head in found if head.strip()], body.read_bytes() if body.exists() else b"", done.stderr.decode("utf-8", "replace")
    )


def ask(model: str, **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": SAY, **more}).encode()


def text_of(stream: bytes) -> str:
    """The text of a chat stream, which must end in its end mark."""
    *events, last, rest = stream.decode().split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


JSON = ("-H", "content-type: application/json", "--data-binary", "@-")


@pytest.fixture
def chat(fleet: Flavours) -> str:
    return f"{fleet.url}/v1/chat/completions"


def test_a_whole_answer(chat: str, model: str, tmp_path: pathlib.Path) -> None:
    """Status, type, length and the answer; two requests share a connection."""
    got = curl(tmp_path, *JSON, chat, data=ask(model))
    assert (got.status, got.header("content-type")) == (200, "application/json")
    assert int(got.header("content-length") or 0) == len(got.body) and got.header("transfer-encoding") is None
    assert got.json["choices"][0]["message"]["content"] == ECHOED
    body = tmp_path / "ask"
    body.write_bytes(ask(model))
    twice = curl(tmp_path, "-H", "content-type: application/json", "--data-binary", f"@{body}", chat, chat)
    assert len(twice.heads) == 2 and "Re-using existing connection" in twice.log


def test_a_stream(chat: str, model: str, tmp_path: pathlib.Path) -> None:
    """`-N` shows events as they come, chunked, up to the end mark."""
    got = curl(tmp_path, "-N", *JSON, chat, data=ask(model, stream=True))
    assert got.status == 200 and (got.header("content-type") or "").startswith("text/event-stream")
    assert (got.header("transfer-encoding"), got.header("content-length")) == ("chunked", None)
    assert text_of(got.body) == ECHOED


def test_a_body_that_says_it_is_a_form(chat: str, fleet: Flavours, model: str, flavour: str, tmp_path: pathlib.Path) -> None:
    """`curl -d` alone says that it sends a form: the gateway reads the body all the same, and the engine hears what the client said."""
    got = curl(tmp_path, "--data-binary", "@-", chat, data=ask(model))
    assert got.status == 200, got.body
    seen = dict(fleet.engines[flavour].last("/v1/chat/completions")["headers"])
    assert seen["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("flavour", MESSAGES_FLAVOURS, indirect=True)
def test_messages(fleet: Flavours, model: str, flavour: str, tmp_path: pathlib.Path) -> None:
    """Anthropic's route, whole and as a stream that ends in `message_stop`; a query string travels on."""
    url = f"{fleet.url}/v1/messages"
    version = ("-H", "anthropic-version: 2023-06-01")
    assert curl(tmp_path, *JSON, *version, url, data=ask(model, max_tokens=50)).json["content"][0]["text"] == ECHOED
    got = curl(tmp_path, "-N", *JSON, *version, url, data=ask(model, max_tokens=50, stream=True))
    assert got.body.startswith(b"event: message_start\ndata: ") and b"event: message_stop\n" in got.body[-80:]
    assert curl(tmp_path, *JSON, *version, f"{url}?beta=true", data=ask(model, max_tokens=5)).status == 200
    assert dict(fleet.engines[flavour].last("/v1/messages?beta=true")["headers"])["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_http_1_0(chat: str, model: str, stream: bool, tmp_path: pathlib.Path) -> None:
    """A client of HTTP/1.0 gets no chunks: the end of a stream is the end of the connection."""
    got = curl(tmp_path, "--http1.0", "-N", *JSON, chat, data=ask(model, stream=stream))
    assert (got.status, got.header("transfer-encoding"), got.header("connection")) == (200, None, "close")
    if stream:
        assert got.header("content-length") is None and text_of(got.body) == ECHOED
    else:
        assert got.json["choices"][0]["message"]["content"] == ECHOED


def test_a_large_body_that_waits_for_leave(chat: str, fleet: Flavours, model: str, flavour: str, tmp_path: pathlib.Path) -> None:
    """`Expect: 100-continue` is answered at once, and the body reaches the engine byte for byte."""
    body = ask(model, metadata={"filler": "x" * LARGE_BYTES})
    got = curl(tmp_path, *JSON, "-H", "Expect: 100-continue", chat, data=body)
    assert [head.split(" ")[1] for head in got.heads] == ["100", "200"] and "Done waiting for 100-continue" not in got.log
    assert got.json["choices"][0]["message"]["content"] == ECHOED
    assert fleet.engines[flavour].last_body("/v1/chat/completions") == body


def test_a_body_too_large_is_refused_before_it_is_sent(chat: str, tmp_path: pathlib.Path) -> None:
    """A length above the limit gets its 413 instead of leave to send."""
    arguments = ("-H", "content-type: application/json", "-H", "Expect: 100-continue", "-H", f"content-length: {65 << 20}", "-X", "POST")
    got = curl(tmp_path, *arguments, chat)
    assert got.status == 413 and got.json["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_chunked_upload(chat: str, fleet: Flavours, model: str, flavour: str, stream: bool, tmp_path: pathlib.Path) -> None:
    """A body of unknown length (`-T -`) is put together and goes to the engine with its length."""
    body = ask(model, stream=stream, stream_options={"include_usage": True}, metadata={"filler": "y" * 200_000})
    got = curl(tmp_path, "-N", "-T", "-", "-X", "POST", "-H", "content-type: application/json", chat, data=body)
    assert "Transfer-Encoding: chunked" in got.log and got.status == 200
    assert (text_of(got.body) if stream else got.json["choices"][0]["message"]["content"]) == ECHOED
    seen = fleet.engines[flavour].last("/v1/chat/completions")
    headers = dict(seen["headers"])
    assert headers["content-length"] == str(len(body)) and "transfer-encoding" not in headers
    assert fleet.engines[flavour].last_body("/v1/chat/completions") == body


def test_what_is_not_served(fleet: Flavours, tmp_path: pathlib.Path) -> None:
    """A wrong path, a wrong method and a body that is no JSON are told apart, each with its code."""
    assert curl(tmp_path, f"{fleet.url}/v1/nothing").json["error"]["code"] == "not_found"
    got = curl(tmp_path, f"{fleet.url}/v1/chat/completions")
    assert (got.status, got.header("allow"), got.json["error"]["code"]) == (405, "POST", "method_not_allowed")
    got = curl(tmp_path, *JSON, f"{fleet.url}/v1/chat/completions", data=b'{"model": "sim-vllm", "messages": [')
    assert (got.status, got.json["error"]["code"], got.header("x-smg-error-code")) == (400, "invalid_request", "invalid_request")


def test_request_ids(chat: str, fleet: Flavours, model: str, flavour: str, tmp_path: pathlib.Path) -> None:
    """The client's request id is the answer's and the engine's; without one the gateway makes one, in the dialect's form."""
    got = curl(tmp_path, *JSON, "-H", "X-Request-Id: my-own-1", chat, data=ask(model))
    assert [line for line in got.heads[-1].lower().split("\r\n") if line.startswith("x-request-id")] == ["x-request-id: my-own-1"]
    assert dict(fleet.engines[flavour].last("/v1/chat/completions")["headers"])["x-request-id"] == "my-own-1"
    made = curl(tmp_path, *JSON, chat, data=ask(model)).header("x-request-id")
    assert made is not None and made.startswith("chatcmpl-")


def test_models_are_told_apart(fleet: Flavours, tmp_path: pathlib.Path) -> None:
    """Each engine gets the requests for its own model and no other's."""
    for flavour, engine in fleet.engines.items():
        before = {name: one.posts() for name, one in fleet.engines.items()}
        assert curl(tmp_path, *JSON, f"{fleet.url}/v1/chat/completions", data=ask(model_of(flavour))).status == 200
        assert {name: one.posts() - before[name] for name, one in fleet.engines.items()} == {
            name: int(one is engine) for name, one in fleet.engines.items()
        }
