"""Phase transform: the bytes that one worker gets. Unless usage is asked for or an alias replaced, the client's own body."""

from __future__ import annotations

from gateway.pipeline.context import Exchange
from gateway.pipeline.parse import own_credential
from gateway.protocol.rewrite import ask_usage, replace_model
from gateway.runtime import Runtime
from gateway.workers.worker import Worker


def asks_usage(x: Exchange, worker: Worker) -> bool:
    """Whether this worker is asked for usage that the client did not ask for, and that is hidden from it again."""
    facts = x.facts
    return facts.stream and x.endpoint.asks_usage and not facts.include_usage and worker.state.ask_usage


def body_for(x: Exchange, asked: bool) -> bytes:
    """The request body for a worker."""
    if not asked and x.rewrite is None:
        return x.body
    body = x.upstream_bodies.get(asked)
    if body is None:
        body = x.body if x.rewrite is None else replace_model(x.body, x.rewrite)
        if asked:
            body = ask_usage(body, x.facts.has_stream_options)
        x.upstream_bodies[asked] = body
    return body


def head_for(x: Exchange, worker: Worker, length: int, rt: Runtime) -> bytes:
    """The request head for a worker."""
    target = x.endpoint.target_at(worker.state.engine)
    prefix = worker.target.prefix
    if prefix:
        target = prefix + target
    credential = b"" if worker.own_key or not rt.hands_credentials_on else own_credential(x)
    trace = x.span.traceparent_line() if x.span is not None else (b"traceparent: " + x.traceparent + b"\r\n" if x.traceparent else b"")
    return b"POST %b%b%bcontent-length: %d\r\n%b%b%b\r\n" % (
        target, x.query, worker.request_head, length, credential, trace, x.forwarded,
    )  # fmt: skip
