"""OpenAI's own SDK before a whole gateway: every call that the engines answer gives the objects that the SDK promises."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.lib.streaming.chat import ContentDeltaEvent
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel

from tests.support.flavours import MESSAGES_FLAVOURS, Flavours, model_of

SAY: list[Any] = [{"role": "user", "content": "echo: the quick brown fox"}]
ECHOED = "the quick brown fox"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
        "strict": True,
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}},
}
ASK_TOOLS: list[Any] = [{"role": "user", "content": "call get_weather and get_time"}]


class Person(BaseModel):
    name: str
    age: int


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_a_whole_answer(client: openai.OpenAI, model: str) -> None:
    """A chat completion has its text, finish reason and usage."""
    answer = client.chat.completions.create(model=model, messages=SAY)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (ECHOED, "stop")
    assert answer.usage is not None and answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer._request_id


async def test_a_whole_answer_async(aclient: openai.AsyncOpenAI, model: str) -> None:
    """The asynchronous client gets the same; several choices come as asked."""
    answer = await aclient.chat.completions.create(model=model, messages=SAY, n=2)
    assert [choice.message.content for choice in answer.choices] == [ECHOED] * 2


def test_a_stream_without_usage(client: openai.OpenAI, model: str) -> None:
    """A client that did not ask for usage gets no chunk of it, and none with an empty list of choices, although the engine is asked."""
    with client.chat.completions.create(model=model, messages=SAY, stream=True) as stream:
        chunks = list(stream)
    assert text_of(chunks) == ECHOED
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_stream_with_usage(client: openai.OpenAI, model: str) -> None:
    """A client that asked for usage gets it in the last chunk, and it is that of the whole answer."""
    whole = client.chat.completions.create(model=model, messages=SAY)
    chunks = list(client.chat.completions.create(model=model, messages=SAY, stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == ECHOED
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and whole.usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )


async def test_a_stream_async(aclient: openai.AsyncOpenAI, model: str) -> None:
    """The asynchronous stream, and the SDK's own accumulation of it, give the whole text."""
    stream = await aclient.chat.completions.create(model=model, messages=SAY, stream=True)
    assert text_of([chunk async for chunk in stream]) == ECHOED
    async with aclient.chat.completions.stream(model=model, messages=SAY) as events:
        pieces = [event.delta async for event in events if isinstance(event, ContentDeltaEvent)]
        assert "".join(pieces) == (await events.get_final_completion()).choices[0].message.content == ECHOED


def test_a_client_may_leave_a_stream(client: openai.OpenAI, model: str) -> None:
    """Breaking off a stream leaves the client's next call untouched."""
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "tell a story"}], stream=True, max_tokens=400
    )
    with stream:
        assert next(iter(stream)).choices
    assert client.chat.completions.create(model=model, messages=SAY).choices[0].message.content == ECHOED


def test_tools(client: openai.OpenAI, model: str) -> None:
    """Tool calls of a whole answer have ids, names and arguments that are JSON; their results can be sent back."""
    answer = client.chat.completions.create(model=model, messages=ASK_TOOLS, tools=[WEATHER, CLOCK])  # type: ignore[list-item]
    message = answer.choices[0].message
    calls = [call for call in message.tool_calls or [] if isinstance(call, ChatCompletionMessageFunctionToolCall)]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert len({call.id for call in calls}) == 2
    assert [list(json.loads(call.function.arguments)) for call in calls] == [["city"], ["zone"]]
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in calls]
    turn: list[Any] = [*ASK_TOOLS, message.model_dump(exclude_none=True), *results]
    said = client.chat.completions.create(model=model, messages=turn, tools=[WEATHER, CLOCK])  # type: ignore[list-item]
    assert said.choices[0].message.content and not said.choices[0].message.tool_calls


def test_tools_in_a_stream(client: openai.OpenAI, model: str) -> None:
    """The pieces of parallel tool calls, joined by their index, are the calls of the whole answer."""
    tools: list[Any] = [WEATHER, CLOCK]
    whole = client.chat.completions.create(model=model, messages=ASK_TOOLS, tools=tools).choices[0].message.tool_calls
    joined: dict[int, dict[str, str]] = {}
    finish = None
    for chunk in client.chat.completions.create(model=model, messages=ASK_TOOLS, tools=tools, stream=True):
        for choice in chunk.choices:
            finish = choice.finish_reason or finish
            for piece in choice.delta.tool_calls or []:
                call = joined.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.id or ""
                if piece.function is not None:
                    call["name"] += piece.function.name or ""
                    call["arguments"] += piece.function.arguments or ""
    assert finish == "tool_calls" and list(joined) == [0, 1] and len({call["id"] for call in joined.values()}) == 2
    assert [(call["name"], call["arguments"]) for call in joined.values()] == [
        (call.function.name, call.function.arguments) for call in whole or [] if isinstance(call, ChatCompletionMessageFunctionToolCall)
    ]


def test_a_named_tool(client: openai.OpenAI, model: str) -> None:
    """`tool_choice` reaches the engine: the named tool is called, though the prompt names none; the SDK parses the stream of it."""
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    tool: Any = openai.pydantic_function_tool(Person, name="get_weather")
    ask: list[Any] = [{"role": "user", "content": "hello"}]
    with client.chat.completions.stream(model=model, messages=ask, tools=[tool], tool_choice=choice) as events:
        final = events.get_final_completion().choices[0].message
    assert final.tool_calls and isinstance(final.tool_calls[0].function.parsed_arguments, Person)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # SGLang's `metadata` holds a list where the SDK expects text
def test_structured_output(client: openai.OpenAI, model: str) -> None:
    """A JSON schema in `response_format` is kept, and `parse` gives the object, whole and streamed."""
    schema: Any = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": Person.model_json_schema()}}
    ask: list[Any] = [{"role": "user", "content": "Ada, 36"}]
    plain = client.chat.completions.create(model=model, messages=ask, response_format=schema).choices[0].message.content
    parsed = client.chat.completions.parse(model=model, messages=ask, response_format=Person).choices[0].message.parsed
    assert plain is not None and parsed is not None and set(json.loads(plain)) == set(parsed.model_dump()) == {"name", "age"}
    with client.chat.completions.stream(model=model, messages=ask, response_format=Person) as events:
        assert events.get_final_completion().choices[0].message.parsed == parsed


def test_completions(client: openai.OpenAI, model: str) -> None:
    """The older text completions, whole and streamed, with several prompts."""
    whole = client.completions.create(model=model, prompt=["echo: one two", "echo: three"])
    assert [choice.text.strip() for choice in whole.choices] == ["one two", "three"]
    chunks = list(client.completions.create(model=model, prompt="echo: one two three", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks).strip() == "one two three"
    assert chunks[-1].choices[0].finish_reason == "stop" and all(chunk.usage is None for chunk in chunks)


def test_responses(client: openai.OpenAI, model: str) -> None:
    """The Responses API, whole and as typed events in order, with tools and a parsed object."""
    whole = client.responses.create(model=model, input="echo: one two")
    assert (whole.output_text, whole.status) == ("one two", "completed") and whole.usage is not None and whole.usage.total_tokens > 0
    with client.responses.stream(model=model, input="echo: one two") as stream:
        events = list(stream)
        assert stream.get_final_response().output_text == "one two"
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
    tool: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER["function"]["parameters"]}  # type: ignore[index]
    called = client.responses.create(model=model, input="call get_weather", tools=[tool])
    assert [item.name for item in called.output if item.type == "function_call"] == ["get_weather"]
    assert client.responses.parse(model=model, input="Ada, 36", text_format=Person).output_parsed is not None


@pytest.mark.parametrize("flavour", MESSAGES_FLAVOURS, indirect=True)
def test_embeddings(client: openai.OpenAI, model: str) -> None:
    """Embeddings come in both encodings that the SDK asks for, a vector an input, the same for the same text."""
    packed = client.embeddings.create(model=model, input=["one", "two", "one"])
    plain = client.embeddings.create(model=model, input="one", encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1, 2] and packed.usage.prompt_tokens > 0
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert packed.data[0].embedding == packed.data[2].embedding != packed.data[1].embedding


def test_models(client: openai.OpenAI, model: str) -> None:
    """Every engine's model is listed, and can be asked for by name; an unknown one is not found."""
    assert model in [listed.id for listed in client.models.list()]
    found = client.models.retrieve(model)
    assert (found.id, found.object) == (model, "model") and found.owned_by and found.created > 0
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("nope")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_names_with_a_slash(client: openai.OpenAI, model: str) -> None:
    """A model named as on a hub, `owner/name`, is asked for and looked up by that name."""
    assert client.models.retrieve(f"lab/{model}").id == f"lab/{model}"
    answer = client.chat.completions.create(model=f"lab/{model}", messages=SAY)
    assert (answer.model, answer.choices[0].message.content) == (f"lab/{model}", ECHOED)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_unknown_model(client: openai.OpenAI, fleet: Flavours, stream: bool) -> None:
    """The gateway itself refuses a model that nobody serves: no engine is asked."""
    before = [engine.posts() for engine in fleet.engines.values()]
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="nope", messages=SAY, stream=stream)
    error = raised.value
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "not_found_error")
    assert error.request_id and "nope" in error.message
    assert [engine.posts() for engine in fleet.engines.values()] == before


def test_a_request_that_the_engine_refuses(client: openai.OpenAI, fleet: Flavours, flavour: str) -> None:
    """The engine's own 400 comes through with its own body, and is not tried again."""
    before = fleet.engines[flavour].posts()
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=model_of(flavour), messages=SAY, max_tokens=-1)
    assert "max_tokens" in str(raised.value.body) and raised.value.response.headers["x-smg-error-code"] == "upstream_rejected"
    assert fleet.engines[flavour].posts() == before + 1


def test_a_request_that_is_no_request(client: openai.OpenAI) -> None:
    """A body of the wrong form is refused with the field's name."""
    with pytest.raises(openai.BadRequestError) as raised:
        client.post("/chat/completions", body={"model": 7, "messages": []}, cast_to=object)
    assert (raised.value.code, raised.value.param) == ("invalid_request", "model")


def test_a_rate_limit(client: openai.OpenAI, fleet: Flavours, flavour: str) -> None:
    """An engine that limits its rate twice is a RateLimitError with the engine's Retry-After; a client that retries gets through."""
    engine, model = fleet.engines[flavour], model_of(flavour)
    engine.fault(kind="rate_limit", times=2, retry_after_s=1)
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model=model, messages=SAY)
    assert raised.value.response.headers["retry-after"] == "1" and "simulated rate limit" in str(raised.value.body)
    engine.fault(kind="rate_limit", times=2, retry_after_s=0)
    answer = client.with_options(max_retries=2).chat.completions.create(model=model, messages=SAY)
    assert answer.choices[0].message.content == ECHOED


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_engine_that_fails(client: openai.OpenAI, fleet: Flavours, flavour: str, stream: bool) -> None:
    """One failure is retried and nobody sees it; one that repeats is an InternalServerError with the engine's body."""
    engine, model = fleet.engines[flavour], model_of(flavour)
    engine.fault(kind="error", times=1)
    answer: Any = client.chat.completions.create(model=model, messages=SAY, stream=stream)
    assert (text_of(list(answer)) if stream else answer.choices[0].message.content) == ECHOED
    engine.fault(kind="error", times=2)
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(model=model, messages=SAY, stream=stream)
    assert raised.value.status_code == 500 and "simulated failure" in str(raised.value.body)
    assert raised.value.response.headers["x-smg-error-code"] == "upstream_failed"


def test_a_model_without_a_worker(client: openai.OpenAI) -> None:
    """503 with Retry-After and a code, so that the SDK's own retries wait as long as they should."""
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="sim-absent", messages=SAY)
    assert isinstance(raised.value, openai.InternalServerError) and raised.value.status_code == 503
    assert raised.value.code == "no_candidate" and int(raised.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("kind", ["reset", "truncated_chunk", "broken_event", "no_done"])
def test_a_stream_that_breaks(client: openai.OpenAI, fleet: Flavours, flavour: str, kind: str) -> None:
    """A stream that breaks off after its first tokens raises, with what came before it intact: it never looks complete."""
    fleet.engines[flavour].fault(kind=kind, after_events=3, times=1)
    chunks: list[ChatCompletionChunk] = []
    with pytest.raises(openai.APIError) as raised:
        chunks.extend(client.chat.completions.create(model=model_of(flavour), messages=SAY, stream=True))
    assert raised.value.code == "stream_broken" and raised.value.type == "server_error"
    assert 1 <= len(chunks) <= 3 and ECHOED.startswith(text_of(chunks)) and not any(c.choices[0].finish_reason for c in chunks)


async def test_a_stream_that_breaks_async(aclient: openai.AsyncOpenAI, fleet: Flavours, flavour: str) -> None:
    """The asynchronous client raises as well, in text completions too; the Responses API has an error event of its own."""
    engine, model = fleet.engines[flavour], model_of(flavour)
    engine.fault(kind="reset", after_events=2, times=1)
    with pytest.raises(openai.APIError):
        async for _ in await aclient.completions.create(model=model, prompt="echo: one two three four", stream=True):
            pass
    engine.fault(kind="reset", after_events=6, times=1)
    events = [event async for event in await aclient.responses.create(model=model, input="echo: one two three four", stream=True)]
    last: Any = events[-1]
    assert (last.type, last.code) == ("error", "stream_broken") and last.sequence_number == events[-2].sequence_number + 1
