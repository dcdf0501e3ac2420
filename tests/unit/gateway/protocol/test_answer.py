"""Usage is found in whole answers of real engines and in odd ones; a body that is no JSON is told apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.protocol.answer import MALFORMED, lenient_json, read_usage
from gateway.protocol.answer_wire import MAX_COUNT
from gateway.protocol.dialect import Dialect
from gateway.protocol.usage import Usage
from tests.support.wire import load

RECORDED = [
    ("vllm-0.32-http", "chat", Dialect.CHAT, Usage(14, 8, 0)),
    ("vllm-0.32-http", "tool-required", Dialect.CHAT, None),
    ("vllm-0.32-http", "json-schema", Dialect.CHAT, None),
    ("vllm-0.32-http", "responses", Dialect.RESPONSES, Usage(12, 5, 0)),
    ("sglang-0.5.23-http", "chat", Dialect.CHAT, None),
    ("sglang-0.5.23-http", "tool-required", Dialect.CHAT, None),
    ("llamacpp-http", "chat", Dialect.CHAT, Usage(14, 8, 0)),
    ("llamacpp-http", "err-model", Dialect.CHAT, Usage(11, 2037, 10)),
    ("llamacpp-http", "responses", Dialect.RESPONSES, Usage(12, 5, 3)),
    ("transformers-serve-5.19", "chat", Dialect.CHAT, Usage(14, 8, 0)),
    ("transformers-serve-5.19", "json-schema", Dialect.CHAT, None),
]


@pytest.mark.parametrize(("engine", "name", "dialect", "usage"), RECORDED)
def test_recorded_answers(engine: str, name: str, dialect: Dialect, usage: Usage | None) -> None:
    """The usage of a real engine's answer is what its JSON says."""
    recording = load(engine, name)
    assert recording.status == 200
    found = read_usage(dialect, recording.body)
    told = recording.json["usage"]
    assert found is not None and found is not MALFORMED
    if usage is not None:
        assert found == usage
    prompt, completion = ("input_tokens", "output_tokens") if dialect is Dialect.RESPONSES else ("prompt_tokens", "completion_tokens")
    assert (found.prompt_tokens, found.completion_tokens) == (told[prompt], told[completion])


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        (engine, name)
        for engine in ("vllm-0.32-http", "sglang-0.5.23-http", "transformers-serve-5.19")
        for name in ("err-model", "err-json", "err-len")
    ],
)
def test_recorded_errors_have_no_usage(engine: str, name: str) -> None:
    """Error bodies, flat or not, are JSON; only the one engine that answers in spite of it counts something."""
    recording = load(engine, name)
    if recording.body:
        found = read_usage(Dialect.CHAT, recording.body)
        assert found is not MALFORMED and (found is None or recording.status == 200)


@pytest.mark.parametrize(
    ("dialect", "body", "usage"),
    [
        (Dialect.CHAT, {}, None),
        (Dialect.CHAT, {"usage": None}, None),
        (Dialect.CHAT, {"usage": {}}, Usage()),
        (Dialect.CHAT, {"usage": {"prompt_tokens": 3, "completion_tokens": None}}, Usage(3)),
        (Dialect.CHAT, {"usage": {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}}, Usage(3, 0, 2)),
        (Dialect.CHAT, {"usage": {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}}}, Usage(3)),
        (Dialect.CHAT, {"usage": {"prompt_tokens": -3, "completion_tokens": MAX_COUNT + 1}}, Usage()),
        (Dialect.CHAT, {"usage": {"prompt_tokens": "3"}}, None),
        (Dialect.CHAT, [], None),
        (Dialect.CHAT, 5, None),
        (Dialect.COMPLETIONS, {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, Usage(1, 2)),
        (Dialect.EMBEDDINGS, {"data": [{"embedding": [0.1] * 10}], "usage": {"prompt_tokens": 4}}, Usage(4)),
        (
            Dialect.RESPONSES,
            {"usage": {"input_tokens": 5, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 1}}},
            Usage(5, 6, 1),
        ),
        (Dialect.MESSAGES, {"usage": {"input_tokens": 5, "output_tokens": 6}}, Usage(5, 6)),
        (
            Dialect.MESSAGES,
            {"usage": {"input_tokens": 5, "output_tokens": 6, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 8}},
            Usage(20, 6, 7),
        ),
        (Dialect.RERANK, {"usage": {"prompt_tokens": 9}, "results": []}, Usage(9)),
        (Dialect.RERANK, [{"score": 0.5, "meta_info": {"prompt_tokens": 2}}, {"meta_info": {"prompt_tokens": 3}}], Usage(5)),
        (Dialect.RERANK, [{"score": 0.5}], None),
        (Dialect.RERANK, [], None),
        (Dialect.GENERATE, {"meta_info": {"prompt_tokens": 2, "completion_tokens": 3, "cached_tokens": 1}}, Usage(2, 3, 1)),
        (Dialect.GENERATE, [{"meta_info": {"prompt_tokens": 2, "completion_tokens": 3}}] * 2, Usage(4, 6)),
        (Dialect.TOKENIZE, {"tokens": [1]}, None),
    ],
)
def test_shapes(dialect: Dialect, body: Any, usage: Usage | None) -> None:
    """Each dialect's counts are read into the one shape; what is odd counts nothing and raises nothing."""
    assert read_usage(dialect, json.dumps(body).encode()) == usage


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    "body", [b"", b"{", b"<html>", b'{"a":1}x', b'{"usage":{"prompt_tokens":1}', b"\xff", b"{'a':1}", b"1\x00", b"[" * 100_000]
)
def test_malformed(dialect: Dialect, body: bytes) -> None:
    """What no JSON reader takes is MALFORMED, by identity, in every dialect."""
    assert read_usage(dialect, body) is MALFORMED


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "Infinity"])
def test_infinities_cost_no_usage(number: str) -> None:
    """Python engines write infinite logprobs: such an answer is whole and counted."""
    value = float(number)
    body = json.dumps({"choices": [{"logprobs": [value]}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    assert number in body
    assert read_usage(Dialect.CHAT, body.encode()) == Usage(3, 4)
    body = json.dumps([{"meta_info": {"prompt_tokens": 1, "completion_tokens": 2, "output_token_logprobs": [[value, 1, None]]}}])
    assert read_usage(Dialect.GENERATE, body.encode()) == Usage(1, 2)


def test_what_python_reads_is_not_malformed() -> None:
    """Lone surrogates, giant integers and a byte order mark are odd, but a client can read them."""
    assert read_usage(Dialect.CHAT, b'{"x":"\\ud83d","usage":{"prompt_tokens":1}}') is None
    assert read_usage(Dialect.CHAT, b'{"usage":{"prompt_tokens":1e999}}') == Usage()
    assert read_usage(Dialect.CHAT, b'\xef\xbb\xbf{"usage":{"prompt_tokens":1}}') == Usage(1)


def test_lenient_json() -> None:
    """It tells `null` from nothing, and never guesses at an encoding."""
    assert lenient_json(b"null") == (None,)
    assert lenient_json(b"") is None
    assert lenient_json("{}".encode("utf-16")) is None
