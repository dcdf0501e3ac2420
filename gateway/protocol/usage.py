"""Token usage, the one shape that every dialect's own is read into."""

from __future__ import annotations

from msgspec import Struct


class Usage(Struct, frozen=True, gc=False):
    """Tokens of one request as the engine counted them."""

    prompt_tokens: int = 0
    """The whole prompt, cached part and all (Anthropic's `input_tokens` leaves that part out; it is added back)."""
    completion_tokens: int = 0
    cached_tokens: int = 0
    """The part of the prompt that came from the engine's prefix cache."""
