"""A whole gateway before two real engines, llama.cpp with a trained model: what `make serve` gives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from harness.fleet import llamacpp
from harness.fleet.child import Child
from tests.support.gateway_process import GatewayProcess, gateway_process, total, until
from tests.support.served import free_ports

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.real_engine,
    pytest.mark.skipif(
        llamacpp.missing() is not None,
        reason=f"unproven: a real engine answers every route through the gateway ({llamacpp.missing()} is not installed)",
    ),
]

MODEL = llamacpp.MODEL
ASK: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
SURE: dict[str, Any] = {"temperature": 0.0, "max_tokens": 16}
WORDS = re.compile(r"[a-z]{2,}.* .*[a-z]{2,}", re.DOTALL)


@dataclass
class Stage:
    """Two engines and a gateway."""

    gateway: GatewayProcess
    engines: dict[str, Child]

    async def tokens(self) -> tuple[float, float]:
        """Prompt and generated tokens by the engines' own count, of all that they were asked."""
        prompt = generated = 0.0
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            for url, child in self.engines.items():
                if child.running:
                    page = (await client.get(f"{url}/metrics")).text
                    prompt += float(re.findall(r"^llamacpp:prompt_tokens_total (\S+)$", page, re.MULTILINE)[0])
                    generated += float(re.findall(r"^llamacpp:tokens_predicted_total (\S+)$", page, re.MULTILINE)[0])
        return prompt, generated

    async def counted(self, kind: str) -> float:
        """Tokens by the gateway's count."""
        return total(await self.gateway.metrics(), "smg_router_tokens_total", token_type=kind)


@contextlib.asynccontextmanager
async def staged(folder: pathlib.Path) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        engines = {
            f"http://127.0.0.1:{port}": stack.enter_context(Child(f"engine-{port}", llamacpp.command(port), folder / f"engine-{port}.log"))
            for port in free_ports(2)
        }
        for url, child in engines.items():
            await child.async_wait_healthy(f"{url}{llamacpp.HEALTH_PATH}", 60)
        config = {"workers": [{"url": url} for url in engines], "routing": {"policy": "round_robin"}, "health": {"interval_s": 0.5}}
        gateway = await stack.enter_async_context(gateway_process(folder, config))
        await until(gateway.metrics, lambda page: total(page, "smg_worker_health") == 2)
        yield Stage(gateway, engines)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("llamacpp")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def client(stage: Stage) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


async def test_chat(client: openai.AsyncOpenAI) -> None:
    """A whole answer and a stream say the same words of the model at temperature 0."""
    whole = await client.chat.completions.create(model=MODEL, messages=ASK, **SURE)
    said = whole.choices[0].message.content
    assert said is not None and WORDS.search(said) and whole.usage is not None and whole.usage.completion_tokens > 1
    chunks = [chunk async for chunk in await client.chat.completions.create(model=MODEL, messages=ASK, stream=True, **SURE)]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == said
    assert all(chunk.choices and chunk.usage is None for chunk in chunks), "usage was not asked for"
    asked = [
        chunk
        async for chunk in await client.chat.completions.create(
            model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}, **SURE
        )
    ]
    assert asked[-1].choices == [] and asked[-1].usage is not None
    assert asked[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_structured_output(client: openai.AsyncOpenAI) -> None:
    """The grammar that llama.cpp makes of a JSON schema holds."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    answer = await client.chat.completions.create(model=MODEL, messages=ASK, response_format=wanted, max_tokens=48, temperature=0.0)
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city"}


async def test_completions(client: openai.AsyncOpenAI) -> None:
    """Text goes on, whole and streamed."""
    whole = await client.completions.create(model=MODEL, prompt="Once upon a time", **SURE)
    chunks = [chunk async for chunk in await client.completions.create(model=MODEL, prompt="Once upon a time", stream=True, **SURE)]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text != ""


async def test_messages(stage: Stage) -> None:
    """Anthropic's dialect, whole and streamed."""
    async with anthropic.AsyncAnthropic(base_url=stage.gateway.url, api_key="none", max_retries=0, timeout=60) as claude:
        ask: Any = {"model": MODEL, "messages": ASK, "max_tokens": 16, "extra_body": {"temperature": 0.0}}
        whole = await claude.messages.create(**ask)
        async with claude.messages.stream(**ask) as stream:
            final = await stream.get_final_message()
    texts = [[block.text for block in message.content if block.type == "text"] for message in (whole, final)]
    assert texts[0] == texts[1] and WORDS.search(texts[0][0])
    assert final.usage.output_tokens == whole.usage.output_tokens > 1


async def test_responses(client: openai.AsyncOpenAI) -> None:
    """The Responses API, whole and streamed."""
    whole = await client.responses.create(model=MODEL, input="What is the capital of France?", max_output_tokens=16, temperature=0.0)
    stream = await client.responses.create(
        model=MODEL, input="What is the capital of France?", max_output_tokens=16, temperature=0.0, stream=True
    )
    events = [event async for event in stream]  # without the indices that the SDK needs to put a response together
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text and WORDS.search(text)
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")


async def test_tokenize(stage: Stage) -> None:
    """`/v1/tokenize` finds llama.cpp's own path, and `/v1/detokenize` gives the text back."""
    async with httpx.AsyncClient(base_url=stage.gateway.url, trust_env=False, timeout=30) as http:
        tokens = (await http.post("/v1/tokenize", json={"model": MODEL, "content": "hello world"})).json()["tokens"]
        text = (await http.post("/v1/detokenize", json={"model": MODEL, "tokens": tokens})).json()
    assert len(tokens) >= 2 and text == {"content": "hello world"}


async def test_an_unknown_model(stage: Stage, client: openai.AsyncOpenAI) -> None:
    """llama.cpp answers to any name, as asked directly; the gateway says 404."""
    url = next(iter(stage.engines))
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        direct = await http.post(f"{url}/v1/chat/completions", json={"model": "nope", "messages": ASK, **SURE})
    assert direct.status_code == 200
    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(model="nope", messages=ASK, **SURE)
    assert raised.value.code == "model_not_found"


async def test_what_the_engine_has_not(client: openai.AsyncOpenAI) -> None:
    """The engine's 501 for embeddings is passed on, not tried on the other engine, and no reason to leave the engine alone."""
    with pytest.raises(openai.InternalServerError) as raised:
        await client.embeddings.create(model=MODEL, input="hello", encoding_format="float")
    assert raised.value.status_code == 501
    assert (await client.chat.completions.create(model=MODEL, messages=ASK, **SURE)).choices


async def test_tokens_are_those_of_the_engines(stage: Stage, client: openai.AsyncOpenAI) -> None:
    """After answers of every kind the gateway's token counters have grown by what the engines counted themselves."""
    before, ours = await stage.tokens(), (await stage.counted("input"), await stage.counted("cached"), await stage.counted("output"))
    for number in range(3):
        ask: list[Any] = [{"role": "user", "content": f"Say the number {number}."}]
        await client.chat.completions.create(model=MODEL, messages=ask, **SURE)
        async for _ in await client.chat.completions.create(model=MODEL, messages=ask, stream=True, **SURE):
            pass
        async for _ in await client.completions.create(model=MODEL, prompt=f"Number {number}", stream=True, **SURE):
            pass
    after, now = await stage.tokens(), (await stage.counted("input"), await stage.counted("cached"), await stage.counted("output"))
    read, cached, made = (new - old for new, old in zip(now, ours, strict=True))
    assert made == after[1] - before[1] > 0
    assert read - cached == after[0] - before[0] > 0, "llama.cpp counts the prompt tokens that it computed, not those in its cache"


async def test_an_engine_that_is_killed(tmp_path: pathlib.Path) -> None:
    """kill -9 of one of two engines while clients ask: whole answers all come, from the other one; streams cut half-way say so."""
    async with (
        staged(tmp_path) as stage,
        openai.AsyncOpenAI(base_url=f"{stage.gateway.url}/v1", api_key="none", max_retries=0, timeout=60) as client,
    ):
        ask = {"model": MODEL, "messages": ASK, "max_tokens": 12, "temperature": 0.0}
        victim_url, victim = next(iter(stage.engines.items()))
        begun = [asyncio.Event(), asyncio.Event()]
        stories = [{**ask, "max_tokens": 200, "messages": _story(at)} for at in range(2)]
        streams = [asyncio.ensure_future(_stream(client, story, event)) for story, event in zip(stories, begun, strict=True)]
        await asyncio.gather(*(event.wait() for event in begun))
        answers = [asyncio.ensure_future(client.chat.completions.create(**ask)) for _ in range(6)]  # type: ignore[call-overload]
        victim.signal(signal.SIGKILL)
        said = [answer.choices[0].message.content for answer in await asyncio.gather(*answers)]
        assert len(said) == 6 and all(said)
        ends = sorted(await asyncio.gather(*streams))
        assert ends in (["length", "stream_broken"], ["stop", "stream_broken"]), ends
        for _ in range(4):
            assert (await client.chat.completions.create(**ask)).choices[0].message.content  # type: ignore[call-overload]
        page = await stage.gateway.metrics()
        assert total(page, "smg_worker_streams_broken_total", worker=victim_url) == 1
        await until(stage.gateway.metrics, lambda page: total(page, "smg_worker_health") == 1)


def _story(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Tell a long story about {number + 2} cats."}]


async def _stream(client: openai.AsyncOpenAI, ask: dict[str, Any], begun: asyncio.Event) -> str:
    """Read a stream; say when its first token has come, and how it ended."""
    finish = "none"
    try:
        async for chunk in await client.chat.completions.create(stream=True, **ask):
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    begun.set()
    except openai.APIError as error:
        return str(error.code)
    return finish
