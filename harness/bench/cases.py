"""The cases of a comparison: what is asked, over how many connections, and how the request looks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

PATH = "/v1/chat/completions"
MODEL = "mock"
EVENTS = 64
"""Events with a token in a stream; one more ends it."""
GAP_S = 0.01
"""Time between two events of a stream."""
MIN_STREAM_S = 3.0
"""A round of streams lasts at least four of them (0.65 s each, and a bit): those cut off at its end cost CPU and do not count."""

PROMPT: dict[str, Any] = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You are a terse assistant. Answer in plain words and leave out what nobody asked for."},
        {"role": "user", "content": "Name three harbours of the North Sea, and say of each what it is known for, please."},
    ],
    "temperature": 0.7,
    "max_tokens": 64,
}
"""A short question with a system prompt: 0.3 KB."""


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load."""

    name: str
    connections: int
    stream: bool

    @property
    def body(self) -> bytes:
        """The body of every request."""
        return json.dumps({**PROMPT, "stream": True} if self.stream else PROMPT, separators=(",", ":")).encode()

    def lasts_s(self, seconds: float) -> float:
        """How long a round lasts where `seconds` were asked for."""
        return max(seconds, MIN_STREAM_S) if self.stream else seconds


CASES = {case.name: case for case in (Case("chat1", 1, False), Case("chat64", 64, False), Case("stream64", 64, True))}
"""Whole answers over 1 and over 64 connections; 64 streams of 65 events, 10 ms apart."""
