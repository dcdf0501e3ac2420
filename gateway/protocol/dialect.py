"""The client dialects: one name for each family of endpoints that shares a request, an answer and an error shape."""

from __future__ import annotations

from enum import StrEnum


class Dialect(StrEnum):
    """A family of endpoints. Every codec of this package is a table over it."""

    CHAT = "chat"
    """`/v1/chat/completions`."""
    COMPLETIONS = "completions"
    """`/v1/completions`."""
    EMBEDDINGS = "embeddings"
    """`/v1/embeddings`."""
    RERANK = "rerank"
    """`/v1/rerank`, `/rerank`."""
    RESPONSES = "responses"
    """`/v1/responses`."""
    MESSAGES = "messages"
    """`/v1/messages` (Anthropic)."""
    GENERATE = "generate"
    """`/generate` (SGLang)."""
    TOKENIZE = "tokenize"
    """`/v1/tokenize`."""
    DETOKENIZE = "detokenize"
    """`/v1/detokenize`."""
