"""Scans a worker's event stream on its way to the client: whole events only, checked, with what the gateway must know of them.

The bytes that `feed` returns are those that came in; nothing is re-encoded. What the scanner changes:

1. An event is held until its blank line has come, so that a truncated one never reaches a client and an error event can
   always be put behind the last whole one. What is held is bounded.
2. An event that is not JSON is dropped, with all that follows it: the stream is broken.
3. A chunk that holds usage alone is dropped where the client did not ask for it (`hide_usage`).

Line ends are LF, CRLF or CR, mixed as they come; comments, `id:`, `retry:` and unknown fields pass (WHATWG HTML, 9.2).
The usual piece, one or more LF events of a single `data:` line, takes a path without any line parsing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.protocol import stream_events
from gateway.protocol.dialect import Dialect
from gateway.protocol.stream_events import BROKEN, ERROR, FORWARD, HIDE, StreamState

MAX_EVENT_BYTES: Final = 1 << 20
"""Bytes of one event that are held: the largest chunk of an engine is a few KiB, with top logprobs some 100 KiB."""
MAX_WHOLE_EVENT_BYTES: Final = 16 << 20
"""The same for dialects whose events repeat the whole answer so far (Responses, SGLang's generate)."""

_BOUNDARY = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LEADING_ENDS = re.compile(rb"[\r\n]*")
_BOM = b"\xef\xbb\xbf"
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

    __slots__ = ("_held", "_needs_name", "_read", "_searched", "max_event_bytes")

    def __init__(self, dialect: Dialect, *, hide_usage: bool = False, choices: int = 1, max_event_bytes: int | None = None) -> None:
        super().__init__(hide_usage, choices)
        self._read: _Reader = _READERS.get(dialect, stream_events.read_completion)
        self._held = bytearray()
        self._searched = 0
        if max_event_bytes is None:
            grows = dialect is Dialect.RESPONSES or dialect is Dialect.GENERATE
            max_event_bytes = MAX_WHOLE_EVENT_BYTES if grows else MAX_EVENT_BYTES
        self.max_event_bytes = max_event_bytes
        self._needs_name = dialect is Dialect.MESSAGES
        self.ends_with_done = dialect is not Dialect.MESSAGES and dialect is not Dialect.RESPONSES

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
        if self._held or data[-2:] != b"\n\n" or b"\r" in data:
            return self._feed_parts(data)
        if self.broken is not None:
            return b""
        if data.find(b"\n\n") == len(data) - 2:
            if data.startswith(b"data: {") and data.find(b"\n") == len(data) - 2:
                self.events += 1
                verdict = self._read(self, data[6:])
            else:
                verdict = self._event(data)
            if verdict == FORWARD:
                return data
            return self._single(verdict, data)
        return self._several(data, data.split(b"\n\n"))

    def finish(self) -> bytes:
        """Say that the body ended well; return the last bytes for the client.

        An event without its blank line counts if it is whole otherwise (servers exist that end in `data: [DONE]` and one
        newline or none); if it is not, it stays held, and `complete` stays false.
        """
        if not self._held or self.broken is not None:
            return b""
        rest = bytes(self._held)
        events = self.events
        verdict = self._event(rest)
        if verdict == BROKEN:
            self.broken = None
            self.events = events
            return b""
        self._held.clear()
        return self._single(verdict, rest)

    def _single(self, verdict: int, data: bytes) -> bytes:
        if verdict == FORWARD:
            return data
        if verdict == HIDE:
            return b""
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
        for part in parts[:-1]:
            end = at + len(part) + 2
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
                    return b"".join(kept)
                start = end
            at = end
        if kept is None:
            return data
        kept.append(data[start:])
        return b"".join(kept)

    def _feed_parts(self, data: bytes) -> bytes:
        """Scan bytes that are not plain whole LF events, together with what is held."""
        if self.broken is not None:
            return b""
        held = self._held
        out: list[bytes] = []
        if not held:
            lead = _LEADING_ENDS.match(data).end()  # type: ignore[union-attr]
            if lead:
                out.append(data[:lead])
                data = data[lead:]
        held += data
        start = 0
        search = self._searched
        while (found := _BOUNDARY.search(held, search)) is not None:
            end = _LEADING_ENDS.match(held, found.end()).end()  # type: ignore[union-attr]
            event = bytes(held[start:end])
            verdict = self._event(event)
            if verdict == FORWARD or (verdict == ERROR and self._forwards_error(event)):
                out.append(event)
            if self.broken is not None:
                held.clear()
                return b"".join(out)
            start = search = end
        if start:
            del held[:start]
        self._searched = max(0, len(held) - 3)
        if len(held) > self.max_event_bytes:
            self.broken = f"an event of more than {self.max_event_bytes} bytes"
            held.clear()
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
        first = self.events == 0 and event.startswith(_BOM)
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
