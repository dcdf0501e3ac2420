"""Scans a worker's event stream on its way to the client: whole events only, checked, with what the gateway must know of them.

The bytes that `feed` returns are those that came in; nothing is re-encoded. What the scanner changes:

1. An event is held until its blank line has come, so that a truncated one never reaches a client and an error event can
   always be put behind the last whole one. What is held is bounded.
2. An event that is not JSON is dropped, with all that follows it: the stream is broken.
3. A chunk that holds usage alone is dropped where the client did not ask for it (`hide_usage`).

Line ends are LF, CRLF or CR, mixed as they come; comments, `id:`, `retry:` and unknown fields pass (WHATWG HTML, 9.2). An
event ends with its first blank line; line ends between events pass. How the bytes are cut into pieces changes nothing: not
what is forwarded, and not the verdict.

Two short cuts serve the usual pieces. One or more LF events of a single `data:` line take a path without any line parsing.
And an event that differs from the one before in a piece of text alone is not even decoded: if `P + old + S` was valid JSON
that changed nothing in the state, where `P` ends in the opening quote of a string and `S` begins with its closing one, then
so is `P + new + S`, provided that `new` can be the inside of a string.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.protocol import stream_events
from gateway.protocol.dialect import Dialect
from gateway.protocol.stream_events import ERROR, FORWARD, HIDE, NOT_JSON, StreamState

MAX_EVENT_BYTES: Final = 1 << 20
"""Bytes of one event that are held: the largest chunk of an engine is a few KiB, with top logprobs some 100 KiB."""
MAX_WHOLE_EVENT_BYTES: Final = 16 << 20
"""The same for dialects whose events repeat the whole answer so far (Responses, SGLang's generate)."""

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LEADING_ENDS = re.compile(rb"[\r\n]*")
_BOM = b"\xef\xbb\xbf"
_TEXT = re.compile(rb'"(?:content|text|arguments|reasoning_content|reasoning)": ?"([^"\\]*(?:\\.[^"\\]*)*)"')
"""A piece of text. The bytes before it cannot stand inside a string of valid JSON, where the quotes would be escaped, so in an
event that was read the last quote opens a string; and no reader looks at the values of these keys once a token was seen."""
_PLAIN_TEXT = bytes(byte for byte in range(0x20, 0x100) if byte not in b'"\\')
_ESCAPED_TEXT = re.compile(rb'[^"\\\x00-\x1f]*(?:\\["\\/bfnrt][^"\\\x00-\x1f]*)*')
_NO_TEMPLATE = b"\x00"
"""A prefix that no event has."""
_MAX_MISSES = 8
"""Events in a row that did not fit the one before, after which no more templates are taken: choices in turn, counters."""
_Reader = Callable[[StreamState, bytes], int]

_READERS: dict[Dialect, _Reader] = {
    Dialect.CHAT: stream_events.read_chat,
    Dialect.COMPLETIONS: stream_events.read_completion,
    Dialect.GENERATE: stream_events.read_generate,
    Dialect.MESSAGES: stream_events.read_message,
    Dialect.RESPONSES: stream_events.read_response,
}


class StreamScanner(StreamState):
    """One stream's scanner: `feed` it what arrives, forward what it returns, look at its attributes, `finish` it.

    Attributes of interest (those of `StreamState`): `token_seen`, `done`, `finished`, `broken`, `error_forwarded`, `usage`,
    `events`. One attempt, one scanner; it needs no closing.

    Args:
        dialect: whose events to expect.
        hide_usage: drop the chunk that holds usage alone.
        choices: answers asked for (`n`); `finished` waits for that many.
        max_event_bytes: bytes held of an event that is not whole; more breaks the stream.
    """

    __slots__ = (
        "_after_hidden_cr", "_around_bytes", "_first", "_held", "_misses", "_needs_name", "_prefix", "_read", "_searched", "_slow",
        "_suffix", "_text_from", "_text_to", "max_event_bytes",
    )  # fmt: skip

    def __init__(self, dialect: Dialect, *, hide_usage: bool = False, choices: int = 1, max_event_bytes: int | None = None) -> None:
        super().__init__(hide_usage, choices)
        self._read: _Reader = _READERS.get(dialect, stream_events.read_completion)
        self._held = bytearray()
        self._searched = 0
        self._slow = False
        """The next piece continues something, or the stream is broken."""
        self._after_hidden_cr = False
        """A hidden event ended in a CR: an LF that follows is the other half of that line end."""
        self._first = True
        if max_event_bytes is None:
            grows = dialect is Dialect.RESPONSES or dialect is Dialect.GENERATE
            max_event_bytes = MAX_WHOLE_EVENT_BYTES if grows else MAX_EVENT_BYTES
        self.max_event_bytes = max_event_bytes
        self._needs_name = dialect is Dialect.MESSAGES
        self.ends_with_done = dialect is not Dialect.MESSAGES and dialect is not Dialect.RESPONSES
        self._prefix = _NO_TEMPLATE
        self._suffix = b""
        self._text_from = self._text_to = self._around_bytes = 0
        self._misses = 0

    @property
    def at_boundary(self) -> bool:
        """No part of an event is held: what was forwarded ends with a whole event."""
        return not self._held

    @property
    def complete(self) -> bool:
        """The stream may end here as a success: whole events, none broken, and its end mark or every choice's finish was seen."""
        return (self.done or self.finished) and self.broken is None and not self._held

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the body; return what may go to the client now.

        That is `data` itself whenever it holds whole events to be forwarded. After the stream broke it is empty.
        """
        if self._slow:
            return self._feed_parts(data)
        if data.startswith(self._prefix) and data.endswith(self._suffix):
            length = len(data)
            if 0 < self._around_bytes <= length <= self.max_event_bytes and _inside_string(data[self._text_from : self._text_to]):
                self.events += 1
                self._misses = 0
                return data
        length = len(data)
        if length > self.max_event_bytes or data[-2:] != b"\n\n" or b"\r" in data or data[0] == 10:
            return self._feed_parts(data)
        line_end = data.find(b"\n")
        if line_end == length - 2:
            if data.startswith(b"data: {"):
                self.events += 1
                verdict = self._read(self, data[6:])
            else:
                verdict = self._event(data)
        elif data.find(b"\n\n", line_end) == length - 2:
            verdict = self._event(data)
        else:
            return self._several(data, data.split(b"\n\n"))
        if verdict == FORWARD:
            if self.plain:
                self._take_template(data)
            return data
        return self._single(verdict, data)

    def _take_template(self, event: bytes) -> None:
        """Keep what is before and behind the text of an event that held nothing else."""
        self.plain = False
        found = _TEXT.search(event) if self._misses < _MAX_MISSES else None
        if found is None:
            self._prefix = _NO_TEMPLATE
            self._around_bytes = 0
            return
        self._misses += 1
        begin, end = found.span(1)
        self._prefix = event[:begin]
        self._suffix = event[end:]
        self._text_from = begin
        self._text_to = end - len(event)
        self._around_bytes = len(event) - (end - begin)

    def finish(self) -> bytes:
        """Say that the body ended well; return the last bytes for the client.

        An event without its blank line counts if it is whole otherwise (servers exist that end in `data: [DONE]` and one
        newline or none); if it is not, it stays held, and `complete` stays false. Where the stream is not complete the missing
        line ends are added, so that an error event can follow.
        """
        broken = self.broken
        if not self._held or broken is not None:
            return b""
        rest = bytes(self._held)
        events = self.events
        verdict = self._event(rest)
        if self.broken is NOT_JSON or (self.events == events and not rest.startswith(b":")):
            self.broken = None  # cut inside its data, or before it: nobody has seen it, and it stays held
            self.events = events
            return b""
        self._held.clear()
        out = self._single(verdict, rest)
        if out and not self.complete:
            out += b"\n" if out.endswith((b"\n", b"\r")) else b"\n\n"
        return out

    def _single(self, verdict: int, data: bytes) -> bytes:
        if verdict == FORWARD:
            return data
        if verdict == HIDE:
            return b""
        self._slow = True
        return data if verdict == ERROR and self._forwards_error(data) else b""

    def _forwards_error(self, event: bytes) -> bool:
        """Note whether the engine's error event goes to the client: Anthropic's SDK sees none without its `event:` line."""
        self.error_forwarded = not self._needs_name or b"event:" in event
        return self.error_forwarded

    def _several(self, data: bytes, parts: list[bytes]) -> bytes:
        """Scan several LF events; `parts` ends with the empty piece behind the last one."""
        read = self._read
        at = 0
        kept: list[bytes] | None = None
        start = 0
        prefix, suffix = self._prefix, self._suffix[:-2]
        for part in parts[:-1]:
            end = at + len(part) + 2
            if (
                part.startswith(prefix)
                and part.endswith(suffix)
                and 0 < self._around_bytes <= len(part) + 2
                and _inside_string(part[self._text_from : self._text_to + 2])
            ):
                self.events += 1
                at = end
                continue
            if part.startswith(b"\n"):  # a third line end in a row is between the events
                at += 1
                part = part[1:]
            if part.startswith(b"data: {") and part.find(b"\n") < 0:
                self.events += 1
                verdict = read(self, part[6:])
            else:
                verdict = self._event(part)
            if verdict != FORWARD:
                head = data[start : end if verdict == ERROR and self._forwards_error(part) else at]
                if kept is None:
                    kept = [head]
                else:
                    kept.append(head)
                if verdict != HIDE:
                    self._slow = True
                    return b"".join(kept)
                start = end
            elif self.plain:
                self._take_template(part + b"\n\n")
                prefix, suffix = self._prefix, self._suffix[:-2]
            at = end
        if kept is None:
            return data
        kept.append(data[start:])
        return b"".join(kept)

    def _feed_parts(self, data: bytes) -> bytes:
        """Scan bytes that are not plain whole LF events, together with what is held."""
        broken = self.broken
        if broken is not None or not data:
            return b""
        held = self._held
        out: list[bytes] = []
        if self._after_hidden_cr:
            self._after_hidden_cr = False
            if data[0] == 10:
                data = data[1:]
        if held:
            held += data
        else:
            lead = _LEADING_ENDS.match(data).end()  # type: ignore[union-attr]
            out.append(data[:lead])
            held += data[lead:] if lead else data
        start = 0
        search = self._searched
        while (found := _BOUNDARY.search(held, search)) is not None:
            end = found.end()
            if end - start > self.max_event_bytes + held.endswith(b"\r\n", start, end):
                break  # an LF behind a CR is not counted: it may come later
            event = bytes(held[start:end])
            verdict = self._event(event)
            if verdict == FORWARD or (verdict == ERROR and self._forwards_error(event)):
                out.append(event)
            if self.broken is not None:
                break
            start = search = _LEADING_ENDS.match(held, end).end()  # type: ignore[union-attr]
            if start > end:
                out.append(bytes(held[end:start]))
            elif verdict == HIDE and end == len(held) and held[end - 1] == 13:
                self._after_hidden_cr = True
        del held[:start]
        self.plain = False  # whoever reads the next event takes no template of this one
        if self.broken is None and len(held) > self.max_event_bytes:
            self.broken = f"an event of more than {self.max_event_bytes} bytes"
        if self.broken is not None:
            held.clear()
            self._slow = True
            return b"".join(out)
        self._searched = max(0, len(held) - 3)
        self._slow = bool(held) or self._after_hidden_cr
        return b"".join(out)

    def _event(self, event: bytes) -> int:
        """Read one event of any form; `event` may lack its blank line."""
        if event.startswith(b"event: "):
            name, separator, data = event.rstrip(b"\n").partition(b"\ndata: ")
            if separator and b"\n" not in data and b"\n" not in name and b"\r" not in event and data:
                return self._data(name[7:], data)
        name = b""
        value: bytes
        lines: list[bytes] = []
        first = self._first and self.events == 0 and event.startswith(_BOM)
        self._first = False
        for line in _LINE_END.split(event[3:] if first else event):
            field, _, value = line.partition(b":")
            if value[:1] == b" ":
                value = value[1:]
            if field == b"data":
                lines.append(value)
            elif field == b"event":
                name = value
            elif field == b"error":
                name = b"error"
                lines.append(value)
        data = lines[0] if len(lines) == 1 else b"\n".join(lines)
        return self._data(name, data) if data else FORWARD

    def _data(self, name: bytes, data: bytes) -> int:
        """Read the data of one event."""
        self.events += 1
        if data.startswith(b"[DONE]") and data.strip() == b"[DONE]":
            self.marked_done = True
            if self.ends_with_done:
                self.done = True
            return FORWARD
        verdict = self._read(self, data)
        if name == b"error" and verdict == FORWARD:
            self.broken = "an error event of the engine"
            return ERROR
        return verdict


def _inside_string(text: bytes) -> bool:
    """Whether these bytes can stand between the quotes of a JSON string."""
    return not text.translate(None, _PLAIN_TEXT) or _ESCAPED_TEXT.fullmatch(text) is not None
