"""Reads a stream of server-sent events: bytes in, parsed `data` out; an error event or a missing end is an error.

A stream of the OpenAI dialects ends with `[DONE]`, one of the Anthropic dialect with `message_stop`, one of the Responses API with
`response.completed`, `.incomplete` or `.failed`. A stream that just stops was cut, however complete it looks.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.sdk.errors import SmgApiError, read_error

MAX_EVENT_BYTES = 16 << 20

_ENDS = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})


class EventReader:
    """Takes the bytes of one answer in pieces of any size."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._held = 0
        self._name = ""
        self.ended = False
        """The end mark has come."""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take a piece and return the events that it completes.

        Raises:
            SmgApiError: the stream carries an error event, or something that is no event; it is over then.
        """
        self._rest += data
        found = []
        start = 0
        while (end := self._rest.find(b"\n", start)) >= 0:
            line = bytes(self._rest[start:end]).removesuffix(b"\r")
            start = end + 1
            event = self._line(line)
            if event is not None:
                found.append(event)
        del self._rest[:start]
        if len(self._rest) + self._held > MAX_EVENT_BYTES:
            raise SmgApiError(200, "stream_broken", f"an event is larger than {MAX_EVENT_BYTES >> 20} MiB")
        return found

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises:
            SmgApiError: the stream was cut: there was no end mark.
        """
        if not self.ended:
            raise SmgApiError(200, "stream_broken", "the stream ended before the answer was complete")

    def _line(self, line: bytes) -> dict[str, Any] | None:
        if not line:
            return self._event()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._held += len(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _event(self) -> dict[str, Any] | None:
        data, name = b"\n".join(self._data), self._name
        self._data.clear()
        self._held, self._name = 0, ""
        if not data:
            return None
        if data == b"[DONE]":
            self.ended = True
            return None
        try:
            value = msgspec.json.decode(data)
        except ValueError:
            raise SmgApiError(200, "stream_broken", "the stream carries an event that is no JSON") from None
        if not isinstance(value, dict):
            raise SmgApiError(200, "stream_broken", "the stream carries an event that is no object")
        if name == "error" or (value.get("error") is not None and value.get("object") != "response"):
            code, message = read_error(value)
            raise SmgApiError(200, code or "stream_broken", message or "the stream ended in an error")
        if name in _ENDS or value.get("type") in _ENDS:
            self.ended = True
        return value
