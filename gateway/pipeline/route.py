"""Phase route: the model's pool, and its workers ranked once for all attempts."""

from __future__ import annotations

from gateway.errors import ClientError, Code, GatewayError, Retry
from gateway.pipeline.context import Exchange
from gateway.routing.engine import Pool
from gateway.runtime import Runtime
from gateway.workers.worker import Worker

STARTING_RETRY_S = 2.0
"""What a client is told to wait while workers start; the fleet asks them about this often."""


def route(x: Exchange, rt: Runtime) -> GatewayError | None:
    """Find the pool and ask its policy for a plan."""
    name = x.facts.model
    found = rt.router.route(name)
    if found is None:
        return _unknown(name, rt)
    x.pool = found.pool
    x.rewrite = found.rewrite
    x.plan = found.pool.plan(x)
    return None


def next_worker(x: Exchange) -> Worker | None:
    """Take the next worker of the plan that lets an attempt through; its load counts the attempt from here on."""
    for worker in x.plan or ():
        if worker.breaker.acquire():
            return worker
    return None


def replan(x: Exchange) -> None:
    """Rank again, when every worker of the plan has had its attempt."""
    assert x.pool is not None
    x.plan = x.pool.plan(x)


def no_candidate(pool: Pool, rt: Runtime) -> GatewayError:
    """The refusal where no worker of a known model can be asked."""
    if not pool.members:
        text, wait_s = "no worker serves this model now", STARTING_RETRY_S
    elif not any(worker.ready for worker in pool.members):
        text, wait_s = "no worker of this model is ready", STARTING_RETRY_S
    else:
        text, wait_s = "every worker of this model failed lately and is being left alone", rt.config.breaker.open_s
    return GatewayError(Code.NO_CANDIDATE, text, retry=Retry.CLIENT, retry_after_s=wait_s)


def _unknown(name: str, rt: Runtime) -> GatewayError:
    router = rt.router
    if not rt.registry.workers:
        return GatewayError(Code.NO_CANDIDATE, "the gateway has no workers", retry=Retry.CLIENT, retry_after_s=STARTING_RETRY_S)
    if router.starting:
        return GatewayError(Code.NO_CANDIDATE, "workers are still starting", retry=Retry.CLIENT, retry_after_s=STARTING_RETRY_S)
    if not name:
        return ClientError(Code.INVALID_REQUEST, "name a model: several are served here, see /v1/models", param="model")
    shown = name if len(name) <= 128 else name[:125] + "..."
    return ClientError(Code.MODEL_NOT_FOUND, f"the model `{shown}` is not served here, see /v1/models", param="model")
