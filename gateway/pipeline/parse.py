"""Phase parse: bytes in a client dialect to what routing needs, and the header lines that travel on to the worker."""

from __future__ import annotations

from gateway.errors import ClientError
from gateway.pipeline.context import Exchange
from gateway.protocol.dialect import Dialect
from gateway.protocol.request_id import acceptable, random_id
from gateway.protocol.request_wire import RequestFacts
from gateway.runtime import (
    API_KEY,
    CONTENT_TYPE,
    CREDENTIAL,
    FORWARD,
    MAX_RANK,
    PRIORITY,
    TENANT,
    TRACEPARENT,
    Runtime,
)

NO_FACTS = RequestFacts("", b"")
"""What is known of a request that could not be read."""


def parse(x: Exchange, rt: Runtime) -> ClientError | None:
    """Read the request's headers and body; on an error the request id is set all the same."""
    kinds = rt.header_kinds
    given: bytes | None = None
    given_rank = MAX_RANK
    forwarded = b""
    content_type = b"application/json"
    for name, value in x.headers:
        kind = kinds.get(name)
        if kind is None:
            if len(name) > 13 and name.startswith(b"x-request-id-"):
                forwarded += b"%b: %b\r\n" % (name, value)
        elif kind == CONTENT_TYPE:
            content_type = value
        elif kind == FORWARD:
            forwarded += b"%b: %b\r\n" % (name, value)
        elif kind == CREDENTIAL:
            if value[:7].lower() == b"bearer ":
                x.bearer = value[7:].strip()
        elif kind == API_KEY:
            if x.bearer is None:
                x.bearer = value
        elif kind == PRIORITY:
            x.wanted_priority = value
        elif kind == TRACEPARENT:
            x.traceparent = value
        elif kind == TENANT:
            x.tenant_header = value
        else:
            if name != b"x-request-id":
                forwarded += b"%b: %b\r\n" % (name, value)
            if kind < given_rank and acceptable(value):
                given, given_rank = value, kind
    x.request_id = given if given is not None else x.endpoint.id_prefix + random_id()
    x.id_line = b"x-request-id: %b\r\n" % x.request_id
    x.forwarded = b"content-type: %b\r\n%b%b" % (content_type, x.id_line, forwarded)
    try:
        x.facts = facts = x.endpoint.read(x.body)
    except ClientError as error:
        x.facts = NO_FACTS
        return error
    x.prompt = facts.prompt
    return None


def own_credential(x: Exchange) -> bytes:
    """The header line that hands the client's own credential on, in its dialect's way; empty where it brought none."""
    if x.bearer is None:
        return b""
    if x.endpoint.dialect is Dialect.MESSAGES and (key := x.header(b"x-api-key")) is not None:
        return b"x-api-key: " + key + b"\r\n"
    return b"authorization: Bearer " + x.bearer + b"\r\n"
