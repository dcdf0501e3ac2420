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
    if asked:
        if x.asking_body is None:
            x.asking_body = ask_usage(body_for(x, False), x.facts.has_stream_options)
        return x.asking_body
    if x.rewrite is None:
        return x.body
    if x.plain_body is None:
        x.plain_body = replace_model(x.body, x.rewrite)
    return x.plain_body


def head_for(x: Exchange, worker: Worker, length: int, rt: Runtime) -> bytes:
    """The request head for a worker."""
    extra = b"" if worker.own_key or x.bearer is None or not rt.hands_credentials_on else own_credential(x)
    if x.span is not None:
        extra += x.span.traceparent_line(worker.url)
    elif x.traceparent is not None:
        extra += b"traceparent: %b\r\n" % x.traceparent
    target = x.endpoint.target_at(worker.state.engine)
    return b"POST %b%b%b%bcontent-length: %d\r\n%b%b\r\n" % (
        worker.target.prefix,
        target,
        x.query,
        worker.request_head,
        length,
        extra,
        x.forwarded,
    )
