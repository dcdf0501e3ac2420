"""Reads what routing and admission need out of a request body; the body itself goes to the worker untouched.

One typed msgspec decode a request: fields that only the engine needs are checked for syntax and skipped, the prompt is
kept as the JSON bytes that the client sent. What is refused with `invalid_request`, and nothing else is:

1. bytes that are not UTF-8 (RFC 8259, 8.1), a byte order mark, anything that is not one JSON object;
2. a lone surrogate (`"\\ud83d"`), since no engine can tokenize it, and nesting deeper than the interpreter's stack;
3. a routing field of the wrong type, or a number that is none (`1e999`).

Of duplicate keys the last one counts, as in Python's, Go's and JavaScript's readers, so that gateway and engine agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import ClientError, Code
from gateway.protocol.dialect import Dialect

MAX_COUNT = (1 << 31) - 1
"""Larger token limits, numbers of answers and priorities count as this one here; the engine sees what the client wrote."""
_NOTHING = Raw(b"")


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


class _StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class _Chat(Struct, gc=False):
    model: str | None = None
    messages: Raw = _NOTHING
    stream: bool | None = None
    max_tokens: int | float | None = None
    max_completion_tokens: int | float | None = None
    n: int | float | None = None
    stream_options: _StreamOptions | UnsetType | None = UNSET
    priority: Raw = _NOTHING


class _Completion(Struct, gc=False):
    model: str | None = None
    prompt: Raw = _NOTHING
    stream: bool | None = None
    max_tokens: int | float | None = None
    n: int | float | None = None
    stream_options: _StreamOptions | UnsetType | None = UNSET
    priority: Raw = _NOTHING


class _Embedding(Struct, gc=False):
    model: str | None = None
    input: Raw = _NOTHING
    messages: Raw = _NOTHING


class _Rerank(Struct, gc=False):
    model: str | None = None
    query: Raw = _NOTHING
    documents: Raw = _NOTHING


class _Response(Struct, gc=False):
    model: str | None = None
    instructions: Raw = _NOTHING
    input: Raw = _NOTHING
    stream: bool | None = None
    max_output_tokens: int | float | None = None


class _Message(Struct, gc=False):
    model: str | None = None
    system: Raw = _NOTHING
    messages: Raw = _NOTHING
    stream: bool | None = None
    max_tokens: int | float | None = None


class _Sampling(Struct, gc=False):
    max_new_tokens: int | float | None = None
    n: int | float | None = None


class _Generate(Struct, gc=False):
    model: str | None = None
    text: Raw = _NOTHING
    input_ids: Raw = _NOTHING
    stream: bool | None = None
    sampling_params: _Sampling | list[_Sampling] | None = None
    priority: Raw = _NOTHING


class _Tokenize(Struct, gc=False):
    model: str | None = None
    prompt: Raw = _NOTHING
    messages: Raw = _NOTHING
    content: Raw = _NOTHING


class _Detokenize(Struct, gc=False):
    model: str | None = None
    tokens: Raw = _NOTHING


_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_embedding = msgspec.json.Decoder(_Embedding).decode
_decode_rerank = msgspec.json.Decoder(_Rerank).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_generate = msgspec.json.Decoder(_Generate).decode
_decode_tokenize = msgspec.json.Decoder(_Tokenize).decode
_decode_detokenize = msgspec.json.Decoder(_Detokenize).decode

_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_PATH = re.compile(r"`\$\.([^`]*)`$")


def _refuse(cause: Exception) -> NoReturn:
    """Raise the `invalid_request` that names what is wrong with the body and where; it never quotes a value."""
    param = None
    if isinstance(cause, msgspec.ValidationError):
        text = str(cause).replace(" - at ", " at ")
        found = _PATH.search(text)
        param = found.group(1) if found else None
        message = text[:1].lower() + text[1:] if found else f"the body is not a JSON object: {text[:1].lower() + text[1:]}"
    elif isinstance(cause, RecursionError):
        message = "the body is nested too deeply"
    elif isinstance(cause, UnicodeDecodeError):
        message = f"the body is not valid UTF-8 (byte {cause.start})"
    else:
        detail = str(cause).removeprefix("JSON is malformed: ")
        message = f"the body is not valid JSON: {detail[:1].lower() + detail[1:]}"
    raise ClientError(Code.INVALID_REQUEST, message, param=param) from None


def _check_text(body: bytes) -> None:
    """Refuse bytes that are not UTF-8, which the decoder does not look at in members that it skips."""
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as cause:
        _refuse(cause)


def _count(value: int | float | None) -> int:
    return 0 if value is None or value < 0 else MAX_COUNT if value > MAX_COUNT else int(value)


def _priority(raw: Raw) -> int:
    text = bytes(raw)
    if not text or len(text) > 20:
        return 0
    try:
        return max(-MAX_COUNT, min(MAX_COUNT, int(text)))
    except ValueError:
        return 0


def read_chat(body: bytes) -> RequestFacts:
    """Read a chat completion request; `max_completion_tokens` goes before the older `max_tokens`."""
    try:
        m = _decode_chat(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    options = m.stream_options
    limit = m.max_completion_tokens if m.max_completion_tokens is not None else m.max_tokens
    return RequestFacts(
        m.model or "",
        bytes(m.messages),
        m.stream is True,
        0 if limit is None else _count(limit),
        1 if m.n is None else _count(m.n) or 1,
        options.__class__ is _StreamOptions and options.include_usage is True,
        options is not UNSET,
        _priority(m.priority) if m.priority else 0,
    )


def read_completion(body: bytes) -> RequestFacts:
    """Read a text completion request; `prompt` is a string, a list of strings, or token ids."""
    try:
        m = _decode_completion(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    options = m.stream_options
    return RequestFacts(
        m.model or "",
        bytes(m.prompt),
        m.stream is True,
        0 if m.max_tokens is None else _count(m.max_tokens),
        1 if m.n is None else _count(m.n) or 1,
        options.__class__ is _StreamOptions and options.include_usage is True,
        options is not UNSET,
        _priority(m.priority) if m.priority else 0,
    )


def read_embedding(body: bytes) -> RequestFacts:
    """Read an embeddings request (`input`, or vLLM's `messages`)."""
    try:
        m = _decode_embedding(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.input) or bytes(m.messages))


def read_rerank(body: bytes) -> RequestFacts:
    """Read a rerank request: the prompt is the query, then the documents."""
    try:
        m = _decode_rerank(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.query) + bytes(m.documents))


def read_response(body: bytes) -> RequestFacts:
    """Read a Responses request: the prompt is the instructions, then the input, whichever order the body has."""
    try:
        m = _decode_response(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.instructions) + bytes(m.input), m.stream is True, _count(m.max_output_tokens))


def read_message(body: bytes) -> RequestFacts:
    """Read an Anthropic Messages request: the prompt is the system text, then the messages."""
    try:
        m = _decode_message(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.system) + bytes(m.messages), m.stream is True, _count(m.max_tokens))


def read_generate(body: bytes) -> RequestFacts:
    """Read SGLang's native request: `text` or `input_ids`, limits under `sampling_params` (one, or one a prompt)."""
    try:
        m = _decode_generate(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    sampling = m.sampling_params
    if sampling is None:
        limit, n = 0, 1
    elif isinstance(sampling, list):
        limit = max((_count(one.max_new_tokens) for one in sampling), default=0)
        n = max((_count(one.n) for one in sampling), default=1) or 1
    else:
        limit, n = _count(sampling.max_new_tokens), _count(sampling.n) or 1
    prompt = bytes(m.text) or bytes(m.input_ids)
    return RequestFacts(m.model or "", prompt, m.stream is True, limit, n, priority=_priority(m.priority))


def read_tokenize(body: bytes) -> RequestFacts:
    """Read a tokenize request: `prompt`, `messages`, or llama.cpp's `content`."""
    try:
        m = _decode_tokenize(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.prompt) or bytes(m.messages) or bytes(m.content))


def read_detokenize(body: bytes) -> RequestFacts:
    """Read a detokenize request."""
    try:
        m = _decode_detokenize(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.tokens))


READERS: dict[Dialect, Callable[[bytes], RequestFacts]] = {
    Dialect.CHAT: read_chat,
    Dialect.COMPLETIONS: read_completion,
    Dialect.EMBEDDINGS: read_embedding,
    Dialect.RERANK: read_rerank,
    Dialect.RESPONSES: read_response,
    Dialect.MESSAGES: read_message,
    Dialect.GENERATE: read_generate,
    Dialect.TOKENIZE: read_tokenize,
    Dialect.DETOKENIZE: read_detokenize,
}
"""The reader of each dialect. Each raises `ClientError(invalid_request)` and nothing else."""
