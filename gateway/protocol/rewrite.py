"""Changes one member of a request body and leaves every other byte of it alone.

Two changes exist: asking for usage on a stream, and replacing an alias by the model's name. Both take a body that a reader
of `request.py` accepted.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

_TRUE = Raw(b"true")
_OPTIONS = b'"stream_options":{"include_usage":true}'
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode


def ask_usage(body: bytes, has_stream_options: bool | None = None) -> bytes:
    """Return the body with `stream_options.include_usage` true.

    Without a `stream_options` member the new one is put right after the opening brace and no other byte changes; with one
    the object is put together anew, its other values byte for byte (of duplicate keys the last stays).

    Args:
        body: a JSON object.
        has_stream_options: what `RequestFacts` says; looked up in the body where it is None.
    """
    if has_stream_options is False:
        return _splice(body)
    members = _decode_members(body)
    options = members.get("stream_options")
    if options is None:
        return _splice(body)
    inner = _decode_members(options) if bytes(options) != b"null" else {}
    inner.pop("continuous_usage_stats", None)  # without `include_usage` it means nothing; with it every chunk would have usage
    inner["include_usage"] = _TRUE
    members["stream_options"] = Raw(_encode(inner))
    return _encode(members)


def _splice(body: bytes) -> bytes:
    after = body.index(b"{") + 1
    comma = b"" if body[after:].lstrip(b" \t\r\n").startswith(b"}") else b","
    return b"".join((body[:after], _OPTIONS, comma, body[after:]))


def replace_model(body: bytes, name: str) -> bytes:
    """Return the body with `model` set to `name`; every other value stays byte for byte, in its order."""
    members = _decode_members(body)
    members["model"] = Raw(_encode(name))
    return _encode(members)
