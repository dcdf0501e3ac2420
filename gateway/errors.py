"""Every error code of the gateway, its HTTP status, whose fault it is, and whether it may be retried.

The tree, whole:

    GatewayError(code, message, source, retry, retry_after_s)
    +-- ClientError    the client's fault; the same request fails again
    +-- UpstreamError  an attempt failed; another candidate may be tried where `retry` allows it
    +-- ConfigError    the configuration is wrong; the process does not start (exit 2)

`message` goes to clients: it is lower case, has no full stop, says what to do, and never holds a secret, a prompt or an
upstream body.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never


class Source(StrEnum):
    """Whose fault an error is."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class Retry(StrEnum):
    """Whether the request may be tried again, and by whom."""

    NEVER = "never"
    """The same request fails in the same way."""
    CLIENT = "client"
    """The client may retry after `Retry-After`."""
    SAFE = "safe"
    """Nothing was processed: the gateway tries the next candidate."""
    RESEND = "resend"
    """Something may have been processed: the gateway tries the next candidate if the route allows a resend."""


class Code(StrEnum):
    """The error codes, as they appear on the wire (`error.code`, `x-smg-error-code`)."""

    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MODEL_NOT_FOUND = "model_not_found"
    REQUEST_TIMEOUT = "request_timeout"
    CONFLICT = "conflict"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    UNSUPPORTED_FEATURE = "unsupported_feature"
    CLIENT_GONE = "client_gone"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    NO_CANDIDATE = "no_candidate"
    DRAINING = "draining"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INTERNAL = "internal"
    CONFIG_INVALID = "config_invalid"
    CONNECT_FAILED = "connect_failed"
    UPSTREAM_RATE_LIMITED = "upstream_rate_limited"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    CREDENTIAL_FAILED = "credential_failed"
    UPSTREAM_REJECTED = "upstream_rejected"
    STREAM_BROKEN = "stream_broken"


def status_of(code: Code) -> int:
    """Return the HTTP status of a code. `client_gone` is 499 (nginx's), for the log alone."""
    match code:
        case Code.INVALID_REQUEST | Code.CONFIG_INVALID | Code.UPSTREAM_REJECTED:
            return 400
        case Code.UNAUTHENTICATED:
            return 401
        case Code.FORBIDDEN:
            return 403
        case Code.NOT_FOUND | Code.MODEL_NOT_FOUND:
            return 404
        case Code.METHOD_NOT_ALLOWED:
            return 405
        case Code.REQUEST_TIMEOUT:
            return 408
        case Code.CONFLICT:
            return 409
        case Code.PAYLOAD_TOO_LARGE:
            return 413
        case Code.UNSUPPORTED_FEATURE:
            return 422
        case Code.RATE_LIMITED | Code.UPSTREAM_RATE_LIMITED:
            return 429
        case Code.HEADERS_TOO_LARGE:
            return 431
        case Code.CLIENT_GONE:
            return 499
        case Code.INTERNAL:
            return 500
        case Code.CONNECT_FAILED | Code.UPSTREAM_FAILED | Code.UPSTREAM_PROTOCOL | Code.CREDENTIAL_FAILED:
            return 502
        case Code.STREAM_BROKEN:
            return 502
        case Code.OVERLOADED | Code.NO_CANDIDATE | Code.DRAINING:
            return 503
        case Code.DEADLINE_EXCEEDED | Code.UPSTREAM_TIMEOUT:
            return 504
        case _ as other:
            assert_never(other)


class GatewayError(Exception):
    """A failure with a code, a safe message, a source and a retry rule."""

    default_source = Source.GATEWAY
    default_retry = Retry.CLIENT

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        source: Source | None = None,
        retry: Retry | None = None,
        retry_after_s: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.source = source if source is not None else self.default_source
        self.retry = retry if retry is not None else self.default_retry
        self.retry_after_s = retry_after_s
        """Seconds after which a client may try again; sent as `Retry-After`, rounded up."""
        self.param = param
        """The request field at fault, where one is (OpenAI's `error.param`)."""

    @property
    def status(self) -> int:
        """The HTTP status of this error."""
        return status_of(self.code)


class ClientError(GatewayError):
    """The client's request is wrong; it is never retried."""

    default_source = Source.CLIENT
    default_retry = Retry.NEVER


class UpstreamError(GatewayError):
    """An attempt on a worker failed; `retry` says whether the next candidate may be tried."""

    default_source = Source.UPSTREAM
    default_retry = Retry.RESEND


class ConfigError(GatewayError):
    """The configuration cannot be used; `problems` names every mistake with its path and line."""

    default_retry = Retry.NEVER

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(Code.CONFIG_INVALID, message, source=Source.CLIENT)
        self.problems = problems
