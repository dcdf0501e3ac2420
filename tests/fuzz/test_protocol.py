"""Each parser's claim in one sentence, and hypothesis looking for what disproves it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.errors import ClientError, Code, GatewayError
from gateway.protocol.answer import MALFORMED, lenient_json, read_usage
from gateway.protocol.dialect import Dialect
from gateway.protocol.error_body import error_body, error_event
from gateway.protocol.request import MAX_COUNT, READERS
from gateway.protocol.request_id import acceptable, request_id
from gateway.protocol.rewrite import ask_usage, replace_model
from gateway.protocol.sse import StreamScanner
from gateway.protocol.usage import Usage
from tests.support.stream import Outcome, outcome_of

DIALECTS = st.sampled_from(list(Dialect))
STREAMED = st.sampled_from([Dialect.CHAT, Dialect.COMPLETIONS, Dialect.GENERATE, Dialect.MESSAGES, Dialect.RESPONSES])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.sampled_from(
    ["model", "messages", "prompt", "stream", "n", "max_tokens", "stream_options", "include_usage", "priority", "usage", "x", "ü", ""]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | TEXT, inner, max_size=4), max_leaves=12)
OBJECTS = st.dictionaries(KEYS | TEXT, VALUES, max_size=6)


def written(value: Any, data: st.DataObject) -> bytes:
    """JSON in one of the ways in which clients write it."""
    ascii_only, indent = data.draw(st.booleans()), data.draw(st.sampled_from([None, 1]))
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\n:")]))
    return json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators).encode()


# -- requests ---------------------------------------------------------------------------------------------------------


@given(DIALECTS, st.binary(max_size=200) | OBJECTS.map(lambda value: json.dumps(value).encode()), st.data())
@example(Dialect.CHAT, b'{"n":1e999}', None)
def test_readers_raise_invalid_request_alone(dialect: Dialect, body: bytes, data: Any) -> None:
    """Whatever the bytes, a reader returns facts within their bounds or raises ClientError(invalid_request)."""
    if data is not None and body:
        at = data.draw(st.integers(0, len(body) - 1))
        body = body[:at] + data.draw(st.binary(max_size=2)) + body[at + data.draw(st.integers(0, 2)) :]
    try:
        facts = READERS[dialect](body)
    except ClientError as error:
        assert error.code is Code.INVALID_REQUEST and error.message[0].islower()
        return
    assert 0 <= facts.max_tokens <= MAX_COUNT and 1 <= facts.n <= MAX_COUNT and abs(facts.priority) <= MAX_COUNT
    assert isinstance(json.loads(body), dict), "what a reader takes every JSON reader takes"


@given(OBJECTS, st.data())
def test_facts_are_what_json_says(value: dict[str, Any], data: st.DataObject) -> None:
    """A chat request's facts are those of the same body under Python's own reader."""
    body = written(value, data)
    try:
        facts = READERS[Dialect.CHAT](body)
    except ClientError:
        options = value.get("stream_options")
        assert any(
            (
                not isinstance(value.get("model"), str | None),
                not isinstance(value.get("stream"), bool | None),
                any(isinstance(value.get(name), str | bool | list | dict) for name in ("n", "max_tokens", "max_completion_tokens")),
                not isinstance(options, dict | None),
                isinstance(options, dict) and not isinstance(options.get("include_usage"), bool | None),
            )
        )
        return
    assert facts.model == (value.get("model") or "")
    assert facts.stream is (value.get("stream") is True)
    assert facts.has_stream_options is ("stream_options" in value)
    assert json.loads(facts.prompt or b"null") == value.get("messages")
    assert not facts.prompt or facts.prompt in body


@given(DIALECTS, OBJECTS)
def test_readers_forget_nothing_between_calls(dialect: Dialect, value: dict[str, Any]) -> None:
    """Reading twice gives the same facts or the same refusal."""
    body = json.dumps(value).encode()
    found = []
    for _ in range(2):
        try:
            found.append(repr(READERS[dialect](body)))
        except ClientError as error:
            found.append(error.message)
    assert found[0] == found[1]


# -- rewriting --------------------------------------------------------------------------------------------------------


def accepted(body: bytes) -> bool:
    try:
        READERS[Dialect.CHAT](body)
    except ClientError:
        return False
    return True


@given(OBJECTS, st.data())
def test_asking_for_usage_changes_nothing_else(value: dict[str, Any], data: st.DataObject) -> None:
    """Of a body that a reader took, `ask_usage` changes include_usage alone, and without the member it inserts bytes alone."""
    body = written(value, data)
    assume(accepted(body))
    after = ask_usage(body, READERS[Dialect.CHAT](body).has_stream_options)
    assert after == ask_usage(body)
    expected = value | {"stream_options": (value.get("stream_options") or {}) | {"include_usage": True}}
    assert json.loads(after) == expected
    if "stream_options" not in value:
        at = body.index(b"{") + 1
        assert after.startswith(body[:at]) and after.endswith(body[at:])
    assert READERS[Dialect.CHAT](after).include_usage


@given(OBJECTS, TEXT, st.data())
def test_replacing_the_model_changes_nothing_else(value: dict[str, Any], name: str, data: st.DataObject) -> None:
    """Of a body that a reader took, `replace_model` changes the model alone, and keeps the order."""
    body = written(value, data)
    assume(accepted(body))
    after = json.loads(replace_model(body, name))
    assert after == value | {"model": name}
    assert [key for key in after if key != "model"] == [key for key in value if key != "model"]


# -- ids and errors ---------------------------------------------------------------------------------------------------


@given(st.binary(max_size=140) | st.none(), DIALECTS | st.none())
def test_ids_are_safe_in_headers(value: bytes | None, dialect: Dialect | None) -> None:
    """Whatever a client brings, the id in use is 1 to 128 bytes of visible ASCII."""
    found = request_id(dialect, value)
    assert acceptable(found) and all(0x21 <= byte <= 0x7E for byte in found)


@given(DIALECTS, st.text(), st.binary(max_size=20), st.sampled_from(list(Code)), st.integers(0, 2**40))
def test_errors_are_one_event(dialect: Dialect, message: str, rid: bytes, code: Code, number: int) -> None:
    """Whatever its message, an error is one JSON object on one line, and as an event breaks a scanner of its dialect."""
    assume(not any(0xD800 <= ord(letter) < 0xE000 for letter in message))
    error = GatewayError(code, message)
    assert isinstance(json.loads(error_body(dialect, error, rid)), dict) and b"\n" not in error_body(dialect, error, rid)
    scanner = StreamScanner(dialect)
    event = error_event(dialect, error, rid, number)
    assert scanner.feed(event) == event and scanner.error_forwarded and scanner.broken is not None and scanner.events == 1


# -- whole answers ----------------------------------------------------------------------------------------------------


@given(DIALECTS, st.binary(max_size=100) | st.builds(lambda value: json.dumps(value).encode(), VALUES))
def test_read_usage_raises_nothing(dialect: Dialect, body: bytes) -> None:
    """Any bytes give a usage, None, or MALFORMED, and MALFORMED exactly for what Python's own reader refuses."""
    found = read_usage(dialect, body)
    assert found is None or isinstance(found, Usage)
    assert (found is MALFORMED) is (lenient_json(body.removeprefix(b"\xef\xbb\xbf")) is None)
    if found is not None and found is not MALFORMED:
        assert found.prompt_tokens >= 0 and found.completion_tokens >= 0 and found.cached_tokens >= 0


COUNTS = st.none() | st.integers(0, 2**53)


@given(COUNTS, COUNTS, st.lists(st.floats(), max_size=4), OBJECTS)
def test_usage_is_found_beside_anything(prompt: int | None, completion: int | None, logprobs: list[float], more: dict[str, Any]) -> None:
    """Counts are read whatever else an answer holds, infinities and NaN included."""
    body = more | {"logprobs": logprobs, "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}
    assert read_usage(Dialect.CHAT, json.dumps(body).encode()) == Usage(prompt or 0, completion or 0)


# -- streams ----------------------------------------------------------------------------------------------------------

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
REASONS = st.sampled_from([None, None, None, None, "stop", "length", ""])
PIECES_OF_TEXT = st.sampled_from(["a", " b", "ü", '"', "\\", "\n", "", "\x7f", '","usage":{}', "é" * 20, "{}", "\u2028"])


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    """The data of one event, as engines write it, or nearly so."""
    kind = draw(st.integers(0, 13))
    text = draw(PIECES_OF_TEXT)
    index = draw(st.sampled_from([0, 0, 0, 0, 1]))
    reason = draw(REASONS)
    body: Any
    if kind < 6:
        body = {"id": "c", "choices": [{"index": index, "delta": {"content": text}, "text": text, "finish_reason": reason}]}
    elif kind == 6:
        body = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": draw(st.integers(0, 9))}}
    elif kind == 7:
        body = {
            "type": draw(st.sampled_from(["content_block_delta", "message_stop", "ping", "message_delta", "response.completed"])),
            "text": text,
        }
    elif kind == 8:
        body = {"index": index, "text": text, "meta_info": {"completion_tokens": 2, "finish_reason": reason}}
    elif kind == 9:
        body = draw(st.sampled_from([{"error": {"message": text}}, {"object": "error", "message": text}, {"type": "error"}]))
    elif kind == 10:
        body = draw(VALUES)
    elif kind == 11:
        return draw(st.sampled_from([b"[DONE]", b"[DONE] ", b"{", b"hello", b'{"a":NaN}', b'{"a":"\\ud83d"}', b'{"choices":"x"}', b""]))
    elif kind == 12:
        return draw(st.binary(max_size=8)).replace(b"\n", b"").replace(b"\r", b"")
    else:
        body = {"type": "response.output_text.delta", "sequence_number": draw(st.integers(0, 99)), "delta": text}
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    return json.dumps(body, separators=separators, ensure_ascii=draw(st.booleans())).encode()


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """One event in some form."""
    end = draw(st.sampled_from([b"\n", b"\n", b"\n", b"\n", b"\r\n", b"\r"]))
    data = draw(chunks())
    form = draw(st.integers(0, 9))
    if form < 6:
        lines = [b"data: " + data]
    elif form == 6:
        lines = [b"event: " + draw(st.sampled_from([b"x", b"error", b"content_block_delta"])), b"data: " + data]
    elif form == 7:
        lines = [b"data:" + data, draw(st.sampled_from([b": c", b"id: 1", b"event: y", b"junk", b"data: "]))]
    elif form == 8:
        lines = [b": comment"]
    else:
        at = draw(st.integers(0, len(data)))
        lines = [b"data: " + data[:at], b"data: " + data[at:]]
    return end.join(lines) + end + draw(LINE_ENDS | st.just(end)) + draw(st.sampled_from([b"", b"", b"", b"\n", b"\r\n\n"]))


STREAM = st.lists(events(), max_size=8).map(b"".join) | st.binary(max_size=60)


def fed(scanner: StreamScanner, parts: list[bytes], *, finish: bool = True) -> Outcome:
    """What comes of a stream in pieces.

    Where an error event of the engine ended it, and its last CRLF was cut in two, the LF is left behind: the CR was a line end.
    """
    out = b"".join(scanner.feed(part) for part in parts) + (scanner.finish() if finish else b"")
    if scanner.error_forwarded and out.endswith(b"\r\n"):
        out = out[:-1]
    return outcome_of(scanner, out)


def cut(wire: bytes, data: st.DataObject) -> list[bytes]:
    at = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    return [wire[a:b] for a, b in zip([0, *at], [*at, len(wire)], strict=True)]


@settings(max_examples=600)
@given(STREAMED, STREAM, st.booleans(), st.integers(1, 2), st.sampled_from([40, 90, 1 << 20]), st.data())
def test_any_split_of_a_stream_is_the_same_stream(
    dialect: Dialect, wire: bytes, hide: bool, choices: int, limit: int, data: st.DataObject
) -> None:
    """However a stream is cut, the same bytes are forwarded, with the same verdict, at the end and at every cut event."""

    def new() -> StreamScanner:
        return StreamScanner(dialect, hide_usage=hide, choices=choices, max_event_bytes=limit)

    tail = data.draw(st.sampled_from([b"", b"data: [DONE]", b"data: {", b'data: {"a":1}\n']))
    wire += tail
    whole = fed(new(), [wire])
    assert fed(new(), cut(wire, data)) == whole
    assert fed(new(), [wire[at : at + 1] for at in range(len(wire))]) == whole
    by_event = wire.replace(b"\n\n", b"\n\n\x00").split(b"\x00") if b"\x00" not in wire else [wire]
    assert fed(new(), by_event) == whole


@settings(max_examples=300)
@given(STREAMED, STREAM, st.data())
def test_what_is_forwarded_is_what_came(dialect: Dialect, wire: bytes, data: st.DataObject) -> None:
    """An unbroken stream passes byte for byte; a broken one up to an event's end; nothing is ever made up."""
    scanner = StreamScanner(dialect)
    out = b"".join(scanner.feed(part) for part in cut(wire, data))
    assert wire.startswith(out)
    if scanner.broken is None:
        assert out + bytes(scanner._held) == wire
    elif out and not out.endswith((b"\n\n", b"\r\r", b"\n\r", b"\r\n")):
        raise AssertionError("forwarded a part of an event")
    if scanner.broken is None:
        last = scanner.finish()
        assert (out + last).startswith(wire) or out + last == out or scanner.broken is not None


@settings(max_examples=300)
@given(
    st.sampled_from([Dialect.CHAT, Dialect.COMPLETIONS, Dialect.MESSAGES]),
    st.lists(chunks(), min_size=2, max_size=12),
    st.booleans(),
    st.data(),
)
def test_the_short_cut_changes_nothing(dialect: Dialect, payloads: list[bytes], hide: bool, data: st.DataObject) -> None:
    """With every event decoded the outcome is the same as with plain events forwarded undecoded."""
    opening = b"event: content_block_delta\ndata: " if dialect is Dialect.MESSAGES else b"data: "
    plain = data.draw(chunks())
    stream = [opening + payload + b"\n\n" for pair in payloads for payload in (plain, pair, plain)]
    assume(all(b"\r" not in event for event in stream))
    quick, slow = StreamScanner(dialect, hide_usage=hide), StreamScanner(dialect, hide_usage=hide)
    for event in stream:
        slow._misses = 1 << 30  # takes no template
        slow.plain = False
        assert quick.feed(event) == slow.feed(event)
        assert outcome_of(quick, b"") == outcome_of(slow, b"")


SKELETON = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'


@settings(max_examples=500)
@given(st.binary(max_size=12) | st.text('a"\\/bu0d8\n{},:', max_size=12).map(str.encode))
@example(b"\\")
@example(b'"')
@example(b'","finish_reason":"stop')
@example(b"\\ud83d")
def test_the_short_cut_takes_no_broken_text(text: bytes) -> None:
    """An event is forwarded undecoded only if its text is the inside of a JSON string: else it is judged as ever."""
    event = SKELETON % text
    assume(b"\n\n" not in text and b"\r" not in text)
    quick, slow = StreamScanner(Dialect.CHAT), StreamScanner(Dialect.CHAT)
    quick.feed(SKELETON % b"a")
    quick.feed(SKELETON % b"b")
    slow.feed(SKELETON % b"a")
    slow.feed((SKELETON % b"b").replace(b":", b": "))
    slow._prefix = b"\x00"
    assert quick.feed(event) == slow.feed(event)
    assert outcome_of(quick, b"") == outcome_of(slow, b"")


@given(STREAMED, st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 80))
def test_what_is_held_is_bounded(dialect: Dialect, parts: list[bytes], limit: int) -> None:
    """Whatever comes, no more than the bound is held, and `feed` and `finish` raise nothing."""
    scanner = StreamScanner(dialect, max_event_bytes=limit)
    for part in parts:
        scanner.feed(part)
        assert len(scanner._held) <= limit
    scanner.finish()
    assert scanner.usage is None or isinstance(scanner.usage, Usage)


@pytest.mark.parametrize("depth", [10, 500, 5_000, 200_000])
@pytest.mark.parametrize("dialect", list(Dialect))
def test_nesting(dialect: Dialect, depth: int) -> None:
    """No depth of nesting does more harm than a refusal, a broken stream or a malformed answer."""
    body = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    try:
        READERS[dialect](body)
    except ClientError as error:
        assert error.code is Code.INVALID_REQUEST
    assert read_usage(dialect, body) in (None, MALFORMED)
    scanner = StreamScanner(dialect)
    assert scanner.feed(b"data: " + body + b"\n\n") in (b"", b"data: " + body + b"\n\n")
