"""Anthropic's own SDK before a whole gateway and the engines that speak its dialect."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam

from tests.support.flavours import MESSAGES_FLAVOURS, Flavours, model_of

SAY: list[MessageParam] = [{"role": "user", "content": "echo: the quick brown fox"}]
ECHOED = "the quick brown fox"
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
}
speaks = pytest.mark.parametrize("flavour", MESSAGES_FLAVOURS, indirect=True)


@speaks
def test_a_whole_message(claude: anthropic.Anthropic, model: str) -> None:
    """A message has its text, stop reason and usage."""
    message = claude.messages.create(model=model, max_tokens=100, messages=SAY, system="be brief")
    assert [block.text for block in message.content if block.type == "text"] == [ECHOED]
    assert (message.stop_reason, message.role) == ("end_turn", "assistant")
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0


@speaks
async def test_a_whole_message_async(aclaude: anthropic.AsyncAnthropic, model: str) -> None:
    """The asynchronous client gets the same, and what cuts the answer short is told."""
    message = await aclaude.messages.create(model=model, max_tokens=2, messages=SAY)
    assert message.stop_reason == "max_tokens" and message.usage.output_tokens == 2


@speaks
def test_a_stream(claude: anthropic.Anthropic, model: str) -> None:
    """The events come in the order that the API documents, and the SDK puts the message together from them."""
    whole = claude.messages.create(model=model, max_tokens=100, messages=SAY)
    with claude.messages.create(model=model, max_tokens=100, messages=SAY, stream=True) as raw:
        kinds = [event.type for event in raw]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    with claude.messages.stream(model=model, max_tokens=100, messages=SAY) as stream:
        assert "".join(stream.text_stream) == ECHOED
        final = stream.get_final_message()
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


@speaks
async def test_a_stream_async(aclaude: anthropic.AsyncAnthropic, model: str) -> None:
    """The asynchronous stream gives the same text."""
    async with aclaude.messages.stream(model=model, max_tokens=100, messages=SAY) as stream:
        assert "".join([text async for text in stream.text_stream]) == ECHOED


@speaks
def test_tools(claude: anthropic.Anthropic, model: str) -> None:
    """A tool use has an id, a name and its input, whole and put together from a stream."""
    ask: Any = {"model": model, "max_tokens": 200, "messages": [{"role": "user", "content": "call get_weather"}], "tools": [WEATHER]}
    whole = claude.messages.create(**ask)
    with claude.messages.stream(**ask) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        (used,) = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == "tool_use" and used.id and used.name == "get_weather" and list(used.input) == ["city"]


@speaks
def test_beta_features_reach_the_engine(claude: anthropic.Anthropic, fleet: Flavours, model: str, flavour: str) -> None:
    """The headers by which clients ask for features and a version travel on."""
    message = claude.beta.messages.create(model=model, max_tokens=100, messages=[{"role": "user", "content": "hello"}], betas=["a-beta"])
    assert message.content
    seen = fleet.engines[flavour].last("/v1/messages")
    headers = {name.lower(): value for name, value in seen["headers"]}
    assert headers["anthropic-beta"] == "a-beta" and headers["anthropic-version"]


@speaks
def test_tokens_are_counted(claude: anthropic.Anthropic, model: str) -> None:
    """The count of a prompt is what the message is charged, its cached part and all."""
    counted = claude.messages.count_tokens(model=model, messages=SAY)
    usage = claude.messages.create(model=model, max_tokens=5, messages=SAY).usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_models(claude: anthropic.Anthropic, model: str) -> None:
    """The list of models is one that this SDK reads too."""
    listed = list(claude.models.list())
    assert model in [found.id for found in listed] and all(found.type == "model" and found.display_name for found in listed)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_unknown_model(claude: anthropic.Anthropic, stream: bool) -> None:
    """The gateway's refusal has this dialect's type, and the request id in the body."""
    with pytest.raises(anthropic.NotFoundError) as raised:
        claude.messages.create(model="nope", max_tokens=5, messages=SAY, stream=stream)
    body: Any = raised.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error") and "nope" in body["error"]["message"]
    assert body["request_id"] == raised.value.response.headers["x-request-id"]
    assert raised.value.response.headers["x-smg-error-code"] == "model_not_found"


def test_a_model_without_a_worker(claude: anthropic.Anthropic) -> None:
    """503 is this dialect's overloaded error, with Retry-After."""
    with pytest.raises(anthropic.InternalServerError) as raised:
        claude.messages.create(model="sim-absent", max_tokens=5, messages=SAY)
    body: Any = raised.value.body
    assert (raised.value.status_code, body["error"]["type"]) == (503, "overloaded_error")
    assert int(raised.value.response.headers["retry-after"]) >= 1


def test_an_engine_without_this_dialect(claude: anthropic.Anthropic) -> None:
    """TensorRT-LLM has no such route: its own 404 comes through, whatever its shape."""
    with pytest.raises(anthropic.NotFoundError) as raised:
        claude.messages.create(model="sim-trtllm", max_tokens=5, messages=SAY)
    assert raised.value.response.headers["x-smg-error-code"] == "upstream_rejected"


@speaks
def test_a_request_that_the_engine_refuses(claude: anthropic.Anthropic, model: str) -> None:
    """The engine's own refusal comes through with its body."""
    with pytest.raises(anthropic.BadRequestError) as raised:
        claude.messages.create(model=model, max_tokens=-1, messages=SAY)
    assert "max_tokens" in str(raised.value.body)


@speaks
def test_a_rate_limit(claude: anthropic.Anthropic, fleet: Flavours, flavour: str) -> None:
    """An engine that limits its rate is a RateLimitError with Retry-After; a client that retries gets through."""
    engine, model = fleet.engines[flavour], model_of(flavour)
    engine.fault(kind="rate_limit", times=2, retry_after_s=1)
    with pytest.raises(anthropic.RateLimitError) as raised:
        claude.messages.create(model=model, max_tokens=100, messages=SAY)
    assert raised.value.response.headers["retry-after"] == "1"
    engine.fault(kind="rate_limit", times=2, retry_after_s=0)
    message = claude.with_options(max_retries=2).messages.create(model=model, max_tokens=100, messages=SAY)
    assert message.stop_reason == "end_turn"


@speaks
@pytest.mark.parametrize("kind", ["reset", "truncated_chunk", "broken_event", "no_done"])
def test_a_stream_that_breaks(claude: anthropic.Anthropic, fleet: Flavours, flavour: str, kind: str) -> None:
    """A stream that breaks off ends in an error event, which the SDK raises, behind the whole events that came before it."""
    fleet.engines[flavour].fault(kind=kind, after_events=4, times=1)
    kinds: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as raised:
        kinds.extend(event.type for event in claude.messages.create(model=model_of(flavour), max_tokens=100, messages=SAY, stream=True))
    body: Any = raised.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "api_error") and body["request_id"]
    assert "message_stop" not in kinds and len(kinds) <= 4


@speaks
async def test_a_stream_that_breaks_async(aclaude: anthropic.AsyncAnthropic, fleet: Flavours, flavour: str) -> None:
    """The asynchronous client raises as well, also while it accumulates."""
    fleet.engines[flavour].fault(kind="reset", after_events=4, times=1)
    with pytest.raises(anthropic.APIStatusError):
        async with aclaude.messages.stream(model=model_of(flavour), max_tokens=100, messages=SAY) as stream:
            await stream.get_final_message()
