"""A toy tokenizer: reversible, without state or vocabulary file, about three bytes a token.

A token is a piece of UTF-8: an optional space with up to three printable characters, or up to three bytes above ASCII, or one
other byte. Its id is the piece read as a big-endian number, so `decode(encode(text)) == text`, and ids stay below 2**31.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

PIECE = re.compile(rb" ?[!-~]{1,3}|[\xc0-\xff][\x80-\xbf]{1,2}|[\x00-\xff]")
MAX_ID = 0x7FFFFFFF


def split(text: str) -> list[bytes]:
    """Cut a text into its tokens, as bytes. Lone surrogates become question marks, as they have no UTF-8 form."""
    return PIECE.findall(text.encode("utf-8", "replace"))


def pieces(text: str) -> list[str]:
    """Cut a text into tokens that are each whole characters, as an engine streams them."""
    result: list[str] = []
    held = b""
    for piece in split(text):
        held += piece
        try:
            result.append(held.decode())
        except UnicodeDecodeError:
            continue
        held = b""
    return result


def encode(text: str) -> list[int]:
    """Return the token ids of a text."""
    return [int.from_bytes(piece, "big") for piece in split(text)]


def decode(ids: Iterable[int]) -> str:
    """Return the text of token ids; an id that no token has becomes U+FFFD."""
    parts = [value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big") if 0 <= value <= MAX_ID else b"\xff" for value in ids]
    return b"".join(parts).decode("utf-8", "replace")


def texts(value: Any) -> list[str] | None:
    """Read texts in the forms that APIs take: a string, strings, token ids, lists of token ids; None for anything else."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(item, str) for item in value):
        return list(value)
    if _are_ids(value):
        return [decode(value)]
    return [decode(item) for item in value] if all(_are_ids(item) for item in value) else None


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, int) for item in value)
