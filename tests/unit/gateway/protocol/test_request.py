"""What is read out of a request, and what is refused, with the reason and the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.errors import ClientError, Code
from gateway.protocol.dialect import Dialect
from gateway.protocol.request import MAX_COUNT, READERS, read_chat
from gateway.protocol.request_wire import RequestFacts

CASES: list[tuple[Dialect, Any, dict[str, Any]]] = [
    (Dialect.CHAT, {}, {}),
    (Dialect.CHAT, {"model": "m", "messages": [{"role": "user"}]}, {"model": "m", "prompt": b'[{"role":"user"}]'}),
    (Dialect.CHAT, {"messages": []}, {"prompt": b"[]"}),
    (Dialect.CHAT, {"stream": True}, {"stream": True}),
    (Dialect.CHAT, {"stream": None, "model": None, "n": None, "max_tokens": None}, {}),
    (Dialect.CHAT, {"max_tokens": 5}, {"max_tokens": 5}),
    (Dialect.CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
    (Dialect.CHAT, {"max_tokens": 5, "max_completion_tokens": None}, {"max_tokens": 5}),
    (Dialect.CHAT, {"max_completion_tokens": 0, "max_tokens": 5}, {"max_tokens": 0}),
    (Dialect.CHAT, {"max_tokens": 5.0}, {"max_tokens": 5}),
    (Dialect.CHAT, {"max_tokens": -1}, {"max_tokens": 0}),
    (Dialect.CHAT, {"max_tokens": 10**30}, {"max_tokens": MAX_COUNT}),
    (Dialect.CHAT, {"max_tokens": 1e308}, {"max_tokens": MAX_COUNT}),
    (Dialect.CHAT, {"n": 3}, {"n": 3}),
    (Dialect.CHAT, {"n": 0}, {"n": 1}),
    (Dialect.CHAT, {"n": -2}, {"n": 1}),
    (Dialect.CHAT, {"stream_options": None}, {"has_stream_options": True}),
    (Dialect.CHAT, {"stream_options": {}}, {"has_stream_options": True}),
    (Dialect.CHAT, {"stream_options": {"include_usage": False}}, {"has_stream_options": True}),
    (Dialect.CHAT, {"stream_options": {"include_usage": True, "x": 1}}, {"has_stream_options": True, "include_usage": True}),
    (Dialect.CHAT, {"priority": 4}, {"priority": 4}),
    (Dialect.CHAT, {"priority": -4}, {"priority": -4}),
    (Dialect.CHAT, {"priority": "high"}, {}),
    (Dialect.CHAT, {"priority": 1.5}, {}),
    (Dialect.CHAT, {"priority": 10**15}, {"priority": MAX_COUNT}),
    (Dialect.CHAT, {"priority": 10**4000}, {}),
    (Dialect.CHAT, {"model": "Grüße 🚀", "tools": [{"x": "ü"}], "temperature": 0.5}, {"model": "Grüße 🚀"}),
    (Dialect.COMPLETIONS, {"prompt": "hi"}, {"prompt": b'"hi"'}),
    (Dialect.COMPLETIONS, {"prompt": ["a", "b"]}, {"prompt": b'["a","b"]'}),
    (Dialect.COMPLETIONS, {"prompt": [1, 2]}, {"prompt": b"[1,2]"}),
    (
        Dialect.COMPLETIONS,
        {"stream": True, "n": 2, "max_tokens": 9, "stream_options": {"include_usage": True}, "priority": 1},
        {"stream": True, "n": 2, "max_tokens": 9, "has_stream_options": True, "include_usage": True, "priority": 1},
    ),
    (Dialect.EMBEDDINGS, {"model": "e", "input": ["a"]}, {"model": "e", "prompt": b'["a"]'}),
    (Dialect.EMBEDDINGS, {"messages": [1]}, {"prompt": b"[1]"}),
    (Dialect.RERANK, {"model": "r", "documents": ["d"], "query": "q"}, {"model": "r", "prompt": b'"q"["d"]'}),
    (Dialect.RESPONSES, {"input": "i", "instructions": "s", "stream": True}, {"prompt": b'"s""i"', "stream": True}),
    (Dialect.RESPONSES, {"max_output_tokens": 8}, {"max_tokens": 8}),
    (Dialect.MESSAGES, {"messages": [1], "system": "s", "max_tokens": 3}, {"prompt": b'"s"[1]', "max_tokens": 3}),
    (Dialect.MESSAGES, {"stream": True}, {"stream": True}),
    (Dialect.GENERATE, {"text": "t"}, {"prompt": b'"t"'}),
    (Dialect.GENERATE, {"input_ids": [1]}, {"prompt": b"[1]"}),
    (Dialect.GENERATE, {"sampling_params": {"max_new_tokens": 4, "n": 2}, "stream": True}, {"max_tokens": 4, "n": 2, "stream": True}),
    (Dialect.GENERATE, {"sampling_params": [{"max_new_tokens": 4}, {"max_new_tokens": 6, "n": 3}]}, {"max_tokens": 6, "n": 3}),
    (Dialect.GENERATE, {"sampling_params": [], "priority": 2}, {"priority": 2}),
    (Dialect.TOKENIZE, {"prompt": "p"}, {"prompt": b'"p"'}),
    (Dialect.TOKENIZE, {"content": "c"}, {"prompt": b'"c"'}),
    (Dialect.TOKENIZE, {"messages": [1]}, {"prompt": b"[1]"}),
    (Dialect.DETOKENIZE, {"tokens": [1, 2]}, {"prompt": b"[1,2]"}),
]  # fmt: skip


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(("dialect", "body", "facts"), CASES)
def test_facts(dialect: Dialect, body: Any, facts: dict[str, Any], ascii_only: bool) -> None:
    """Each field that routing needs is found, in whatever form a client may write it."""
    wire = json.dumps(body, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    assert READERS[dialect](wire) == RequestFacts(**{"model": "", "prompt": b""} | facts)
    spaced = b" \r\n\t" + wire + b"\n "
    assert READERS[dialect](spaced) == READERS[dialect](wire)


def test_the_prompt_is_what_the_client_wrote() -> None:
    """The prompt keeps its spaces, escapes and order, so that equal beginnings stay equal."""
    assert read_chat(b'{"messages": [ {"a" : "\\u00fc\\n"},1 ] , "x":1}').prompt == b'[ {"a" : "\\u00fc\\n"},1 ]'


def test_the_last_of_duplicate_keys_counts() -> None:
    """Gateway and engine see the same value of a key that comes twice."""
    facts = read_chat(b'{"model":"a","stream":true,"model":"b","stream":false,"messages":[1],"messages":[2]}')
    assert (facts.model, facts.stream, facts.prompt) == ("b", False, b"[2]")
    assert read_chat(b'{"mod\\u0065l":"x"}').model == "x"


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"{}{}",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":"\\q"}',
        b'{"a":"a\nb"}',
        b'{"model":"\\ud83d"}',
        b'{"a":"\\ud83d"}',
        b'{"a":"\xff"}',
        b'{"\xff":1}',
        b'{"model":"\xc3"}',
        b'{"a":"\xed\xa0\xbd"}',
        b"\xef\xbb\xbf{}",
        b"{\x00}",
        b'{"model":5}',
        b'{"model":["m"]}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_refused_by_every_reader(dialect: Dialect, body: bytes) -> None:
    """What is no JSON object of UTF-8 text is `invalid_request`, with a message in our style and without a byte of the body."""
    with pytest.raises(ClientError) as caught:
        READERS[dialect](body)
    error = caught.value
    assert error.code is Code.INVALID_REQUEST and error.__cause__ is None
    assert error.message[0].islower() and not error.message.endswith(".") and len(error.message) < 200


@pytest.mark.parametrize(
    ("dialect", "body", "param"),
    [
        (Dialect.CHAT, b'{"model":1}', "model"),
        (Dialect.CHAT, b'{"stream":"yes"}', "stream"),
        (Dialect.CHAT, b'{"stream":1}', "stream"),
        (Dialect.CHAT, b'{"max_tokens":"5"}', "max_tokens"),
        (Dialect.CHAT, b'{"max_tokens":1e999}', "max_tokens"),
        (Dialect.CHAT, b'{"n":[]}', "n"),
        (Dialect.CHAT, b'{"stream_options":5}', "stream_options"),
        (Dialect.CHAT, b'{"stream_options":{"include_usage":"x"}}', "stream_options.include_usage"),
        (Dialect.MESSAGES, b'{"max_tokens":{}}', "max_tokens"),
        (Dialect.RESPONSES, b'{"max_output_tokens":true}', "max_output_tokens"),
        (Dialect.GENERATE, b'{"sampling_params":{"n":"x"}}', "sampling_params.n"),
        (Dialect.GENERATE, b'{"sampling_params":5}', "sampling_params"),
        (Dialect.CHAT, b"[]", None),
        (Dialect.CHAT, b"{", None),
    ],
)
def test_the_field_at_fault_is_named(dialect: Dialect, body: bytes, param: str | None) -> None:
    """`param` names the field as OpenAI's errors do."""
    with pytest.raises(ClientError) as caught:
        READERS[dialect](body)
    assert caught.value.param == param
