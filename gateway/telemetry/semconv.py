"""Every span and attribute name: OpenTelemetry's semantic conventions for generative AI and HTTP, and the few of our own."""

from __future__ import annotations

from typing import Final

from gateway.protocol.dialect import Dialect

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
ERROR_TYPE: Final = "error.type"

WORKER_URL: Final = "smg.worker.url"
"""Which worker an attempt went to."""
ATTEMPTS: Final = "smg.attempts"
"""Attempts of a request, hedges too."""

ATTEMPT_SPAN: Final = "smg.attempt"
"""Name of the span of one attempt; the span of a request is `{operation} {model}`."""

CANCELLED: Final = "cancelled"
"""`error.type` of an attempt that nobody waited for any more."""

OPERATIONS: Final[dict[str, str]] = {
    Dialect.CHAT: "chat",
    Dialect.COMPLETIONS: "text_completion",
    Dialect.EMBEDDINGS: "embeddings",
    Dialect.RERANK: "rerank",
    Dialect.RESPONSES: "chat",
    Dialect.MESSAGES: "chat",
    Dialect.GENERATE: "text_completion",
    Dialect.TOKENIZE: "tokenize",
    Dialect.DETOKENIZE: "detokenize",
}
"""Operation of each dialect; the conventions name chat, text_completion and embeddings."""

PROVIDERS: Final[dict[str, str]] = {Dialect.MESSAGES: "anthropic", Dialect.GENERATE: "sglang"}
"""Whose API a dialect speaks, as the conventions tell providers apart; `openai` where it is not here."""
