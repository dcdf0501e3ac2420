"""Redaction: takes credentials out of log text, as the last defence behind code that never logs them."""

from __future__ import annotations

import re

MASK = "[redacted]"

_WORD = r"(?:authorization|proxy-authorization|x-api-key|api[_-]?key|access[_-]?token|auth[_-]?token|secret|password|passwd)"
_SEPARATOR = r"['\"]?\s{0,4}[:=,]\s{0,4}(?:b(?=['\"]))?['\"]?"
_VALUE = r"(?!(?:bearer|basic)\s)[^\s'\",;&)}\]]{4,4096}"

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # user and password of a URL
    (re.compile(r"(?<=://)[^\s/@:'\"]{1,256}:[^\s/@'\"]{1,256}(?=@)"), MASK),
    # Authorization: Bearer x, also inside a repr of headers
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,4096}", re.IGNORECASE), rf"\1 {MASK}"),
    # api_key=x, "password": "x", b'x-api-key', b'x'
    (re.compile(rf"({_WORD}{_SEPARATOR}){_VALUE}", re.IGNORECASE), rf"\1{MASK}"),
    # keys that are known by their shape: OpenAI and Anthropic, Hugging Face, AWS, Google, JSON web tokens
    (re.compile(r"\bsk-[A-Za-z0-9_-]{12,512}"), MASK),
    (re.compile(r"\bhf_[A-Za-z0-9]{16,128}"), MASK),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{30,64}"), MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{8,2048}"), MASK),
)  # fmt: skip


def redact(text: str) -> str:
    """Return a text without what looks like a credential."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
