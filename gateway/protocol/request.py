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
from msgspec import UNSET, Raw

from gateway.errors import ClientError, Code
from gateway.protocol.dialect import Dialect
from gateway.protocol.request_wire import (
    RequestFacts,
    StreamOptions,
    decode_chat,
    decode_completion,
    decode_detokenize,
    decode_embedding,
    decode_generate,
    decode_message,
    decode_rerank,
    decode_response,
    decode_tokenize,
)

MAX_COUNT = (1 << 31) - 1
"""Larger token limits, numbers of answers and priorities count as this one here; the engine sees what the client wrote."""


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
        m = decode_chat(body)
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
        options.__class__ is StreamOptions and options.include_usage is True,
        options is not UNSET,
        _priority(m.priority) if m.priority else 0,
    )


def read_completion(body: bytes) -> RequestFacts:
    """Read a text completion request; `prompt` is a string, a list of strings, or token ids."""
    try:
        m = decode_completion(body)
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
        options.__class__ is StreamOptions and options.include_usage is True,
        options is not UNSET,
        _priority(m.priority) if m.priority else 0,
    )


def read_embedding(body: bytes) -> RequestFacts:
    """Read an embeddings request (`input`, or vLLM's `messages`)."""
    try:
        m = decode_embedding(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.input) or bytes(m.messages))


def read_rerank(body: bytes) -> RequestFacts:
    """Read a rerank request: the prompt is the query, then the documents."""
    try:
        m = decode_rerank(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.query) + bytes(m.documents))


def read_response(body: bytes) -> RequestFacts:
    """Read a Responses request: the prompt is the instructions, then the input, whichever order the body has."""
    try:
        m = decode_response(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.instructions) + bytes(m.input), m.stream is True, _count(m.max_output_tokens))


def read_message(body: bytes) -> RequestFacts:
    """Read an Anthropic Messages request: the prompt is the system text, then the messages."""
    try:
        m = decode_message(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.system) + bytes(m.messages), m.stream is True, _count(m.max_tokens))


def read_generate(body: bytes) -> RequestFacts:
    """Read SGLang's native request: `text` or `input_ids`, limits under `sampling_params` (one, or one a prompt)."""
    try:
        m = decode_generate(body)
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
        m = decode_tokenize(body)
    except _BAD as cause:
        _refuse(cause)
    if not body.isascii():
        _check_text(body)
    return RequestFacts(m.model or "", bytes(m.prompt) or bytes(m.messages) or bytes(m.content))


def read_detokenize(body: bytes) -> RequestFacts:
    """Read a detokenize request."""
    try:
        m = decode_detokenize(body)
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
