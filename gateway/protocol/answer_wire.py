"""The members of whole answers that the gateway reads: their usage, in each dialect's own shape."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from gateway.protocol.usage import Usage

MAX_COUNT: Final = 1 << 53
"""A count above this, or below zero, is none: it would spoil every sum that it enters."""


def count(value: int | None) -> int:
    """A count as it may enter sums."""
    return value if value is not None and 0 < value <= MAX_COUNT else 0


class Details(Struct, gc=False):
    cached_tokens: int | None = None


class OpenAIUsage(Struct, gc=False):
    """`usage` of chat, completions, embeddings and rerank."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None

    def read(self) -> Usage:
        """The common shape."""
        details = self.prompt_tokens_details
        return Usage(count(self.prompt_tokens), count(self.completion_tokens), count(details.cached_tokens) if details else 0)


class ResponsesUsage(Struct, gc=False):
    """`usage` of a Responses object."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: Details | None = None

    def read(self) -> Usage:
        """The common shape."""
        details = self.input_tokens_details
        return Usage(count(self.input_tokens), count(self.output_tokens), count(details.cached_tokens) if details else 0)


class AnthropicUsage(Struct, gc=False):
    """`usage` of a Message; `input_tokens` counts what was neither read from nor written to the cache."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def read(self) -> Usage:
        """The common shape."""
        cached = count(self.cache_read_input_tokens)
        prompt = count(self.input_tokens) + cached + count(self.cache_creation_input_tokens)
        return Usage(prompt, count(self.output_tokens), cached)


class SGLangMeta(Struct, gc=False):
    """`meta_info` of SGLang's native answers."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    def read(self) -> Usage:
        """The common shape."""
        return Usage(count(self.prompt_tokens), count(self.completion_tokens), count(self.cached_tokens))


class OpenAIAnswer(Struct, gc=False):
    usage: OpenAIUsage | None = None


class ResponsesAnswer(Struct, gc=False):
    usage: ResponsesUsage | None = None


class AnthropicAnswer(Struct, gc=False):
    usage: AnthropicUsage | None = None


class SGLangAnswer(Struct, gc=False):
    meta_info: SGLangMeta | None = None
    usage: OpenAIUsage | None = None


decode_openai = msgspec.json.Decoder(OpenAIAnswer).decode


decode_openai_or_sglang = msgspec.json.Decoder(SGLangAnswer | list[SGLangAnswer]).decode


decode_responses = msgspec.json.Decoder(ResponsesAnswer).decode


decode_anthropic = msgspec.json.Decoder(AnthropicAnswer).decode
