"""SGLang's `/metrics`, in the names, labels and types of version 0.5.23 (recorded in tests/data/wire/sglang-0.5.23-http)."""

from __future__ import annotations

import itertools
import math
import os
import time

from harness.sim.exposition import NO_LABELS, Exposition, Histogram, Labels
from harness.sim.measures import Measures
from harness.sim.scheduler import Scheduler
from harness.sim.settings import SimSettings

STAGES = (
    "other",
    "recv_requests",
    "process_input_requests",
    "get_next_batch_to_run",
    "process_queue",
    "run_batch",
    "process_batch_result",
    "sanity_check_cache",
    "idle",
)
GRAPH_PHASES = ("prefill", "decode", "target_verify", "draft_prefill", "draft_decode", "draft_extend")
KEY_BOUNDS = ("0", "1", "2", "3", "5", "7", "10", "20", "50", "100", "200", "+Inf")
RATIO_BOUNDS = (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 15, 20, 30, 45, 60)
WAIT_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
ALWAYS_ZERO = (
    "num_grammar_queue_reqs swa_token_usage mamba_usage swa_available_tokens swa_evictable_tokens swa_used_tokens "
    "mamba_available_tokens mamba_evictable_tokens mamba_used_tokens spec_accept_length spec_accept_rate spec_cap_length "
    "spec_block_accept_length spec_num_steps spec_num_draft_tokens num_prefill_bootstrap_queue_reqs "
    "num_prefill_inflight_queue_reqs num_decode_prealloc_queue_reqs num_decode_transfer_queue_reqs "
    "num_decode_host_receive_queue_reqs num_decode_deferred_kv_release_reqs pending_prealloc_token_usage "
    "prealloc_full_token_usage prealloc_swa_token_usage is_cuda_graph num_unique_running_routing_keys"
)
"""Gauges of features that a simulated engine does not have: speculation, disaggregation, sliding windows, state-space layers."""


def exposition(settings: SimSettings, scheduler: Scheduler, measures: Measures, throughput: float) -> str:
    """Return the whole text."""
    ranks = {"moe_ep_rank": "0", "pp_rank": "0", "tp_rank": "0"}
    base = {"engine_type": "unified", "model_name": settings.model, **ranks}
    out = Exposition(base, None)
    _server(out, settings, measures, base)
    _work(out, scheduler)
    _times(out, measures)
    _load(out, settings, scheduler, throughput)
    return out.text()


def _server(out: Exposition, settings: SimSettings, measures: Measures, base: Labels) -> None:
    engine = {"engine_type": "unified", "model_name": settings.model}
    phases = ("load_weight", "kv_cache_allocation", "scheduler_e2e", "tokenizer_e2e")
    rows: list[tuple[Labels, float]] = [({**engine, "phase": phase}, 0.0) for phase in phases]
    out.gauge("sglang:startup_time_seconds", "Time of each phase of the start.", rows, bare=True)
    rows = [({**engine, "phase": phase}, 0.0) for phase in GRAPH_PHASES]
    out.gauge("sglang:startup_cuda_graph_time_seconds", "Time of capturing graphs, by phase.", rows, bare=True)
    out.gauge("sglang:routing_keys_active", "Routing keys with requests in flight.", [(NO_LABELS, 0)], bare=True)
    answered: dict[tuple[str, str], int] = {}
    for (method, path, _), count in measures.answers.items():
        answered[method, path] = answered.get((method, path), 0) + count
    http = measures.http.items()
    active = [({"endpoint": path, "method": method}, count - answered.get((method, path), 0)) for (method, path), count in http]
    out.gauge("sglang:http_requests_active", "HTTP requests without an answer yet.", active, bare=True)
    pid = {**base, "pid": str(os.getpid())}
    out.gauge("sglang:num_retracted_reqs", "Requests that gave their KV back.", [(pid, 0)], bare=True)
    out.gauge("sglang:num_paused_reqs", "Requests paused.", [(pid, 0)], bare=True)
    cpu = [({"component": "tokenizer"}, time.process_time()), ({"component": "detokenizer"}, 0.0)]
    out.counter("sglang:process_cpu_seconds_total", "CPU time of this process.", cpu, bare=True)
    came = [({"endpoint": path, "method": method}, count) for (method, path), count in http]
    out.counter("sglang:http_requests_total", "HTTP requests by endpoint and method.", came, bare=True)
    went = [
        ({"endpoint": path, "method": method, "status_code": str(status)}, count)
        for (method, path, status), count in measures.answers.items()
    ]
    out.counter("sglang:http_responses_total", "HTTP answers by endpoint and status.", went, bare=True)


def _work(out: Exposition, scheduler: Scheduler) -> None:
    counters = scheduler.counters
    computed = counters.prompt_tokens - counters.cached_tokens
    modes = {"input": computed, "device_hit": counters.cached_tokens, "host_hit": 0, "storage_hit": 0}
    rows = [({"mode": mode}, float(value)) for mode, value in modes.items()]
    out.counter("sglang:prefill_effective_tokens_total", "Prompt tokens by where they came from.", rows)
    out.counter("sglang:scheduler_idle_seconds_total", "Time without work.", [(NO_LABELS, 0)])
    out.counter("sglang:scheduler_process_cpu_seconds_total", "CPU time of the scheduler.", [(NO_LABELS, time.process_time())])
    stages = [({"category": stage, "forward_overlap": "none"}, counters.busy_s if stage == "run_batch" else 0.0) for stage in STAGES]
    out.counter("sglang:scheduler_stage_seconds_total", "Time of each stage of the scheduler's loop.", stages)
    kinds = [({"kind": kind}, 0.0) for kind in ("scheduled", "imbalance")]
    states = [({"rank_state": state}, 0.0) for state in ("active", "idle")]
    out.counter("sglang:dp_attention_tokens_total", "Tokens of data-parallel attention.", kinds)
    out.counter("sglang:dp_attention_steps_total", "Steps of data-parallel attention.", states)
    out.counter("sglang:dp_attention_pairs_total", "Pairs of data-parallel attention.", kinds)
    out.counter("sglang:cuda_graph_passes_total", "Forward passes by kind.", [({"mode": "prefill_none"}, counters.steps)])
    tokens = [({"mode": "prefill_compute"}, computed), ({"mode": "decode"}, counters.generated_tokens)]
    out.counter("sglang:realtime_tokens_total", "Tokens by kind of work.", tokens)


def _times(out: Exposition, measures: Measures) -> None:
    out.histogram("sglang:dp_attention_token_imbalance_ratio", "Imbalance between ranks.", [(NO_LABELS, Histogram(RATIO_BOUNDS))])
    out.histogram("sglang:dp_attention_sync_wait_seconds", "Time that ranks wait.", [(NO_LABELS, Histogram(WAIT_BOUNDS))])
    stages = [({"stage": "request_process"}, measures.sglang_process_s), ({"stage": "prefill_forward"}, measures.sglang_prefill_s)]
    out.histogram("sglang:per_stage_req_latency_seconds", "Time of each stage of a request.", stages)
    out.histogram("sglang:queue_time_seconds", "Time in the queue.", [(NO_LABELS, measures.sglang_queue_s)])


def _load(out: Exposition, settings: SimSettings, scheduler: Scheduler, throughput: float) -> None:
    pool, size, counters = scheduler.pool, settings.block_size, scheduler.counters
    usage = pool.used / pool.capacity
    running = len(scheduler.running)
    values = {
        "max_total_num_tokens": settings.kv_tokens,
        "weight_memory_usage_gb": 0.0,
        "kv_cache_memory_usage_gb": 0.0,
        "page_size": size,
        "num_pages": pool.capacity,
        "context_len": settings.max_model_len,
        "startup_available_gpu_memory_gb": 0.0,
        "num_running_reqs": running,
        "num_queue_reqs": len(scheduler.waiting),
        "gen_throughput": throughput,
        "cache_hit_rate": counters.cached_tokens / counters.prompt_tokens if counters.prompt_tokens else 0.0,
        "decode_sum_seq_lens": sum(sequence.computed for sequence in scheduler.running),
        "token_usage": usage,
        "full_token_usage": usage,
        "num_used_tokens": pool.used * size,
        "kv_available_tokens": pool.free * size,
        "kv_evictable_tokens": pool.idle * size,
        "kv_used_tokens": pool.used * size,
        "utilization": running / settings.max_running,
        "fwd_occupancy": math.nan,
        "new_token_ratio": 0.7,
        **dict.fromkeys(ALWAYS_ZERO.split(), 0.0),
    }
    for name, value in values.items():
        out.gauge(f"sglang:{name}", f"{name.replace('_', ' ').capitalize()} of the engine.", [(NO_LABELS, value)])
    graphs = [({"phase": phase}, 0.0) for phase in GRAPH_PHASES]
    out.gauge("sglang:graph_memory_usage_gb", "Memory of captured graphs, by phase.", graphs)
    for which in ("running", "all"):
        ranges = [({"gt": low, "le": high}, 0.0) for low, high in itertools.pairwise(KEY_BOUNDS)]
        out.gauge(f"sglang:routing_key_{which}_req_count", "Routing keys by their number of requests.", ranges)
