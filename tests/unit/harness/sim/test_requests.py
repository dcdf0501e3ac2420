"""From bodies to jobs: prompts, limits, stops, tools, structured output, refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.sim import requests, tokens
from harness.sim.job import Api, Job
from harness.sim.refusal import Refusal
from harness.sim.settings import Flavour, SimSettings

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


def build(body: dict[str, Any], api: Api = Api.CHAT, flavour: Flavour = "vllm", **settings: Any) -> Job:
    """Make the job of a body."""
    return requests.build(SimSettings(flavour=flavour, model="m", **settings), api, body, None)


def chat(content: Any = "hi", **more: Any) -> dict[str, Any]:
    """Return a chat body."""
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def test_answers_depend_on_seed_and_prompt_alone() -> None:
    """The same prompt gives the same text and another prompt another; the client's seed wins over the prompt."""
    assert build(chat()).answers[0].text == build(chat()).answers[0].text
    assert build(chat()).answers[0].text != build(chat("hello")).answers[0].text
    assert build(chat(), seed=1).answers[0].text != build(chat()).answers[0].text
    assert build(chat("a", seed=5)).answers[0].text == build(chat("b", seed=5)).answers[0].text
    first, second = build(chat(n=2)).answers
    assert first.text != second.text


@pytest.mark.parametrize(("limit", "count", "finish"), [(3, 3, "length"), (5_000, None, "stop")])
def test_max_tokens_cuts(limit: int, count: int | None, finish: str) -> None:
    """An answer longer than the limit is cut with `length`; a short one stops by itself."""
    answer = build(chat(max_tokens=limit)).answers[0]
    assert answer.finish == finish
    assert count is None or len(answer.tokens) == count


def test_ignore_eos_fills_the_limit() -> None:
    """With ignore_eos an answer is exactly as long as asked, and ends by length."""
    for body in (chat(max_tokens=777, ignore_eos=True), chat(max_tokens=20, ignore_eos=True)):
        answer = build(body).answers[0]
        assert (len(answer.tokens), answer.finish) == (body["max_tokens"], "length")
    native = {"text": "x", "sampling_params": {"max_new_tokens": 99, "ignore_eos": True}}
    assert len(build(native, Api.GENERATE, "sglang").answers[0].tokens) == 99


def test_no_sequence_outgrows_context_or_cache() -> None:
    """Without a limit an answer ends where context or KV cache end, whichever is smaller."""
    body = chat(ignore_eos=True)
    job = build(body, max_model_len=200)
    assert len(job.answers[0].tokens) + job.prompt_tokens == 200
    job = build(body, max_model_len=10_000, kv_tokens=320)
    assert len(job.answers[0].tokens) + job.prompt_tokens == 318


def test_stop_strings_end_the_answer_before_them() -> None:
    """The first stop string in the text ends it and is not part of it."""
    answer = build(chat("echo: one two three four", stop=["four", "three"])).answers[0]
    assert (answer.text, answer.finish, answer.stop_match) == ("one two ", "stop", "three")
    assert build(chat("echo: one two", stop="zzz")).answers[0].stop_match is None


@pytest.mark.parametrize(
    ("said", "choice", "parallel", "called"),
    [
        ("hi", "auto", True, []),
        ("use get_weather", "auto", True, ["get_weather"]),
        ("get time and get weather", "auto", True, ["get_weather", "get_time"]),
        ("get time and get weather", "auto", False, ["get_weather"]),
        ("use get_weather", "none", True, []),
        ("hi", "required", True, ["get_weather"]),
        ("hi", {"type": "function", "function": {"name": "get_time"}}, True, ["get_time"]),
    ],
)
def test_tools_are_called_when_named_or_required(said: str, choice: Any, parallel: bool, called: list[str]) -> None:
    """A tool is called when the last user turn names it, or the client requires it."""
    job = build(chat(said, tools=[WEATHER, CLOCK], tool_choice=choice, parallel_tool_calls=parallel))
    answer = job.answers[0]
    assert [name for name, _ in answer.calls] == called
    assert answer.finish == ("tool_calls" if called else "stop")
    for name, arguments in answer.calls:
        assert json.loads(arguments) == ({"city": "simulated"} if name == "get_weather" else {})


def test_a_tool_result_is_answered_in_words() -> None:
    """After the result of a tool the answer is text, though an earlier turn named the tool."""
    body = chat("use get_weather", tools=[WEATHER])
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "get_weather"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    assert build(body).answers[0].calls == []


def test_structured_output_fills_the_schema() -> None:
    """json_schema, json_object, vLLM's structured_outputs and SGLang's json_schema give JSON that fits."""
    wanted = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]}
    bodies = [
        (chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": wanted}}), Api.CHAT),
        (chat(structured_outputs={"json": wanted}), Api.CHAT),
        ({"text": "x", "sampling_params": {"json_schema": json.dumps(wanted)}}, Api.GENERATE),
        ({"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "name": "x", "schema": wanted}}}, Api.RESPONSES),
    ]
    for body, api in bodies:
        assert json.loads(build(body, api).answers[0].text) == {"n": 3}
    assert isinstance(json.loads(build(chat(response_format={"type": "json_object"})).answers[0].text), dict)


def test_prompts_in_every_form() -> None:
    """Texts, token ids and lists of them are prompts; several prompts are several answers."""
    ids = tokens.encode("echo: same")
    for prompt in ("echo: same", ["echo: same"], ids, [ids]):
        job = build({"model": "m", "prompt": prompt}, Api.COMPLETIONS)
        assert [answer.text for answer in job.answers] == ["same"]
    job = build({"model": "m", "prompt": ["echo: a", "echo: b"], "n": 2}, Api.COMPLETIONS)
    assert len(job.answers) == 4
    assert job.prompt_tokens == 2 * len(tokens.split("echo: a"))


def test_conversations_share_their_prefix() -> None:
    """The prompt of a next turn begins with the prompt of the turn before, so that the cache finds it."""
    first = build(chat("hi")).answers[0]
    body = chat("hi")
    body["messages"] += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "more"}]
    whole = [*first.sequence.prompt, *first.sequence.output]
    assert build(body).answers[0].sequence.prompt[: len(whole) - 1] == whole[:-1]


@pytest.mark.parametrize(
    ("flavour", "api", "body", "status", "says"),
    [
        ("vllm", Api.CHAT, {"model": "other", "messages": [{}]}, 404, "`other` does not exist. Valid aliases: m, lo."),
        ("vllm", Api.CHAT, {"model": "m"}, 400, "messages"),
        ("vllm", Api.CHAT, {"model": "m", "messages": []}, 400, "messages"),
        ("vllm", Api.CHAT, chat(max_tokens=0), 400, "at least 1"),
        ("vllm", Api.CHAT, chat(max_tokens=999), 400, "max_tokens=999 cannot be greater than max_model_len=100"),
        ("vllm", Api.CHAT, chat("x" * 500), 400, "maximum context length is 100 tokens"),
        ("sglang", Api.CHAT, chat("x" * 500), 400, "longer than the model's context length (100 tokens)"),
        ("sglang", Api.CHAT, chat("x" * 200, max_tokens=90), 400, "Requested token count exceeds"),
        ("sglang", Api.CHAT, chat(max_tokens=999), 400, "max_completion_tokens is too large: 999"),
        ("vllm", Api.CHAT, chat(n=1000), 400, "n must be"),
        ("vllm", Api.CHAT, chat(tools="x"), 400, "tools"),
        ("vllm", Api.CHAT, chat(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "zz"}}), 400, "zz"),
        ("vllm", Api.CHAT, chat(stream_options=5), 400, "stream_options"),
        ("vllm", Api.MESSAGES, {"model": "m", "messages": [{"role": "user", "content": "x"}]}, 400, "max_tokens"),
        ("trtllm", Api.CHAT, {"messages": [{"role": "user", "content": "x"}]}, 400, "model"),
    ],
)
def test_refusals(flavour: Flavour, api: Api, body: dict[str, Any], status: int, says: str) -> None:
    """What an engine would refuse is refused with its status and words."""
    with pytest.raises(Refusal) as refused:
        build(body, api, flavour, max_model_len=100, loras=("lo",))
    assert refused.value.status == status
    assert says in refused.value.message


def test_other_engines_answer_to_any_model() -> None:
    """SGLang and TensorRT-LLM do not check the name and echo it."""
    assert build({**chat(), "model": "other"}, flavour="sglang").model == "other"
    assert build({**chat(), "model": "other"}, flavour="trtllm").model == "other"
