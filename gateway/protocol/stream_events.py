"""Reads the JSON of one stream event, a function a dialect, into the state of its stream.

Each reader takes the state and the event's data and returns a verdict. The decode is typed and skips what nobody asks for:
the text of a delta is looked at until the first token was seen and never again.

An event that the typed decode refuses is looked at once more by `_second_look`, since an odd field is no broken event and
Python engines write infinities: only what no JSON reader takes breaks a stream.

A reader that found an event to hold nothing but a piece of text, so that it changed nothing in the state, sets `plain`: an
event that differs from it in that text alone need not be read (`sse.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway.protocol.answer import lenient_json
from gateway.protocol.answer_wire import AnthropicUsage, OpenAIUsage, ResponsesUsage, SGLangMeta
from gateway.protocol.event_wire import (
    NOTHING,
    Delta,
    decode_chat,
    decode_generate,
    decode_message,
    decode_response,
    decode_running,
    decode_text,
)
from gateway.protocol.usage import Usage

FORWARD: Final = 0
"""The event goes to the client."""
HIDE: Final = 1
"""The event holds usage alone, which this client did not ask for."""
ERROR: Final = 2
"""The engine's own error event, in a shape that the client's SDK knows: forward it, then the stream is broken."""
BROKEN: Final = 3
"""The event must not be forwarded; the stream is broken."""

_BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
NOT_JSON: Final = "an event that is not JSON"
"""The `broken` of a stream whose last event no JSON reader takes, by identity."""


class StreamState:
    """What is known of a stream so far."""

    __slots__ = (
        "_anthropic", "_choices", "_cleaned", "_finished", "_parts", "_top", "_usage", "broken", "done", "ends_with_done",
        "error_forwarded", "events", "finished", "hide_usage", "marked_done", "plain", "refused", "sequence_number", "token_seen",
    )  # fmt: skip

    def __init__(self, hide_usage: bool, choices: int) -> None:
        self.events = 0
        """Events with data so far."""
        self.token_seen = False
        """An event with a token has come (text, reasoning or a tool call)."""
        self.done = False
        """The dialect's end mark has come."""
        self.finished = False
        """Every choice has its finish reason: the end of the answer where an engine sends no end mark."""
        self.broken: str | None = None
        """Why the stream is broken, in words for a log; None while it is not."""
        self.refused = False
        """The error event that broke it says that the request is wrong (a 4xx), not the engine."""
        self.error_forwarded = False
        """The engine's own error event was forwarded, so that the client needs no second one."""
        self.hide_usage = hide_usage
        self.ends_with_done = True
        """`[DONE]` is this dialect's end mark."""
        self.marked_done = False
        """`[DONE]` has come, whatever it means."""
        self.sequence_number = -1
        """The last event's, in a Responses stream."""
        self.plain = False
        """The last event that was read held text alone and changed nothing here; whoever makes use of it sets it back."""
        self._cleaned = False
        self._usage: OpenAIUsage | ResponsesUsage | SGLangMeta | None = None
        self._anthropic: AnthropicUsage | None = None
        self._parts: dict[int, SGLangMeta] | None = None
        self._choices = choices
        self._top = -1
        self._finished: set[int] | None = None

    @property
    def usage(self) -> Usage | None:
        """The usage as the engine last told it; None while it has not."""
        if self._parts is not None:
            parts = [part.read() for part in self._parts.values()]
            return Usage(sum(p.prompt_tokens for p in parts), sum(p.completion_tokens for p in parts), sum(p.cached_tokens for p in parts))
        found = self._usage if self._usage is not None else self._anthropic
        return None if found is None else found.read()

    def finish_choice(self, index: int) -> None:
        """Note the finish reason of a choice."""
        finished = self._finished
        if finished is None:
            finished = self._finished = set()
        finished.add(index)
        self.finished = len(finished) >= self._choices and len(finished) > self._top


_EMPTY = frozenset((b"", b"null", b'""', b"[]", b"{}"))


def _has(raw: Raw) -> bool:
    return raw is not NOTHING and bytes(raw) not in _EMPTY


def _says_token(delta: Delta) -> bool:
    return (
        _has(delta.content)
        or _has(delta.reasoning_content)
        or _has(delta.reasoning)
        or _has(delta.tool_calls)
        or _has(delta.function_call)
        or _has(delta.refusal)
        or _has(delta.audio)
    )


def read_chat(state: StreamState, data: bytes) -> int:
    """Read a chat completion chunk."""
    if state.token_seen:
        return _read_running(state, data)
    try:
        chunk = decode_chat(data)
    except _BAD:
        return _second_look(state, data, read_chat)
    choices = chunk.choices
    if choices:
        for choice in choices:
            if choice.delta is not None and _says_token(choice.delta):
                state.token_seen = True
            _note_choice(state, choice.index, choice.finish_reason)
    return _end_openai(state, data, choices is None, not choices, chunk.usage, chunk.error)


def read_completion(state: StreamState, data: bytes) -> int:
    """Read a text completion chunk."""
    if state.token_seen:
        return _read_running(state, data)
    try:
        chunk = decode_text(data)
    except _BAD:
        return _second_look(state, data, read_completion)
    choices = chunk.choices
    if choices:
        for choice in choices:
            if _has(choice.text):
                state.token_seen = True
            _note_choice(state, choice.index, choice.finish_reason)
    return _end_openai(state, data, choices is None, not choices, chunk.usage, chunk.error)


def _read_running(state: StreamState, data: bytes) -> int:
    """Read a chunk of either kind after the first token: no delta is looked at."""
    try:
        chunk = decode_running(data)
    except _BAD:
        return _second_look(state, data, _read_running)
    choices = chunk.choices
    if choices:
        plain = True
        for choice in choices:
            if choice.finish_reason or choice.index > state._top:
                plain = False
                _note_choice(state, choice.index, choice.finish_reason)
        if chunk.usage is None and chunk.error is NOTHING:
            state.plain = plain
            return FORWARD
    return _end_openai(state, data, choices is None, not choices, chunk.usage, chunk.error)


def _note_choice(state: StreamState, index: int, finish_reason: str | None) -> None:
    if index > state._top:
        state._top = index
        state.finished = False
    if finish_reason:  # an empty one is some engines' null
        state.finish_choice(index)


def _end_openai(state: StreamState, data: bytes, strange: bool, empty: bool, usage: OpenAIUsage | None, error: Raw) -> int:
    """Judge a chunk by what is common to chat and text completions."""
    if error is not NOTHING and bytes(error) != b"null":
        return _break_off(state, lenient_json(data), ERROR)
    if usage is not None:
        state._usage = usage
        if empty and not strange and state.hide_usage:
            return HIDE
    elif strange and b'"error"' in data:
        return _flat_error(state, data)
    return FORWARD


def _flat_error(state: StreamState, data: bytes) -> int:
    """Tell SGLang's flat error object, which no SDK takes for an error, from an unknown event."""
    found = lenient_json(data)
    if found is not None and isinstance(found[0], dict) and found[0].get("object") == "error":
        return _break_off(state, found, BROKEN)
    return FORWARD


def _break_off(state: StreamState, event: tuple[Any] | None, verdict: int) -> int:
    """Note that an event of the engine ends the stream in an error, and whose fault that is."""
    state.broken = "an error event of the engine"
    error = event[0] if event is not None else None
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    if isinstance(error, dict):
        code = error.get("code")
        if isinstance(code, int):
            state.refused = 400 <= code < 500 and code not in _NEUTRAL
        else:
            state.refused = error.get("type") in _REFUSALS
    return verdict


_NEUTRAL = (408, 429)
"""These say that the engine has no room."""
_REFUSALS = ("invalid_request_error", "not_found_error", "request_too_large")
"""Anthropic's types of errors that are the request's."""


def read_generate(state: StreamState, data: bytes) -> int:
    """Read an event of SGLang's native stream; its text and counts are those of the whole answer so far."""
    try:
        event = decode_generate(data)
    except _BAD:
        return _second_look(state, data, read_generate)
    meta = event.meta_info
    if event.error is not NOTHING and bytes(event.error) != b"null":
        return _break_off(state, lenient_json(data), ERROR)
    if meta is None:
        return _flat_error(state, data) if b'"error"' in data else FORWARD
    if not state.token_seen and (_has(event.text) or _has(event.output_ids)):
        state.token_seen = True
    index = event.index or 0
    if index or state._parts is not None:
        if state._parts is None:
            state._parts = {} if not isinstance(state._usage, SGLangMeta) else {0: state._usage}
        state._parts[index] = meta
    else:
        state._usage = meta
    finish = meta.finish_reason
    _note_choice(state, index, "finish" if _has(finish) else None)
    return FORWARD


def read_message(state: StreamState, data: bytes) -> int:
    """Read an event of an Anthropic Messages stream."""
    try:
        event = decode_message(data)
    except _BAD:
        return _second_look(state, data, read_message)
    kind = event.type
    if kind == "content_block_delta":
        state.plain = state.token_seen
        state.token_seen = True
    elif kind == "message_start":
        if event.message is not None and event.message.usage is not None:
            state._anthropic = event.message.usage
    elif kind == "message_delta":
        if event.usage is not None:
            _merge(state, event.usage)
    elif kind == "message_stop":
        state.done = True
    elif kind == "error":
        return _break_off(state, lenient_json(data), ERROR)
    return FORWARD


def _merge(state: StreamState, new: AnthropicUsage) -> None:
    """Take the counts that a `message_delta` gives (they are cumulative) and keep the others of `message_start`."""
    old = state._anthropic
    if old is not None:
        new = AnthropicUsage(
            old.input_tokens if new.input_tokens is None else new.input_tokens,
            old.output_tokens if new.output_tokens is None else new.output_tokens,
            old.cache_read_input_tokens if new.cache_read_input_tokens is None else new.cache_read_input_tokens,
            old.cache_creation_input_tokens if new.cache_creation_input_tokens is None else new.cache_creation_input_tokens,
        )
    state._anthropic = new


_RESPONSE_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))


def read_response(state: StreamState, data: bytes) -> int:
    """Read an event of a Responses stream."""
    try:
        event = decode_response(data)
    except _BAD:
        return _second_look(state, data, read_response)
    kind = event.type
    if event.sequence_number > state.sequence_number:
        state.sequence_number = event.sequence_number
    if not state.token_seen and kind.endswith(".delta"):
        state.token_seen = True
    elif kind in _RESPONSE_ENDS:
        state.done = True
        if event.response is not None and event.response.usage is not None:
            state._usage = event.response.usage
    elif kind == "error":
        return _break_off(state, lenient_json(data), ERROR)
    return FORWARD


def _second_look(state: StreamState, data: bytes, read: Callable[[StreamState, bytes], int]) -> int:
    """Judge an event that the typed decode refused.

    It is broken if it is no JSON. Where only its numbers are not (NaN, infinities), it is read with those as null; else by
    hand, for its end and errors alone: its content is then unknown, so it counts as a token, since a client that gets it has
    an answer before it.
    """
    if state._cleaned:
        return _by_hand(state, lenient_json(data))
    found = lenient_json(data)
    if found is None:
        state.broken = NOT_JSON
        return BROKEN
    try:
        clean = msgspec.json.encode(found[0])
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError):  # lone surrogates, giant integers
        return _by_hand(state, found)
    state._cleaned = True
    verdict = read(state, clean)
    state._cleaned = state.plain = False
    return verdict


def _by_hand(state: StreamState, found: tuple[Any] | None) -> int:
    """Look for the end marks and errors of an event of unknown shape."""
    state.token_seen = True
    event = found[0] if found is not None else None
    if not isinstance(event, dict):
        return FORWARD
    if event.get("error") is not None or event.get("type") == "error":
        return _break_off(state, found, ERROR)
    if event.get("object") == "error":
        return _break_off(state, found, BROKEN)
    kind = event.get("type")
    if isinstance(kind, str) and (kind == "message_stop" or kind in _RESPONSE_ENDS):
        state.done = True
    choices = event.get("choices")
    for position, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            index = choice.get("index")
            reason = choice.get("finish_reason")
            _note_choice(state, index if isinstance(index, int) else position, None if reason is None else str(reason))
    return FORWARD
