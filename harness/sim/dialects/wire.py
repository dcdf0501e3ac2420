"""Pieces that all dialects are made of: JSON, events, identity."""

from __future__ import annotations

from typing import Any

import orjson

from harness.sim.job import logprob

DONE = b"data: [DONE]\n\n"
ALTERNATIVES = (" simulated", " answer", " token", " other", " text", " word", " more", " less", " yes", " no")


def dumps(value: Any) -> bytes:
    """Return compact JSON."""
    return orjson.dumps(value)


def event(value: Any) -> bytes:
    """Return one `data:` event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def named_event(name: str, value: Any) -> bytes:
    """Return one event with a name, as the Anthropic and Responses dialects write it."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(value))


def fingerprint(flavour: str) -> str:
    """Return the system fingerprint that says "simulated"."""
    return f"smg-sim-{flavour}"


def likely(text: str, count: int) -> list[tuple[str, float]]:
    """Return `count` alternatives to a token, itself first, with made-up log probabilities."""
    found = [(text, logprob(text))]
    found += [(other, logprob(text + other)) for other in ALTERNATIVES if other != text]
    return found[:count]


def octets(text: str) -> list[int]:
    """Return the UTF-8 bytes of a token, as logprobs carry them."""
    return list(text.encode("utf-8", "replace"))


def completion_logprobs(texts: list[str], top: int, offset: int) -> dict[str, Any]:
    """Return the logprobs object of the completions API for some tokens, the first at `offset` characters."""
    offsets: list[int] = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "text_offset": offsets,
        "token_logprobs": [logprob(text) for text in texts],
        "tokens": texts,
        "top_logprobs": [dict(likely(text, max(1, top))) for text in texts],
    }
