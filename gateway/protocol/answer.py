"""Reads the token usage out of a whole JSON answer, and tells a broken one apart."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.protocol.dialect import Dialect
from gateway.protocol.usage import Usage

MALFORMED: Final = Usage(-1, -1, -1)
"""What `read_usage` returns, by identity, for a body that is not JSON."""


MAX_COUNT: Final = 1 << 53
"""A count above this, or below zero, is none: it would spoil every sum that it enters."""


def _count(value: int | None) -> int:
    return value if value is not None and 0 < value <= MAX_COUNT else 0


class _Details(Struct, gc=False):
    cached_tokens: int | None = None


class OpenAIUsage(Struct, gc=False):
    """`usage` of chat, completions, embeddings and rerank."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None

    def read(self) -> Usage:
        """The common shape."""
        details = self.prompt_tokens_details
        return Usage(_count(self.prompt_tokens), _count(self.completion_tokens), _count(details.cached_tokens) if details else 0)


class ResponsesUsage(Struct, gc=False):
    """`usage` of a Responses object."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None

    def read(self) -> Usage:
        """The common shape."""
        details = self.input_tokens_details
        return Usage(_count(self.input_tokens), _count(self.output_tokens), _count(details.cached_tokens) if details else 0)


class AnthropicUsage(Struct, gc=False):
    """`usage` of a Message; `input_tokens` counts what was neither read from nor written to the cache."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def read(self) -> Usage:
        """The common shape."""
        cached = _count(self.cache_read_input_tokens)
        prompt = _count(self.input_tokens) + cached + _count(self.cache_creation_input_tokens)
        return Usage(prompt, _count(self.output_tokens), cached)


class SGLangMeta(Struct, gc=False):
    """`meta_info` of SGLang's native answers."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    def read(self) -> Usage:
        """The common shape."""
        return Usage(_count(self.prompt_tokens), _count(self.completion_tokens), _count(self.cached_tokens))


class _OpenAIAnswer(Struct, gc=False):
    usage: OpenAIUsage | None = None


class _ResponsesAnswer(Struct, gc=False):
    usage: ResponsesUsage | None = None


class _AnthropicAnswer(Struct, gc=False):
    usage: AnthropicUsage | None = None


class _SGLangAnswer(Struct, gc=False):
    meta_info: SGLangMeta | None = None
    usage: OpenAIUsage | None = None


_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode_openai = msgspec.json.Decoder(_OpenAIAnswer).decode
_decode_openai_or_sglang = msgspec.json.Decoder(_SGLangAnswer | list[_SGLangAnswer]).decode
_decode_responses = msgspec.json.Decoder(_ResponsesAnswer).decode
_decode_anthropic = msgspec.json.Decoder(_AnthropicAnswer).decode


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
    found = _decode_openai(body).usage
    return None if found is None else found.read()


def _responses(body: bytes) -> Usage | None:
    found = _decode_responses(body).usage
    return None if found is None else found.read()


def _anthropic(body: bytes) -> Usage | None:
    found = _decode_anthropic(body).usage
    return None if found is None else found.read()


def _openai_or_sglang(body: bytes) -> Usage | None:
    return _sum(_decode_openai_or_sglang(body))


_USAGE_READERS = {
    Dialect.GENERATE: _openai_or_sglang,
    Dialect.RERANK: _openai_or_sglang,
    Dialect.MESSAGES: _anthropic,
    Dialect.RESPONSES: _responses,
}
"""The readers; all other dialects have OpenAI's `usage`."""


def _sum(answers: _SGLangAnswer | list[_SGLangAnswer]) -> Usage | None:
    """Add up the usage of SGLang's answers, of which a batch gives a list."""
    if isinstance(answers, _SGLangAnswer):
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
