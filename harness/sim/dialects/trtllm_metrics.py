"""TensorRT-LLM's `/metrics` (iteration statistics as JSON) and `/prometheus/metrics`, by its documentation; nothing is recorded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from harness.sim.exposition import NO_LABELS, Exposition
from harness.sim.measures import Measures
from harness.sim.scheduler import Scheduler
from harness.sim.settings import SimSettings


def iteration_stats(settings: SimSettings, scheduler: Scheduler, wall_s: float) -> list[dict[str, Any]]:
    """Return the statistics since the last step: one entry, none before the first step."""
    counters = scheduler.counters
    if not counters.steps:
        return []
    pool = scheduler.pool
    computed = counters.prompt_tokens - counters.cached_tokens
    decoding = sum(1 for sequence in scheduler.running if sequence.produced)
    return [
        {
            "timestamp": datetime.fromtimestamp(wall_s, UTC).strftime("%m-%d-%Y %H:%M:%S.%f"),
            "iter": counters.steps,
            "iterLatencyMS": counters.last_step_s * 1000.0,
            "newActiveRequestsQueueLatencyMS": 0.0,
            "numActiveRequests": len(scheduler.running),
            "numNewActiveRequests": 0,
            "numCompletedRequests": counters.finished,
            "numQueuedRequests": len(scheduler.waiting),
            "maxNumActiveRequests": settings.max_running,
            "maxBatchSizeStatic": settings.max_running,
            "maxNumTokensStatic": settings.max_batched_tokens,
            "gpuMemUsage": 0,
            "cpuMemUsage": 0,
            "pinnedMemUsage": 0,
            "kvCacheStats": {
                "maxNumBlocks": pool.capacity,
                "freeNumBlocks": pool.free + pool.idle,
                "usedNumBlocks": pool.used,
                "tokensPerBlock": settings.block_size,
                "allocTotalBlocks": pool.used,
                "allocNewBlocks": computed // settings.block_size,
                "reusedBlocks": counters.cached_tokens // settings.block_size,
                "missedBlocks": computed // settings.block_size,
                "cacheHitRate": counters.cached_tokens / counters.prompt_tokens if counters.prompt_tokens else 0.0,
            },
            "inflightBatchingStats": {
                "numScheduledRequests": len(scheduler.running),
                "numContextRequests": len(scheduler.running) - decoding,
                "numGenRequests": decoding,
                "numPausedRequests": 0,
                "numCtxTokens": computed,
                "microBatchId": 0,
                "avgNumDecodedTokensPerIter": 1.0,
            },
        }
    ]


def exposition(settings: SimSettings, scheduler: Scheduler, measures: Measures) -> str:
    """Return the Prometheus text."""
    out = Exposition({"engine_type": "undefined", "model_name": "undefined"}, None)
    finished = [({"finished_reason": reason}, float(count)) for reason, count in measures.finished.items()]
    out.counter("trtllm_request_success_total", "Requests that ended, by why.", finished)
    out.histogram("trtllm_e2e_request_latency_seconds", "Time of a whole request.", [(NO_LABELS, measures.e2e_s)])
    out.histogram("trtllm_time_to_first_token_seconds", "Time to the first token.", [(NO_LABELS, measures.first_token_s)])
    out.histogram("trtllm_time_per_output_token_seconds", "Mean time between tokens of a request.", [(NO_LABELS, measures.token_s)])
    out.histogram("trtllm_request_queue_time_seconds", "Time in the queue.", [(NO_LABELS, measures.queue_s)])
    pool, counters = scheduler.pool, scheduler.counters
    hits = counters.cached_tokens / counters.prompt_tokens if counters.prompt_tokens else 0.0
    out.gauge("trtllm_kv_cache_hit_rate", "Share of prompt blocks that were cached.", [(NO_LABELS, hits)])
    out.gauge("trtllm_kv_cache_utilization", "Share of KV blocks in use.", [(NO_LABELS, pool.used / pool.capacity)])
    return out.text()
