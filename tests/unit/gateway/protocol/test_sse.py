"""A stream is forwarded byte for byte, in whole events, until it breaks; how it was cut into pieces never matters."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from gateway.protocol.dialect import Dialect
from gateway.protocol.sse import MAX_EVENT_BYTES, MAX_WHOLE_EVENT_BYTES, StreamScanner
from gateway.protocol.usage import Usage
from tests.support.stream import STEPS, outcome_of, pieces, scan, scan_all
from tests.support.wire import load

DONE = b"data: [DONE]\n\n"


def chunk(text: str | None = "x", finish: str | None = None, index: int = 0, **more: object) -> bytes:
    delta = {} if text is None else {"content": text}
    body = {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


ROLE = chunk("", role=1)
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
END = chunk(None, "stop")


# -- recordings -------------------------------------------------------------------------------------------------------

VLLM, SGLANG, LLAMA, TRANSFORMERS = "vllm-0.32-http", "sglang-0.5.23-http", "llamacpp-http", "transformers-serve-5.19"
STREAMS = [
    (VLLM, "chat-stream", Dialect.CHAT, True, Usage(14, 4)),
    (VLLM, "tool-named-stream", Dialect.CHAT, True, None),
    (VLLM, "completions-stream", Dialect.COMPLETIONS, True, Usage(2, 4)),
    (VLLM, "messages-stream", Dialect.MESSAGES, True, Usage(12, 5)),
    (SGLANG, "chat-stream", Dialect.CHAT, True, Usage(14, 4)),
    (SGLANG, "tool-named-stream", Dialect.CHAT, True, None),
    (SGLANG, "completions-stream", Dialect.COMPLETIONS, True, Usage(2, 4)),
    (SGLANG, "messages-stream", Dialect.MESSAGES, True, Usage(12, 5)),
    (SGLANG, "generate-stream", Dialect.GENERATE, True, Usage(2, 3, 1)),
    (LLAMA, "chat-stream", Dialect.CHAT, True, Usage(14, 4, 13)),
    (LLAMA, "tool-named-stream", Dialect.CHAT, True, None),
    (LLAMA, "completions-stream", Dialect.COMPLETIONS, True, None),
    (LLAMA, "messages-stream", Dialect.MESSAGES, True, None),
    (TRANSFORMERS, "chat-stream", Dialect.CHAT, False, Usage(14, 4)),
    (TRANSFORMERS, "tool-named-stream", Dialect.CHAT, False, Usage(179, 100)),
    (TRANSFORMERS, "completions-stream", Dialect.COMPLETIONS, False, Usage(2, 4)),
]


@pytest.mark.parametrize(("engine", "name", "dialect", "done", "usage"), STREAMS)
def test_recorded_streams(engine: str, name: str, dialect: Dialect, done: bool, usage: Usage | None) -> None:
    """A real engine's stream passes byte for byte, is complete, with its usage; `transformers serve` sends no end mark."""
    wire = load(engine, name).body
    found = scan_all(dialect, wire)
    assert found.out == wire
    assert found.complete and found.done is done and found.token_seen and found.broken is None
    assert found.finished or dialect is Dialect.MESSAGES
    if usage is not None:
        assert found.usage == usage
    assert found.events == sum(line.startswith(b"data:") for line in wire.splitlines())


@pytest.mark.parametrize(("engine", "name", "dialect", "done", "usage"), STREAMS)
def test_recorded_streams_cut_short(engine: str, name: str, dialect: Dialect, done: bool, usage: Usage | None) -> None:
    """Cut anywhere before its end, a real stream is never complete, and what was forwarded is whole events of it."""
    wire = load(engine, name).body
    events = pieces(wire, -1)
    for count, event in enumerate(events):
        before = b"".join(events[:count])
        for inside in (1, 5, 6, len(event) // 2, len(event) - 4):
            found = scan(dialect, [before, event[:inside]])
            assert found.out == before and not found.complete, (count, inside)
        for inside in (len(event) - 2, len(event) - 1):  # whole but for its line ends
            found = scan(dialect, [before, event[:inside]])
            assert found.complete is scan(dialect, [before, event]).complete
            assert found.out == before + (event[:inside] if found.complete else event)


@pytest.mark.parametrize(
    ("engine", "name", "dialect"), [(e, n, d) for e, n, d, *_ in STREAMS if n in ("chat-stream", "completions-stream")]
)
def test_the_usage_chunk_is_hidden(engine: str, name: str, dialect: Dialect) -> None:
    """Where usage was asked for by the gateway alone the chunk that holds nothing else is dropped, and no other."""
    wire = load(engine, name).body
    found = scan_all(dialect, wire, hide_usage=True)
    alone = [event for event in pieces(wire, -1) if b'"choices":[]' in event]
    assert len(alone) == (0 if engine == TRANSFORMERS else 1 if b'"choices":[]' in wire else 0)
    assert found.out == wire.replace(alone[0], b"") if alone else found.out == wire
    assert found.complete and found.usage == scan(dialect, [wire]).usage


def test_a_recorded_stream_that_never_ended() -> None:
    """`transformers serve` broke off a Responses stream after two events: that is no success."""
    wire = load(TRANSFORMERS, "responses").body
    found = scan_all(Dialect.RESPONSES, wire)
    assert not found.complete and not found.token_seen and found.sequence_number == 1 and found.broken is None


@pytest.mark.parametrize("engine", [VLLM, SGLANG, LLAMA])
def test_finish_in_the_recordings(engine: str) -> None:
    """A stream is finished with the chunk of the finish reason, be it the last token's (vLLM) or its own (SGLang, llama.cpp)."""
    scanner = StreamScanner(Dialect.CHAT)
    for event in pieces(load(engine, "chat-stream").body, -1):
        before = scanner.finished
        scanner.feed(event)
        has_reason = b'"finish_reason":"' in event
        assert scanner.finished is (before or has_reason)
        if has_reason:
            assert (b'"content":"' in event) is (engine == VLLM)


@pytest.mark.parametrize("engine", [VLLM, SGLANG, LLAMA, TRANSFORMERS])
def test_the_first_token_in_the_recordings(engine: str) -> None:
    """The first chunk names the role, with content empty, null or absent: it is no token; the second is."""
    scanner = StreamScanner(Dialect.CHAT)
    first, second, *_ = pieces(load(engine, "chat-stream").body, -1)
    scanner.feed(first)
    assert not scanner.token_seen
    scanner.feed(second)
    assert scanner.token_seen


# -- line forms -------------------------------------------------------------------------------------------------------

FORMS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("lf", lambda wire: wire),
    ("crlf", lambda wire: wire.replace(b"\n", b"\r\n")),
    ("cr", lambda wire: wire.replace(b"\n", b"\r")),
    ("lf, then crlf", lambda wire: wire.replace(b"\n\n", b"\n\r\n")),
    ("crlf, then lf", lambda wire: wire.replace(b"\n\n", b"\r\n\n")),
    ("cr, then crlf", lambda wire: wire.replace(b"\n\n", b"\r\r\n")),
    ("three line ends", lambda wire: wire.replace(b"\n\n", b"\n\n\n")),
    ("four line ends", lambda wire: b"\n\n" + wire.replace(b"\n\n", b"\n\n\n\n")),
    ("no space", lambda wire: wire.replace(b"data: ", b"data:")),
    ("ids", lambda wire: wire.replace(b"data: ", b"id: 1\nretry: 5\ndata: ")),
    ("comments", lambda wire: b": hello\n\n" + wire.replace(b"data: ", b": ping\ndata: ")),
    ("unknown fields", lambda wire: wire.replace(b"data: ", b"x\ny: z\ndata: ")),
    ("names", lambda wire: wire.replace(b"data: ", b"event: message\ndata: ")),
    ("name behind", lambda wire: wire.replace(b"\n\n", b"\nevent: message\n\n")),
    ("two data lines", lambda wire: wire.replace(b'"choices"', b'\ndata: "choices"')),
]


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize(("name", "form"), FORMS, ids=[name for name, _ in FORMS])
def test_forms(name: str, form: Callable[[bytes], bytes], hide: bool) -> None:
    """Every form of line that the standard allows is understood, and forwarded as it came."""
    before, after = form(ROLE + chunk("a") + chunk("b") + END), form(DONE)
    usage = form(USAGE)
    wire = before + usage + after
    found = scan_all(Dialect.CHAT, wire, hide_usage=hide)
    assert found.complete and found.done and found.token_seen and found.usage == Usage(3, 2) and found.broken is None
    assert found.events == 6
    if not hide:
        assert found.out == wire
    else:
        assert b"usage" not in found.out
        plain = found.out.replace(b"\r", b"\n").replace(b"\n", b"")
        assert plain == (before + after).replace(b"\r", b"\n").replace(b"\n", b"") or name in ("ids", "comments")


def test_a_byte_order_mark() -> None:
    """One at the very beginning is skipped as the standard says, and forwarded; any other is a letter of a field's name."""
    found = scan_all(Dialect.CHAT, b"\xef\xbb\xbf" + chunk() + END + DONE)
    assert found.complete and found.events == 3 and found.out == b"\xef\xbb\xbf" + chunk() + END + DONE
    assert scan_all(Dialect.CHAT, chunk() + b"\xef\xbb\xbf" + END + DONE).events == 2


def test_a_hidden_event_takes_its_whole_line_end_along() -> None:
    """The LF of a CRLF that was cut off is no line end of its own."""
    wire = USAGE.replace(b"\n", b"\r\n")
    for step in STEPS:
        found = scan(Dialect.CHAT, pieces(wire + chunk(), step), hide_usage=True)
        assert found.out == chunk()
    scanner = StreamScanner(Dialect.CHAT, hide_usage=True)
    assert scanner.feed(wire[:-1]) == b"" and scanner.feed(chunk()) == chunk() and scanner.feed(b"\n") == b"\n"


@pytest.mark.parametrize("last", [b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n", b"data:[DONE]  \n"])
def test_a_last_line_without_its_blank_line(last: bytes) -> None:
    """An end mark counts though the server saved the blank line; it is forwarded as it is."""
    found = scan_all(Dialect.CHAT, chunk() + last)
    assert found.out == chunk() + last and found.complete and found.done


def test_an_event_that_is_whole_but_for_its_blank_line() -> None:
    """It is forwarded at the end; an incomplete stream gets the line ends that an error event needs before it."""
    found = scan_all(Dialect.CHAT, chunk() + chunk("b")[:-2])
    assert found.out == chunk() + chunk("b") and not found.complete
    found = scan_all(Dialect.CHAT, chunk() + chunk("b")[:-1])
    assert found.out == chunk() + chunk("b") and not found.complete
    found = scan_all(Dialect.CHAT, chunk() + END[:-2])
    assert found.out == chunk() + END[:-2] and found.complete


@pytest.mark.parametrize("tail", [b"d", b"data", b"data:", b"data: {", b'data: {"choices":[{"fin', b"data: [DON", b"event: x", b"id: 1\n"])
@pytest.mark.parametrize("before", [b"", chunk(), chunk() + END, chunk() + DONE])
def test_a_truncated_event_reaches_nobody(tail: bytes, before: bytes) -> None:
    """What is cut inside an event is not forwarded, and the stream is not complete even if it was finished before."""
    found = scan_all(Dialect.CHAT, before + tail)
    assert found.out == before and not found.complete and found.broken is None
    assert found.events == before.count(b"data:")


def test_a_comment_at_the_end() -> None:
    """A comment that lacks its blank line is no truncated event."""
    found = scan_all(Dialect.CHAT, chunk() + DONE + b": bye")
    assert found.complete and found.out == chunk() + DONE + b": bye"


# -- breaks -----------------------------------------------------------------------------------------------------------

BROKEN = [
    b"data: {broken\n\n",
    b"data: {}}\n\n",
    b'data: {"choices":[{"index":0,"delta":{"content":"a\tb"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"\\q"},"finish_reason":null}]}\n\n',
    b"data: hello\n\n",
    b"data: <html>\n\n",
    b"event: x\ndata: {\n\n",
    b'data: {"choices":[]\n\n',
]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("event", BROKEN)
@pytest.mark.parametrize("dialect", [Dialect.CHAT, Dialect.COMPLETIONS, Dialect.GENERATE, Dialect.MESSAGES, Dialect.RESPONSES])
def test_an_event_that_is_not_json(dialect: Dialect, event: bytes, several: bool) -> None:
    """It is dropped with all that follows; what came before stays."""
    before = b"" if not several else b": a\n\n: b\n\n"
    found = scan_all(dialect, before + event + chunk() + DONE)
    assert found.out == before and found.broken == "an event that is not JSON"
    assert not found.complete and not found.error_forwarded


def test_nothing_follows_a_break() -> None:
    """After a break the scanner gives nothing, not even of what it held."""
    scanner = StreamScanner(Dialect.CHAT)
    assert scanner.feed(chunk() + b"data: {\n\n") == chunk()
    for data in (chunk(), b"data: x", DONE, b"\r\n\r\n", b""):
        assert scanner.feed(data) == b""
    assert scanner.finish() == b"" and not scanner.complete and scanner.events == 2 and scanner.at_boundary


ERRORS = [
    (Dialect.CHAT, b'data: {"error":{"message":"x","code":500}}\n\n', True),
    (Dialect.CHAT, b'data: {"error":"x"}\n\n', True),
    (Dialect.CHAT, b'data: {"error": {"object":"error","message":"x"}}\n\n', True),
    (Dialect.CHAT, b'data: {"choices":[],"error":{"message":"x"}}\n\n', True),
    (Dialect.CHAT, b'error: {"code":500,"message":"x"}\n\n', True),
    (Dialect.CHAT, b'event: error\ndata: {"message":"x"}\n\n', True),
    (Dialect.CHAT, b'data: {"object":"error","message":"x","type":"y","param":null,"code":400}\n\n', False),
    (Dialect.CHAT, b'data: {"object": "error", "message": "x"}\n\n', False),
    (Dialect.COMPLETIONS, b'data: {"error":{"message":"x"}}\n\n', True),
    (Dialect.COMPLETIONS, b'data: {"object":"error","message":"x"}\n\n', False),
    (Dialect.GENERATE, b'data: {"error":{"message":"x"}}\n\n', True),
    (Dialect.GENERATE, b'data: {"object":"error","message":"x"}\n\n', False),
    (Dialect.MESSAGES, b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n', True),
    (Dialect.MESSAGES, b'data: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n', False),
    (Dialect.RESPONSES, b'event: error\ndata: {"type":"error","message":"x","sequence_number":4}\n\n', True),
    (Dialect.CHAT, b'data: {"error":{"message":"x"},"n":NaN}\n\n', True),
]


@pytest.mark.parametrize(("dialect", "event", "forwarded"), ERRORS)
def test_the_engines_own_error_events(dialect: Dialect, event: bytes, forwarded: bool) -> None:
    """An error event breaks the stream; it is forwarded where the client's SDK takes it for one, else the gateway says it."""
    before = b": ping\n\n"
    for started in (before, before + chunk() if dialect is Dialect.CHAT else before):
        found = scan_all(dialect, started + event + DONE)
        assert found.broken == "an error event of the engine" and not found.complete
        assert found.error_forwarded is forwarded
        assert found.out == (started + event if forwarded else started)


def test_an_error_without_its_blank_line() -> None:
    """An error event at the very end counts like any other, and is closed."""
    found = scan_all(Dialect.CHAT, chunk() + b'data: {"error":{"message":"x"}}')
    assert found.broken and found.error_forwarded and found.out.endswith(b'"x"}}\n\n')
    found = scan_all(Dialect.CHAT, chunk() + b'data: {"object":"error","message":"x"}\n')
    assert found.broken and not found.error_forwarded and found.out == chunk()


def test_an_error_that_is_null() -> None:
    """A null error is none."""
    assert scan_all(Dialect.CHAT, chunk(error=None) + END + DONE).complete
    assert scan_all(Dialect.GENERATE, b'data: {"error":null,"meta_info":{"finish_reason":{"type":"stop"}}}\n\n').complete


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_what_is_held_is_bounded() -> None:
    """An event without end breaks the stream before it fills the memory."""
    scanner = StreamScanner(Dialect.CHAT)
    fed = 0
    while scanner.broken is None:
        assert scanner.feed(b"data: " if not fed else b"x" * 10_000) == b""
        fed += 10_000
        assert fed < MAX_EVENT_BYTES + 50_000
    assert scanner.broken == f"an event of more than {MAX_EVENT_BYTES} bytes" and scanner.at_boundary


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("before", [b"", chunk("a"), chunk("a") + chunk("b")])
def test_the_bound_is_exact(extra: int, before: bytes) -> None:
    """An event of the largest size passes, one byte more breaks, whether it comes in one piece or in many."""
    size = 300
    event = chunk("x" * (size - len(chunk("")) + extra))
    assert len(event) == size + extra
    found = scan_all(Dialect.CHAT, before + event, max_event_bytes=size)
    assert found.out == before + (b"" if extra else event)
    assert (found.broken is not None) is bool(extra)


@pytest.mark.parametrize(
    ("dialect", "limit"),
    [
        (Dialect.CHAT, MAX_EVENT_BYTES),
        (Dialect.MESSAGES, MAX_EVENT_BYTES),
        (Dialect.RESPONSES, MAX_WHOLE_EVENT_BYTES),
        (Dialect.GENERATE, MAX_WHOLE_EVENT_BYTES),
    ],
)
def test_default_bounds(dialect: Dialect, limit: int) -> None:
    """Dialects whose events repeat the whole answer may send larger ones."""
    assert StreamScanner(dialect).max_event_bytes == limit


def test_a_long_event_is_searched_once() -> None:
    """The time for an event in many pieces grows with its size, not with its square: each byte is searched a few times."""
    event = chunk("x" * 200_000)
    scanner = StreamScanner(Dialect.CHAT)
    for piece in pieces(event, 50)[:-1]:
        scanner.feed(piece)
        assert scanner._searched >= len(scanner._held) - 3
    assert scanner.feed(pieces(event, 50)[-1]) == event


# -- the short cut for text -------------------------------------------------------------------------------------------


def slow(dialect: Dialect, wire: bytes) -> object:
    """The outcome without short cuts: every event is held once and decoded."""
    scanner = StreamScanner(dialect)
    out = b""
    for event in pieces(wire, -1):
        out += scanner.feed(event[:1]) + scanner.feed(event[1:])
    return outcome_of(scanner, out + scanner.finish())


TEXTS = ["a", "", " word", "ü🚀", 'a"b', "a\\b", "a\nb", "\u2028", "\x7f", '","finish_reason":"stop', "}]}", "\\", '\\"', "\ud83d"]


def test_events_that_differ_in_their_text_alone() -> None:
    """After the first of them they are forwarded undecoded, with the same outcome."""
    wire = ROLE + b"".join(chunk(text) for text in TEXTS * 3) + END + USAGE + DONE
    found = scan(Dialect.CHAT, pieces(wire, -1))
    assert found == slow(Dialect.CHAT, wire) == scan_all(Dialect.CHAT, wire)
    assert found.out == wire and found.complete


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a\tb"},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a\\"},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"b"},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"\\x"},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"\\u12"},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"},"finish_reason":null}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"\x00"},"finish_reason":null}]}\n\n',
    ],
)
def test_broken_text_is_seen_by_the_short_cut(event: bytes) -> None:
    """An event that fits the one before but for broken text is no JSON, and breaks the stream."""
    good = chunk("a")
    assert event.startswith(good[:58]) and event.endswith(good[-20:])
    for dialect_wire in (good + good + event, good * 5 + event):
        found = scan_all(Dialect.CHAT, dialect_wire + DONE)
        assert found.broken == "an event that is not JSON" and found.out == dialect_wire[: -len(event)]


@pytest.mark.parametrize(
    "event",
    [
        chunk("a", "stop"),
        chunk("a", usage={"prompt_tokens": 3, "completion_tokens": 2}),
        chunk("a", error={"message": "x"}),
        chunk("a", index=1),
        chunk('","x":"'),
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop","x":{"content":"a"}}]}\n\n',
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}],"usage":{"prompt_tokens":1}}\n\n',
        END,
        USAGE,
    ],
)
def test_what_matters_is_seen_behind_the_short_cut(event: bytes) -> None:
    """Finish reasons, usage, errors and new choices are seen however many plain events came before."""
    for before in (chunk("a"), chunk("a") * 4, chunk("b", index=1) + chunk("a") * 12):
        found = scan(Dialect.CHAT, pieces(before + event, -1))
        assert found == slow(Dialect.CHAT, before + event) == scan_all(Dialect.CHAT, before + event)


def test_no_template_is_taken_of_an_event_that_matters() -> None:
    """A chunk with usage that follows a plain one held in pieces is not taken for plain: its like is read again."""
    scanner = StreamScanner(Dialect.CHAT)
    scanner.feed(chunk("a"))
    scanner.feed(chunk("a")[:9])
    scanner.feed(chunk("a")[9:])
    for tokens in (1, 2, 1):
        scanner.feed(chunk("a", usage={"prompt_tokens": tokens}))
        assert scanner.usage == Usage(tokens)


def test_choices_in_turn() -> None:
    """Where events never fit the one before, the short cut gives up and changes nothing."""
    wire = b"".join(chunk(str(at), index=at % 3) for at in range(60)) + b"".join(chunk(None, "stop", index=at) for at in range(3)) + DONE
    found = scan(Dialect.CHAT, pieces(wire, -1), choices=3)
    assert found == scan_all(Dialect.CHAT, wire, choices=3) and found.finished and found.out == wire


def test_reasoning_and_tool_calls_take_the_short_cut() -> None:
    """Pieces of reasoning and of tool arguments are text like any other."""
    for delta in (
        '{"reasoning_content":"%s","content":null}',
        '{"tool_calls":[{"index":0,"function":{"arguments":"%s"}}]}',
        '{"reasoning": "%s"}',
    ):
        event = '{"choices":[{"index":0,"delta":' + delta + ',"finish_reason":null}]}'
        wire = b"".join(b"data: " + event.replace("%s", text).encode() + b"\n\n" for text in ("a", "b", '{\\"x\\":', "\\n", "ü", "\\u00fc"))
        found = scan(Dialect.CHAT, pieces(wire, -1))
        assert found == slow(Dialect.CHAT, wire) == scan_all(Dialect.CHAT, wire) and found.out == wire


def test_repr_of_nothing_is_needed() -> None:
    """A scanner that was fed nothing is at a boundary, incomplete and unbroken."""
    scanner = StreamScanner(Dialect.CHAT)
    assert scanner.feed(b"") == b"" and scanner.finish() == b""
    assert scanner.at_boundary and not scanner.complete and scanner.broken is None and scanner.usage is None


@pytest.mark.parametrize("size", [1, 2, 64])
def test_without_a_template_nothing_fits_it(size: int) -> None:
    """Bytes that look like the mark of no template are no events, whole or one by one."""
    wire = b"\x00" * size
    whole, split = StreamScanner(Dialect.CHAT), StreamScanner(Dialect.CHAT)
    forwarded = [whole.feed(wire) + whole.finish(), b"".join(split.feed(wire[at : at + 1]) for at in range(size)) + split.finish()]
    assert forwarded[0] == forwarded[1] and whole.events == split.events
