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
    """The request is not what the route takes; the message names the field."""
    UNAUTHENTICATED = "unauthenticated"
    """There is no API key, or one that is not known."""
    FORBIDDEN = "forbidden"
    """The key has not the role for this route, or the control plane is closed."""
    NOT_FOUND = "not_found"
    """There is no such route or worker."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The route exists and takes another method."""
    MODEL_NOT_FOUND = "model_not_found"
    """No worker serves this model, and no alias leads to one that does."""
    REQUEST_TIMEOUT = "request_timeout"
    """The client took too long to send its request."""
    CONFLICT = "conflict"
    """It exists already, or another change is on its way."""
    PAYLOAD_TOO_LARGE = "payload_too_large"
    """The body is larger than `server.max_body_bytes`."""
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    """The `content-type` of the body is not the one that the route takes."""
    HEADERS_TOO_LARGE = "headers_too_large"
    """The head is larger than `server.max_header_bytes`."""
    UNSUPPORTED_FEATURE = "unsupported_feature"
    """The request asks for something that no worker of this model can do."""
    CLIENT_GONE = "client_gone"
    """The client left before its answer was complete; in logs and metrics alone."""
    RATE_LIMITED = "rate_limited"
    """The tenant has used up its requests or tokens for this minute."""
    OVERLOADED = "overloaded"
    """The queue is full, or the request waited in it for too long."""
    NO_CANDIDATE = "no_candidate"
    """Workers serve this model, and none of them can take a request now."""
    DRAINING = "draining"
    """The gateway ends and takes no new requests."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """`timeouts.total_s` was over before the answer was complete."""
    INTERNAL = "internal"
    """A defect of the gateway; its log says more."""
    CONFIG_INVALID = "config_invalid"
    """The configuration cannot be used; every mistake is named, and nothing was changed."""
    CONNECT_FAILED = "connect_failed"
    """The worker took no connection; nothing was sent."""
    UPSTREAM_RATE_LIMITED = "upstream_rate_limited"
    """The worker has no room for the request."""
    UPSTREAM_FAILED = "upstream_failed"
    """The worker answered with a server error, or broke off before its answer began."""
    UPSTREAM_TIMEOUT = "upstream_timeout"
    """The worker did not begin, or not continue, its answer in time."""
    UPSTREAM_PROTOCOL = "upstream_protocol"
    """The worker answered with something that is no HTTP, or no answer of an engine."""
    CREDENTIAL_FAILED = "credential_failed"
    """The worker refuses the gateway's own key, which is no fault of the client."""
    UPSTREAM_REJECTED = "upstream_rejected"
    """The worker refused the request; the client gets the worker's own answer."""
    STREAM_BROKEN = "stream_broken"
    """The answer broke off after it had begun; the stream ends in an event with this code."""


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
        case Code.UNSUPPORTED_MEDIA_TYPE:
            return 415
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
