"""Request ids: new ones in the client's dialect, and the check of those that clients bring."""

from __future__ import annotations

import os

from gateway.protocol.dialect import Dialect

MAX_ID_BYTES = 128
"""Longest id taken from a client; a W3C traceparent has 55 bytes, a UUID 36."""

PREFIXES: dict[Dialect, bytes] = {
    Dialect.CHAT: b"chatcmpl-",
    Dialect.COMPLETIONS: b"cmpl-",
    Dialect.GENERATE: b"gnt-",
    Dialect.RESPONSES: b"resp-",
    Dialect.MESSAGES: b"msg_",
}
"""Prefix of a new id; `req-` for every other dialect."""

_LENGTH = 24
_IDS_A_FILL = 256
_ALPHABET = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TO_ALPHABET = bytes(_ALPHABET[i % 62] for i in range(256))
_VISIBLE = bytes(range(0x21, 0x7F))


class _Pool:
    """Random characters drawn from the system 256 ids at a time: one call to it costs more than 100 slices."""

    __slots__ = ("at", "characters")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.characters = b""
        self.at = 0


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.clear)


def prefix_of(dialect: Dialect | None) -> bytes:
    """Return the prefix of a dialect's new ids."""
    return b"req-" if dialect is None else PREFIXES.get(dialect, b"req-")


def new_request_id(dialect: Dialect | None = None) -> bytes:
    """Return a new id: the dialect's prefix and 24 alphanumeric characters, over 140 bits from the system's generator."""
    return prefix_of(dialect) + random_id()


def random_id() -> bytes:
    """Return the part of a new id that follows the prefix."""
    pool = _pool
    at = pool.at
    end = at + _LENGTH
    if end > len(pool.characters):
        pool.characters = os.urandom(_LENGTH * _IDS_A_FILL).translate(_TO_ALPHABET)
        at, end = 0, _LENGTH
    pool.at = end
    return pool.characters[at:end]


def acceptable(value: bytes) -> bool:
    """Tell whether a client's id may be used: 1 to 128 bytes of visible ASCII, so that it is safe in headers and logs."""
    return 0 < len(value) <= MAX_ID_BYTES and not value.translate(None, _VISIBLE)


def request_id(dialect: Dialect | None, given: bytes | None) -> bytes:
    """Return the client's id where it is acceptable, else a new one."""
    if given is not None and acceptable(given):
        return given
    return new_request_id(dialect)
