"""What each dialect's events do to the state of a stream: first token, finish, usage, end, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.protocol import stream_events
from gateway.protocol.stream_events import BROKEN, ERROR, FORWARD, HIDE, StreamState
from gateway.protocol.usage import Usage


def read(name: str, *events: Any, hide: bool = False, choices: int = 1) -> tuple[StreamState, int]:
    """Read events; the state, and the last verdict."""
    state = StreamState(hide, choices)
    verdict = FORWARD
    for event in events:
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        verdict = getattr(stream_events, f"read_{name}")(state, data)
    return state, verdict


def delta(finish: Any = None, index: int = 0, **members: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": members, "finish_reason": finish}]}


TEXT = delta(content="a")


@pytest.mark.parametrize(
    ("event", "token"),
    [
        (delta(role="assistant"), False),
        (delta(role="assistant", content=""), False),
        (delta(role="assistant", content=None), False),
        (delta(reasoning_content=None, content=""), False),
        (delta(tool_calls=[], audio={}), False),
        (delta(content="a"), True),
        (delta(content=" "), True),
        (delta(reasoning_content="a", content=None), True),
        (delta(reasoning="a"), True),
        (delta(refusal="a"), True),
        (delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]), True),
        (delta(function_call={"name": "f"}), True),
        (delta(audio={"data": "x"}), True),
        ({"choices": [{"index": 0}]}, False),
        ({"choices": [{"index": 0, "delta": None}]}, False),
        ({"choices": []}, False),
        ({"choices": None}, False),
        ({}, False),
        ({"choices": [delta()["choices"][0], delta(content="x")["choices"][0]]}, True),
    ],
)
def test_what_counts_as_a_token(event: Any, token: bool) -> None:
    """Text, reasoning, refusals and calls are tokens; a role, null and empty values are not."""
    state, verdict = read("chat", event)
    assert state.token_seen is token and verdict == FORWARD


@pytest.mark.parametrize(("text", "token"), [("a", True), ("", False), (None, False)])
def test_tokens_of_completions(text: str | None, token: bool) -> None:
    """A text completion's token is its text."""
    state, _ = read("completion", {"choices": [{"index": 0, "text": text, "finish_reason": None}]})
    assert state.token_seen is token


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("name", ["chat", "completion"])
@pytest.mark.parametrize(
    ("reasons", "choices", "finished"),
    [
        ([(0, "stop")], 1, True),
        ([(0, "length")], 1, True),
        ([(0, "tool_calls")], 1, True),
        ([(0, None)], 1, False),
        ([(0, "")], 1, False),
        ([(0, "stop")], 2, False),
        ([(0, "stop"), (0, "stop")], 2, False),
        ([(0, "stop"), (1, "stop")], 2, True),
        ([(1, "stop"), (0, "stop")], 2, True),
        ([(1, "stop")], 1, False),
        ([(0, "stop"), (1, None)], 1, False),
        ([(0, "stop"), (1, None), (1, "stop")], 1, True),
        ([(0, "stop"), (0, None)], 1, True),
    ],
)
def test_finish(name: str, seen: bool, reasons: list[tuple[int, str | None]], choices: int, finished: bool) -> None:
    """A stream is finished when as many choices as were asked for, and all that were seen, have a reason."""
    first = delta(content="a", index=0)
    first["choices"][0]["text"] = "a"
    events = [delta(reason, index) for index, reason in reasons]
    state, _ = read(name, *([first] if seen else []), *events, choices=choices)
    assert state.finished is finished and not state.done


COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize(
    ("event", "verdict_hidden", "usage"),
    [
        ({"choices": [], "usage": COUNTS}, HIDE, Usage(3, 2, 1)),
        ({"choices": [], "usage": COUNTS, "timings": {"x": 1}}, HIDE, Usage(3, 2, 1)),
        ({"choices": [], "usage": None}, FORWARD, None),
        ({"choices": []}, FORWARD, None),
        ({"usage": COUNTS}, FORWARD, Usage(3, 2, 1)),
        (delta("stop") | {"usage": COUNTS}, FORWARD, Usage(3, 2, 1)),
        (TEXT | {"usage": None}, FORWARD, None),
        (TEXT | {"usage": {"prompt_tokens": 1}}, FORWARD, Usage(1)),
    ],
)
def test_usage(event: Any, verdict_hidden: int, usage: Usage | None, hide: bool, seen: bool) -> None:
    """Usage is read wherever it stands; only the chunk with an empty list of choices and usage is ever hidden."""
    state, verdict = read("chat", *([TEXT] if seen else []), event, hide=hide)
    assert state.usage == usage
    assert verdict == (verdict_hidden if hide else FORWARD)


def test_the_last_usage_counts() -> None:
    """With continuous usage the last count is the answer's."""
    state, _ = read("chat", *(TEXT | {"usage": {"prompt_tokens": 3, "completion_tokens": at}} for at in range(5)))
    assert state.usage == Usage(3, 4)


@pytest.mark.parametrize("name", ["chat", "completion", "generate", "message", "response"])
@pytest.mark.parametrize("seen", [False, True])
def test_errors_and_breaks(name: str, seen: bool) -> None:
    """Every reader knows broken JSON and the engines' own errors, before and after the first token."""
    first = [{"choices": [{"delta": {"content": "a"}, "text": "a"}], "type": "x"}] if seen else []
    for bad in (b"{", b"hello", b'{"a":1}}', b"\xff", b""):
        state, verdict = read(name, *first, bad)
        assert verdict == BROKEN and state.broken == "an event that is not JSON"
    error = {"type": "error", "error": {"message": "x"}}
    state, verdict = read(name, *first, error)
    assert verdict == ERROR and state.broken == "an error event of the engine"


@pytest.mark.parametrize("name", ["chat", "completion", "generate"])
def test_flat_errors(name: str) -> None:
    """SGLang's flat error is no chunk that a client would take for an error: it is not forwarded."""
    state, verdict = read(name, {"object": "error", "message": "x", "type": "y", "param": None, "code": 400})
    assert verdict == BROKEN and state.broken == "an error event of the engine"
    state, verdict = read(name, {"object": "something", "error_count": 1, "x": "error"})
    assert verdict == FORWARD and state.broken is None


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_infinities(number: bytes) -> None:
    """An event whose only fault is a number that JSON has not is read like any other."""
    event = b'{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":%b,"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}' % number
    for events in ([event], [TEXT, event]):
        state, verdict = read("chat", *events)
        assert verdict == FORWARD and state.finished and state.token_seen and state.usage == Usage(1)
    role = b'{"choices":[{"index":0,"delta":{"role":"assistant"},"logprobs":%b}]}' % number
    assert not read("chat", role)[0].token_seen
    event = b'{"text":"a","meta_info":{"prompt_tokens":1,"completion_tokens":2,"logprobs":[%b],"finish_reason":{"type":"stop"}}}' % number
    state, verdict = read("generate", event)
    assert verdict == FORWARD and state.finished and state.usage == Usage(1, 2)
    assert read("chat", b'{"choices":[],"usage":{"prompt_tokens":1},"x":%b}' % number, hide=True)[1] == HIDE


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices":[{"index":0,"delta":{"content":"\\ud83d"},"finish_reason":"stop"}]}',
        b'{"choices":[{"index":"0","delta":{},"finish_reason":"stop"}]}',
        b'{"choices":[{"index":0,"delta":"text","finish_reason":"stop"}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":5}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":"many"}',
        b'{"choices":[7,{"finish_reason":"stop","delta":1}]}',
    ],
)
def test_odd_events(event: bytes) -> None:
    """An event of a shape that nobody knows is forwarded, its end is seen, and it counts as a token."""
    state, verdict = read("chat", event, choices=1)
    assert verdict == FORWARD and state.broken is None and state.token_seen
    assert state.finished or b"[7," in event


@pytest.mark.parametrize("event", [b"5", b'"x"', b"null", b"[]", b"true"])
@pytest.mark.parametrize("name", ["chat", "completion", "generate", "message", "response"])
def test_events_that_are_no_objects(name: str, event: bytes) -> None:
    """JSON that is no object is forwarded; what it means is the client's business."""
    state, verdict = read(name, event)
    assert verdict == FORWARD and state.broken is None


# -- SGLang's native stream -------------------------------------------------------------------------------------------


def native(text: str, tokens: int, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "text": text,
        "meta_info": {"prompt_tokens": 2, "completion_tokens": tokens, "cached_tokens": 1, "finish_reason": finish},
    } | more


def test_generate() -> None:
    """Counts are cumulative; the finish reason is an object."""
    state, _ = read("generate", native("", 0))
    assert not state.token_seen
    state, _ = read("generate", native("a", 1), native("ab", 2))
    assert state.token_seen and not state.finished and state.usage == Usage(2, 2, 1)
    state, _ = read("generate", native("a", 1), native("ab", 2, {"type": "stop"}))
    assert state.finished and state.usage == Usage(2, 2, 1)
    state, _ = read("generate", {"output_ids": [5], "meta_info": {"finish_reason": None}})
    assert state.token_seen


def test_generate_of_many() -> None:
    """A batch is counted choice by choice, and finished when all are."""
    events = [native("a", 1), native("b", 1, index=1), native("ab", 2, {"type": "stop"}), native("bc", 2, index=1)]
    state, _ = read("generate", *events, choices=2)
    assert not state.finished and state.usage == Usage(4, 4, 2)
    state, _ = read("generate", *events, native("bcd", 3, {"type": "length"}, index=1), choices=2)
    assert state.finished and state.usage == Usage(4, 5, 2)


# -- Anthropic --------------------------------------------------------------------------------------------------------


def test_message() -> None:
    """The start tells the prompt, the delta the rest, a stop is the end; `[DONE]` is none here."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 2}}}
    state, _ = read("message", start, {"type": "content_block_start"}, {"type": "ping"})
    assert not state.token_seen and state.usage == Usage(7, 1, 2)
    text = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}
    state, _ = read("message", start, text)
    assert state.token_seen and not state.done
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
    state, _ = read("message", start, text, end)
    assert state.usage == Usage(7, 9, 2) and not state.done
    state, _ = read("message", start, text, end, {"type": "message_stop"})
    assert state.done
    state, _ = read("message", end)
    assert state.usage == Usage(0, 9)
    state, _ = read("message", {"type": "message_start"}, {"type": "message_delta"})
    assert state.usage is None


# -- Responses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete", "response.failed"])
def test_response(end: str) -> None:
    """Three events end a Responses stream, with the usage; the sequence number is kept for an error of ours."""
    usage = {"input_tokens": 5, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 1}}
    created = {"type": "response.created", "sequence_number": 0, "response": {"usage": None}}
    text = {"type": "response.output_text.delta", "sequence_number": 1, "delta": "a"}
    state, _ = read("response", created)
    assert not state.token_seen and state.sequence_number == 0
    state, _ = read("response", created, text)
    assert state.token_seen and not state.done and state.sequence_number == 1
    state, _ = read("response", created, text, {"type": end, "sequence_number": 2, "response": {"usage": usage}})
    assert state.done and state.usage == Usage(5, 6, 1) and state.sequence_number == 2
    state, _ = read("response", {"type": end, "sequence_number": 2})
    assert state.done and state.usage is None
    state, _ = read("response", text, {"type": "x", "sequence_number": 0}, {"type": "y"})
    assert state.sequence_number == 1


# -- plain events -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "plain"),
    [
        (TEXT, True),
        (delta(tool_calls=[{"function": {"arguments": "a"}}]), True),
        (delta("stop"), False),
        (delta(content="a", index=1), False),
        (TEXT | {"usage": {"prompt_tokens": 1}}, False),
        (TEXT | {"error": None}, False),
        ({"choices": []}, False),
        ({}, False),
    ],
)
def test_plain(event: Any, plain: bool) -> None:
    """An event is plain only if, after the first token, it changed nothing at all."""
    assert read("chat", TEXT)[0].plain is False
    state, _ = read("chat", TEXT)
    before = (state.finished, state.usage, state._top)
    stream_events.read_chat(state, json.dumps(event).encode())
    assert state.plain is plain
    if plain:
        assert (state.finished, state.usage, state._top) == before
