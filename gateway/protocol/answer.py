"""Reads the token usage out of a whole JSON answer, and tells a broken one apart."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from gateway.protocol.answer_wire import (
    OpenAIUsage,
    SGLangAnswer,
    SGLangMeta,
    decode_anthropic,
    decode_openai,
    decode_openai_or_sglang,
    decode_responses,
)
from gateway.protocol.dialect import Dialect
from gateway.protocol.usage import Usage

MALFORMED: Final = Usage(-1, -1, -1)
"""What `read_usage` returns, by identity, for a body that is not JSON."""


_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_usage(dialect: Dialect, body: bytes) -> Usage | None:
    """Return the usage of a whole answer; None where it has none, `MALFORMED` where it is not JSON. Raises nothing."""
    read = _openai if dialect is Dialect.CHAT else _USAGE_READERS.get(dialect, _openai)
    try:
        return read(body)
    except _BAD:
        pass
    found = lenient_json(body.removeprefix(b"\xef\xbb\xbf"))
    if found is None:
        return MALFORMED
    try:
        # Infinities become null, so that an answer with such logprobs is counted as well.
        return read(msgspec.json.encode(found[0]))
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return None


def _openai(body: bytes) -> Usage | None:
    found = decode_openai(body).usage
    return None if found is None else found.read()


def _responses(body: bytes) -> Usage | None:
    found = decode_responses(body).usage
    return None if found is None else found.read()


def _anthropic(body: bytes) -> Usage | None:
    found = decode_anthropic(body).usage
    return None if found is None else found.read()


def _openai_or_sglang(body: bytes) -> Usage | None:
    return _sum(decode_openai_or_sglang(body))


_USAGE_READERS = {
    Dialect.GENERATE: _openai_or_sglang,
    Dialect.RERANK: _openai_or_sglang,
    Dialect.MESSAGES: _anthropic,
    Dialect.RESPONSES: _responses,
}
"""The readers; all other dialects have OpenAI's `usage`."""


def _sum(answers: SGLangAnswer | list[SGLangAnswer]) -> Usage | None:
    """Add up the usage of SGLang's answers, of which a batch gives a list."""
    if isinstance(answers, SGLangAnswer):
        counts: OpenAIUsage | SGLangMeta | None = answers.meta_info or answers.usage
        return None if counts is None else counts.read()
    parts = [one.meta_info.read() for one in answers if one.meta_info is not None]
    if not parts:
        return None
    return Usage(sum(p.prompt_tokens for p in parts), sum(p.completion_tokens for p in parts), sum(p.cached_tokens for p in parts))


def lenient_json(text: bytes) -> tuple[Any] | None:
    """Parse JSON as clients in Python do, which take NaN, infinities and lone surrogates; None where it is not even that.

    Asked only where the strict reader refused: logprobs of minus infinity are written that way by Python engines.
    The value comes in a tuple, since `null` is a value.
    """
    try:
        return (json.loads(text.decode("utf-8", "surrogatepass")),)  # a str, lest it guess at UTF-16
    except (ValueError, RecursionError):
        return None
