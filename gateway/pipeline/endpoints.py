"""The client endpoints that the pipeline serves: a table from path to dialect, reader and the path at the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.config.model import Engine
from gateway.protocol.dialect import Dialect
from gateway.protocol.request import READERS
from gateway.protocol.request_id import prefix_of
from gateway.protocol.request_wire import RequestFacts


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the data plane, served by POST."""

    path: str
    target: bytes
    """The path as bytes."""
    dialect: Dialect
    read: Callable[[bytes], RequestFacts]
    id_prefix: bytes
    """Of the request ids that the gateway makes."""
    tells_usage: bool
    """Its whole answers are JSON that may hold a usage."""
    uses_tokens: bool = True
    """The engine reads or writes tokens for it that count; what only counts or converts them has no usage and is not charged."""
    asks_usage: bool = False
    """Its streams tell usage only when asked (`stream_options.include_usage`)."""
    at_engine: Mapping[Engine, bytes] = field(default_factory=dict)
    """Where an engine has it under another path."""

    def target_at(self, engine: Engine) -> bytes:
        """The path at a worker."""
        return self.at_engine.get(engine, self.target) if self.at_engine else self.target


_NO_USAGE = (Dialect.TOKENIZE, Dialect.DETOKENIZE)
_AT_ROOT = (Engine.VLLM, Engine.SGLANG, Engine.LLAMACPP)


def _endpoint(
    path: str,
    dialect: Dialect,
    *,
    uses_tokens: bool = True,
    asks_usage: bool = False,
    at_engine: Mapping[Engine, bytes] | None = None,
) -> Endpoint:
    tells_usage = dialect not in _NO_USAGE
    return Endpoint(
        path,
        path.encode(),
        dialect,
        READERS[dialect],
        prefix_of(dialect),
        tells_usage,
        uses_tokens and tells_usage,
        asks_usage,
        at_engine or {},
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    _endpoint("/v1/chat/completions", Dialect.CHAT, asks_usage=True),
    _endpoint("/v1/completions", Dialect.COMPLETIONS, asks_usage=True),
    _endpoint("/v1/embeddings", Dialect.EMBEDDINGS),
    _endpoint("/v1/rerank", Dialect.RERANK),
    _endpoint("/rerank", Dialect.RERANK, at_engine={Engine.SGLANG: b"/v1/rerank"}),
    _endpoint("/v1/responses", Dialect.RESPONSES),
    _endpoint("/v1/messages", Dialect.MESSAGES),
    _endpoint("/v1/messages/count_tokens", Dialect.MESSAGES, uses_tokens=False),
    _endpoint("/generate", Dialect.GENERATE),
    _endpoint("/v1/tokenize", Dialect.TOKENIZE, at_engine=dict.fromkeys(_AT_ROOT, b"/tokenize")),
    _endpoint("/v1/detokenize", Dialect.DETOKENIZE, at_engine=dict.fromkeys(_AT_ROOT, b"/detokenize")),
)
"""Every path that goes to workers; engines keep tokenize and detokenize at the root."""

BY_PATH: Mapping[bytes, Endpoint] = {endpoint.target: endpoint for endpoint in ENDPOINTS}


def dialect_of(path: bytes) -> Dialect | None:
    """The dialect of errors at a path, also of one that nobody serves: Anthropic's SDKs ask below `/v1/messages`."""
    endpoint = BY_PATH.get(path)
    if endpoint is not None:
        return endpoint.dialect
    return Dialect.MESSAGES if path.startswith(b"/v1/messages/") else None
