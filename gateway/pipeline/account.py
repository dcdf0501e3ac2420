"""Phase account: always last, exactly once for every request, also after an error and when the client left.

Tokens are settled as far as the answer got: by the engine's own usage where it told one, else by what was seen go out (one
event counts as one token, the prompt by its bytes), so that an answer cut short is not counted as free.
"""

from __future__ import annotations

from gateway.pipeline.admit import BYTES_A_TOKEN
from gateway.pipeline.context import Exchange
from gateway.protocol.usage import Usage
from gateway.runtime import Runtime
from gateway.telemetry.cells import ModelCells


def account(x: Exchange, rt: Runtime) -> None:
    """Count a request that ended and give back what it held."""
    x.over = True
    now_s = rt.time()
    duration_s = now_s - x.started_s
    error = x.error
    code = error.code.value if error is not None else ""
    cells = rt.endpoint_cells[x.endpoint.path]
    cells.requests += 1
    cells.duration.observe(duration_s)
    key = (x.status, code)
    cells.responses[key] = cells.responses.get(key, 0) + 1
    usage = x.usage
    estimated = False
    if usage is None and x.streaming:
        usage, estimated = _as_far_as_it_got(x), True
    if x.cells is not None:
        _count(x, x.cells, code, usage, estimated, duration_s, now_s)
    ticket = x.ticket
    if ticket is not None:
        x.ticket = None
        if not x.attempt_count:
            ticket.abandon()  # no worker was asked: it does not count against the tenant
        elif usage is not None:
            ticket.settle(usage.prompt_tokens + usage.completion_tokens)
        elif x.status == 499:
            ticket.settle(len(x.prompt) // BYTES_A_TOKEN)  # the worker had begun: who leaves in time does not work for free
        elif x.status != 200 or not x.endpoint.uses_tokens:
            ticket.settle(0)  # nothing was generated for it; any other answer without a usage keeps its estimate
        ticket.release()
    if x.span is not None:
        x.span.end(x.status, code, usage, first_token_s=x.first_token_s - x.started_s if x.first_token_s else None)
    if rt.access_log is not None:
        rt.access_log.write(
            request_id=x.request_id.decode("latin-1"),
            path=x.endpoint.path,
            model=x.facts.model[:128],
            status=x.status,
            code=code,
            source=str(error.source) if error is not None else "",
            worker=x.worker.url if x.worker is not None else "",
            attempts=x.attempt_count,
            stream=x.streaming,
            usage=usage,
            ttft_s=x.first_token_s - x.started_s if x.first_token_s else None,
            duration_s=duration_s,
            tenant=x.identity.tenant if x.identity is not None else "",
            bytes_out=x.bytes_out,
        )


def _count(x: Exchange, cells: ModelCells, code: str, usage: Usage | None, estimated: bool, duration_s: float, now_s: float) -> None:
    cells.requests += 1
    cells.duration.observe(duration_s)
    if code:
        cells.errors[code] = cells.errors.get(code, 0) + 1
    if usage is not None:
        cells.prompt_tokens += usage.prompt_tokens
        cells.completion_tokens += usage.completion_tokens
        cells.cached_tokens += usage.cached_tokens
    if estimated or (usage is None and not code and x.status == 200 and x.endpoint.uses_tokens):
        cells.usage_missing += 1
    if x.streaming and x.first_token_s:
        cells.ttft.observe(x.first_token_s - x.started_s)
        generation_s = now_s - x.first_token_s
        cells.generation.observe(generation_s)
        if usage is not None and usage.completion_tokens > 1:
            cells.tpot.observe(generation_s / (usage.completion_tokens - 1))


def _as_far_as_it_got(x: Exchange) -> Usage | None:
    """Estimate the tokens of a stream that told no usage."""
    if not x.first_token_s:
        return Usage(len(x.prompt) // BYTES_A_TOKEN, 0, 0)
    return Usage(len(x.prompt) // BYTES_A_TOKEN, max(1, x.events), 0)
