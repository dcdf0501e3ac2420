"""Request ids: the client's where it is safe, else a new one in its dialect."""

from __future__ import annotations

import os
import re

import pytest

from gateway.protocol.dialect import Dialect
from gateway.protocol.request_id import MAX_ID_BYTES, acceptable, new_request_id, request_id


@pytest.mark.parametrize(
    ("dialect", "prefix"),
    [
        (Dialect.CHAT, "chatcmpl-"),
        (Dialect.COMPLETIONS, "cmpl-"),
        (Dialect.GENERATE, "gnt-"),
        (Dialect.RESPONSES, "resp-"),
        (Dialect.MESSAGES, "msg_"),
        (Dialect.EMBEDDINGS, "req-"),
        (Dialect.RERANK, "req-"),
        (Dialect.TOKENIZE, "req-"),
        (Dialect.DETOKENIZE, "req-"),
        (None, "req-"),
    ],
)
def test_new_ids(dialect: Dialect | None, prefix: str) -> None:
    """A new id has its dialect's prefix and 24 letters or digits, and is itself acceptable."""
    one = new_request_id(dialect)
    assert re.fullmatch(prefix + "[0-9A-Za-z]{24}", one.decode())
    assert acceptable(one)


def test_new_ids_differ() -> None:
    """Ids do not repeat, also across the fills of the pool."""
    assert len({new_request_id() for _ in range(2000)}) == 2000


def test_a_forked_process_has_ids_of_its_own() -> None:
    """Parent and child never hand out the same id."""
    new_request_id()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, new_request_id())
        finally:
            os._exit(0)
    os.close(writer)
    theirs = os.read(reader, 100)
    os.close(reader)
    os.waitpid(child, 0)
    assert len(theirs) == 28 and theirs not in {new_request_id() for _ in range(300)}


@pytest.mark.parametrize(
    ("given", "fine"),
    [
        (b"a", True),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"!~", True),
        (b"x" * MAX_ID_BYTES, True),
        (b"x" * (MAX_ID_BYTES + 1), False),
        (b"", False),
        (b"a b", False),
        (b"a\r\nx-evil: 1", False),
        (b"a\x00", False),
        (b"a\x7f", False),
        ("ü".encode(), False),
    ],
)
def test_ids_of_clients(given: bytes, fine: bool) -> None:
    """A client's id is used if it is 1 to 128 bytes of visible ASCII; else it gets a new one."""
    assert acceptable(given) is fine
    assert (request_id(Dialect.CHAT, given) == given) is fine


def test_no_id_given() -> None:
    """Without a client's id there is a new one."""
    assert request_id(Dialect.CHAT, None).startswith(b"chatcmpl-")
