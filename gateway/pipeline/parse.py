"""Phase parse: bytes in a client dialect to what routing needs, and the header lines that travel on to the worker."""

from __future__ import annotations

from gateway.errors import ClientError
from gateway.pipeline.context import Exchange
from gateway.protocol.dialect import Dialect
from gateway.protocol.request_id import acceptable, new_request_id
from gateway.runtime import Runtime

_FORWARD = 1
_CREDENTIAL = 2
_TRACEPARENT = 3
_API_KEY = 4

_FIXED = {
    b"authorization": _CREDENTIAL,
    b"x-api-key": _API_KEY,
    b"traceparent": _TRACEPARENT,
    b"tracestate": _FORWARD,
    b"accept": _FORWARD,
    b"x-correlation-id": _FORWARD,
    b"anthropic-version": _FORWARD,
    b"anthropic-beta": _FORWARD,
    b"endpoint-load-metrics-format": _FORWARD,
}


def parse(x: Exchange, rt: Runtime) -> ClientError | None:
    """Read the request's headers and body; on an error the request id is set all the same."""
    ids = rt.request_id_headers
    extra = rt.forward_headers
    given: bytes | None = None
    given_rank = len(ids)
    content_type = b"application/json"
    forwarded = []
    for name, value in x.headers:
        kind = _FIXED.get(name)
        if kind is None:
            if name == b"content-type":
                content_type = value
            elif name in ids:
                rank = ids[name]
                if rank < given_rank and acceptable(value):
                    given, given_rank = value, rank
                if name in extra:
                    forwarded += (name, b": ", value, b"\r\n")
            elif name in extra or name.startswith(b"x-request-id-"):
                forwarded += (name, b": ", value, b"\r\n")
        elif kind == _FORWARD:
            forwarded += (name, b": ", value, b"\r\n")
        elif kind == _TRACEPARENT:
            x.traceparent = value
        elif kind == _CREDENTIAL:
            if value[:7].lower() == b"bearer ":
                x.bearer = value[7:].strip()
        elif x.bearer is None:
            x.bearer = value
    x.request_id = given if given is not None else new_request_id(x.endpoint.dialect)
    forwarded += (b"content-type: ", content_type, b"\r\nx-request-id: ", x.request_id, b"\r\n")
    x.forwarded = b"".join(forwarded)
    try:
        x.facts = x.endpoint.read(x.body)
    except ClientError as error:
        return error
    x.prompt = x.facts.prompt
    return None


def own_credential(x: Exchange) -> bytes:
    """The header line that hands the client's own credential on, in its dialect's way; empty where it brought none."""
    if x.bearer is None:
        return b""
    if x.endpoint.dialect is Dialect.MESSAGES and (key := x.header(b"x-api-key")) is not None:
        return b"x-api-key: " + key + b"\r\n"
    return b"authorization: Bearer " + x.bearer + b"\r\n"
