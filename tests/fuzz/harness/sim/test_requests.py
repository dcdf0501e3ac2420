"""Whatever JSON a client sends, a simulated engine makes a job of it or refuses it: nothing else is raised."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.sim import requests
from harness.sim.dialects.table import codecs
from harness.sim.job import Api
from harness.sim.refusal import Refusal
from harness.sim.settings import FLAVOURS, Flavour, SimSettings

KEYS = (
    "role content type text function name parameters schema json_schema format include_usage properties required items enum anyOf "
    "minItems minLength maxLength minimum $ref n max_new_tokens stop tool_calls input_schema"
)
FIELDS = (
    "model messages prompt input text input_ids stream stream_options max_tokens max_completion_tokens max_output_tokens n seed "
    "stop stop_sequences logprobs top_logprobs tools tool_choice response_format structured_outputs sampling_params ignore_eos "
    "min_tokens system instructions parallel_tool_calls temperature top_p metadata"
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
WORD = st.sampled_from("user assistant tool text function get_weather auto any json_schema json_object m".split())  # noqa: SIM905
OBJECT = st.dictionaries(st.sampled_from(KEYS.split()), st.deferred(lambda: VALUE), max_size=5)
VALUE: st.SearchStrategy[Any] = JUNK | WORD | OBJECT | st.lists(OBJECT | WORD, max_size=3)
TOOL = st.fixed_dictionaries(
    {"name": WORD | JUNK}, optional={"type": st.just("function") | JUNK, "input_schema": VALUE, "parameters": VALUE}
)
TOOLS = st.lists(TOOL | st.fixed_dictionaries({"function": TOOL | JUNK}), max_size=3)
CHOICE = st.fixed_dictionaries({"type": WORD}, optional={"function": TOOL, "name": WORD | JUNK}) | st.just("required") | JUNK
FORMAT = st.fixed_dictionaries({"type": WORD | JUNK}, optional={"json_schema": st.fixed_dictionaries({"schema": VALUE}), "schema": VALUE})
SAMPLING = st.dictionaries(
    st.sampled_from(["n", "max_new_tokens", "min_new_tokens", "stop", "json_schema", "ignore_eos"]), VALUE, max_size=3
)
TURN = st.fixed_dictionaries({"role": WORD | JUNK, "content": VALUE}, optional={"tool_calls": VALUE, "name": JUNK})
AIMED: dict[str, st.SearchStrategy[Any]] = {
    "tools": TOOLS,
    "tool_choice": CHOICE,
    "response_format": FORMAT,
    "text": st.fixed_dictionaries({"format": FORMAT | JUNK}) | st.text(max_size=20),
    "sampling_params": SAMPLING,
    "messages": st.lists(TURN, max_size=3),
    "input": st.lists(TURN, max_size=3),
    "stop": st.lists(WORD | JUNK, max_size=3),
    "ignore_eos": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": JUNK}),
}
GOOD = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "messages": st.just([{"role": "user", "content": "call get_weather"}]),
        "prompt": st.just("p"),
        "input": st.just("i"),
        "text": st.just("t"),
        "max_tokens": st.integers(1, 40),
    }
)
BODY = st.builds(
    lambda good, aimed, junk: {**good, **aimed, **junk},
    GOOD | st.just({}),
    st.fixed_dictionaries({}, optional=AIMED),
    st.dictionaries(st.sampled_from(FIELDS.split()), VALUE, max_size=2),
)
APIS = [Api.CHAT, Api.COMPLETIONS, Api.MESSAGES, Api.RESPONSES, Api.GENERATE]


@pytest.mark.parametrize("flavour", FLAVOURS)
@given(api=st.sampled_from(APIS), body=BODY)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_body_is_answered_or_refused(flavour: Flavour, api: Api, body: dict[str, Any]) -> None:
    """A body becomes a job whose answer can be written, whole and streamed, or a refusal with an error body."""
    made = SimSettings(flavour=flavour, model="m", max_model_len=256)
    table = codecs(made)
    if api not in table.whole:
        return
    try:
        job = requests.build(made, api, orjson.loads(orjson.dumps(body)), None)
    except Refusal as refusal:
        assert 400 <= refusal.status < 500
        assert orjson.loads(table.error(refusal.status, refusal.kind, refusal.message, refusal.param))
        return
    assert job.answers
    orjson.dumps(table.whole[api](job))
    stream = table.stream[api](job)
    events = stream.head()
    for answer in job.answers:
        assert answer.tokens
        assert len(answer.tokens) + len(answer.sequence.prompt) <= made.max_model_len + 1
        for place in range(len(answer.tokens)):
            events += stream.token(answer, place)
    events += stream.tail()
    assert all(event.endswith(b"\n\n") for event in [*events, stream.done])
