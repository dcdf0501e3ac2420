"""Claim: whatever bytes come over a link, however cut, they become messages or a ValueError, within the limit of memory."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.processes.wire import Answer, Call, Failure, FrameReader, Notice, encode_value, pack

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
).map(encode_value)
_ids = st.integers(0, 2**32)
_messages = st.one_of(
    st.builds(Call, _ids, st.text(max_size=10), _values),
    st.builds(Notice, st.text(max_size=10), _values),
    st.builds(Answer, _ids, _values),
)


@given(st.lists(_messages, max_size=5), st.data())
def test_messages_survive_any_cut(messages: list[Call | Notice | Answer], data: st.DataObject) -> None:
    """The reader returns what was packed, wherever the stream is cut."""
    stream = b"".join(map(pack, messages))
    reader = FrameReader()
    received: list[Call | Notice | Answer | Failure] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += reader.feed(stream[:size])
        stream = stream[size:]
    assert received == messages


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_are_messages_or_a_value_error(pieces: list[bytes]) -> None:
    """Nothing else is raised, and no more than the limit is held."""
    reader = FrameReader(max_bytes=100)
    try:
        for piece in pieces:
            reader.feed(piece)
            assert len(reader._buffer) < 104 + 200
    except ValueError:
        pass


@given(st.binary(max_size=200))
def test_any_body_is_a_message_or_a_value_error(body: bytes) -> None:
    """Also with a right length in front."""
    try:
        FrameReader().feed(len(body).to_bytes(4, "big") + body)
    except ValueError as error:
        assert not isinstance(error, msgspec.DecodeError)
