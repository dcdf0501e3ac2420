import json
from typing import Any

import pytest

from gateway.sdk.errors import SmgApiError
from gateway.sdk.events import MAX_EVENT_BYTES, EventReader

CHAT = (
    b'data: {"id":"1","choices":[{"delta":{"content":"a"}}]}\n\n'
    b": a comment\r\n\r\n"
    b'data: {"id":"1",\r\ndata: "choices":[]}\r\n\r\n'
    b"data: [DONE]\n\n"
)
MESSAGES = b'event: message_start\ndata: {"type":"message_start"}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
RESPONSES = b'event: response.completed\ndata: {"type":"response.completed","response":{"error":null}}\n\n'


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (CHAT, [{"id": "1", "choices": [{"delta": {"content": "a"}}]}, {"id": "1", "choices": []}]),
        (MESSAGES, [{"type": "message_start"}, {"type": "message_stop"}]),
        (RESPONSES, [{"type": "response.completed", "response": {"error": None}}]),
    ],
)
def test_events_come_out_whatever_the_pieces(stream: bytes, events: list[Any], size: int) -> None:
    """Whole and byte by byte, each dialect gives the same events and its end mark."""
    reader = EventReader()
    found = [event for start in range(0, len(stream), size) for event in reader.feed(stream[start : start + size])]
    reader.finish()
    assert found == events


@pytest.mark.parametrize("cut", [0, 10, len(CHAT) - 14, len(CHAT) - 1])
def test_a_stream_without_its_end_mark_was_cut(cut: int) -> None:
    """However complete it looks, what just stops is an error."""
    reader = EventReader()
    reader.feed(CHAT[:cut])
    with pytest.raises(SmgApiError) as caught:
        reader.finish()
    assert caught.value.code == "stream_broken"


@pytest.mark.parametrize(
    ("event", "code", "message"),
    [
        (b'data: {"error":{"code":"upstream_timeout","message":"too slow"}}\n\n', "upstream_timeout", "too slow"),
        (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n', "overloaded_error", "busy"),
        (b'data: {"error":"flat"}\n\n', "stream_broken", "flat"),
        (b'event: error\ndata: {"message":"bare","code":7}\n\n', "7", "bare"),
        (b"event: error\ndata: {}\n\n", "stream_broken", "the stream ended in an error"),
        (b"data: {broken\n\n", "stream_broken", "the stream carries an event that is no JSON"),
        (b"data: [1]\n\n", "stream_broken", "the stream carries an event that is no object"),
    ],
)
def test_an_error_inside_the_stream_is_raised(event: bytes, code: str, message: str) -> None:
    """Error events of every dialect, and what is no event at all, end the stream."""
    with pytest.raises(SmgApiError) as caught:
        EventReader().feed(event)
    assert (caught.value.status, caught.value.code, caught.value.message) == (200, code, message)


def test_a_null_error_is_none() -> None:
    """Engines that send `error: null` with every chunk are understood."""
    assert EventReader().feed(b'data: {"error":null,"x":1}\n\n') == [{"error": None, "x": 1}]


def test_an_event_without_end_is_bounded() -> None:
    """A line that never ends does not fill the memory, nor do lines that belong to one event."""
    with pytest.raises(SmgApiError, match="larger than 16 MiB"):
        EventReader().feed(b"data: " + b"x" * MAX_EVENT_BYTES)
    reader = EventReader()
    line = b"data: " + b"x" * (1 << 20) + b"\n"
    with pytest.raises(SmgApiError, match="larger than 16 MiB"):
        for _ in range(20):
            reader.feed(line)


def test_a_large_event_is_read() -> None:
    """Below the limit size does not matter."""
    value = {"x": "y" * (1 << 20)}
    assert EventReader().feed(b"data: " + json.dumps(value).encode() + b"\n\n") == [value]
