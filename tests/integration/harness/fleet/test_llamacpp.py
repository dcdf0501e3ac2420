"""The real engine on its own: it starts, answers from its model, streams, and ends."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator

import httpx
import pytest

from harness.fleet import llamacpp
from harness.fleet.child import Child
from harness.fleet.ports import free_ports

pytestmark = [
    pytest.mark.real_engine,
    pytest.mark.skipif(llamacpp.missing() is not None, reason=f"unproven: a real engine answers ({llamacpp.missing()} is not installed)"),
]

REQUEST = {
    "model": llamacpp.MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 24,
}
WORDS = re.compile(r"[a-z]{2,}.* .*[a-z]{2,}", re.DOTALL)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_ports(1)[0]
    with Child("engine", llamacpp.command(port), tmp_path_factory.mktemp("engine") / "engine.log") as child:
        child.wait_healthy(f"http://127.0.0.1:{port}{llamacpp.HEALTH_PATH}", 60)
        yield f"http://127.0.0.1:{port}"
        assert child.stop() == 0, child.tail()


def test_it_answers_from_its_model(engine: str) -> None:
    """A trained model, however small, writes words, and the engine tells what it used."""
    answer = httpx.post(f"{engine}/v1/chat/completions", json=REQUEST, timeout=60).raise_for_status().json()
    assert WORDS.search(answer["choices"][0]["message"]["content"])
    assert answer["usage"]["completion_tokens"] > 0


def test_it_streams(engine: str) -> None:
    """Events come one by one and end with the end mark."""
    with httpx.stream("POST", f"{engine}/v1/chat/completions", json={**REQUEST, "stream": True}, timeout=60) as answer:
        events = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    text = "".join((json.loads(event)["choices"] or [{"delta": {}}])[0]["delta"].get("content") or "" for event in events[:-1])
    assert WORDS.search(text) and len(events) > 4


def test_it_lists_its_model_under_its_name(engine: str) -> None:
    """The name that `make serve` prints is one that the engine knows."""
    names = [model["id"] for model in httpx.get(f"{engine}/v1/models", timeout=10).json()["data"]]
    assert names == [llamacpp.MODEL]
    assert pathlib.Path(str(llamacpp.bundled_model())).suffix == ".gguf"
