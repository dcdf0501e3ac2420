"""The members of request bodies that the gateway reads, a struct a dialect; `request.py` is their only user."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

NOTHING = Raw(b"")


class RequestFacts(Struct, gc=False):
    """What the gateway knows of a request; the same shape for every dialect."""

    model: str
    """As the client wrote it; empty where it named none."""
    prompt: bytes
    """The prompt as raw JSON: two requests that share a beginning share it here too. Empty where there is none."""
    stream: bool = False
    max_tokens: int = 0
    """Most tokens of one answer; 0 where the client set no limit."""
    n: int = 1
    """Answers asked for."""
    include_usage: bool = False
    """The client asked for usage on the stream (`stream_options.include_usage`)."""
    has_stream_options: bool = False
    """The body has a `stream_options` member, be it null."""
    priority: int = 0
    """The body's own `priority` (vLLM, SGLang), 0 where it has none or no integer."""


class StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class Chat(Struct, gc=False):
    model: str | None = None
    messages: Raw = NOTHING
    stream: bool | None = None
    max_tokens: int | float | None = None
    max_completion_tokens: int | float | None = None
    n: int | float | None = None
    stream_options: StreamOptions | UnsetType | None = UNSET
    priority: Raw = NOTHING


class Completion(Struct, gc=False):
    model: str | None = None
    prompt: Raw = NOTHING
    stream: bool | None = None
    max_tokens: int | float | None = None
    n: int | float | None = None
    stream_options: StreamOptions | UnsetType | None = UNSET
    priority: Raw = NOTHING


class Embedding(Struct, gc=False):
    model: str | None = None
    input: Raw = NOTHING
    messages: Raw = NOTHING


class Rerank(Struct, gc=False):
    model: str | None = None
    query: Raw = NOTHING
    documents: Raw = NOTHING


class Response(Struct, gc=False):
    model: str | None = None
    instructions: Raw = NOTHING
    input: Raw = NOTHING
    stream: bool | None = None
    max_output_tokens: int | float | None = None


class Message(Struct, gc=False):
    model: str | None = None
    system: Raw = NOTHING
    messages: Raw = NOTHING
    stream: bool | None = None
    max_tokens: int | float | None = None


class Sampling(Struct, gc=False):
    max_new_tokens: int | float | None = None
    n: int | float | None = None


class Generate(Struct, gc=False):
    model: str | None = None
    text: Raw = NOTHING
    input_ids: Raw = NOTHING
    stream: bool | None = None
    sampling_params: Sampling | list[Sampling] | None = None
    priority: Raw = NOTHING


class Tokenize(Struct, gc=False):
    model: str | None = None
    prompt: Raw = NOTHING
    messages: Raw = NOTHING
    content: Raw = NOTHING


class Detokenize(Struct, gc=False):
    model: str | None = None
    tokens: Raw = NOTHING


decode_chat = msgspec.json.Decoder(Chat).decode


decode_completion = msgspec.json.Decoder(Completion).decode


decode_embedding = msgspec.json.Decoder(Embedding).decode


decode_rerank = msgspec.json.Decoder(Rerank).decode


decode_response = msgspec.json.Decoder(Response).decode


decode_message = msgspec.json.Decoder(Message).decode


decode_generate = msgspec.json.Decoder(Generate).decode


decode_tokenize = msgspec.json.Decoder(Tokenize).decode


decode_detokenize = msgspec.json.Decoder(Detokenize).decode
