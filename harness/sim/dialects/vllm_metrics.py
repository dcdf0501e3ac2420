"""vLLM's `/metrics`, in the names, labels and types of version 0.32 (recorded in tests/data/wire/vllm-0.32-http)."""

from __future__ import annotations

import prometheus_client
from prometheus_client.registry import CollectorRegistry

from harness.sim.exposition import NO_LABELS, Exposition, Histogram
from harness.sim.job import Api
from harness.sim.measures import Measures
from harness.sim.scheduler import Scheduler
from harness.sim.settings import SimSettings

REASONS = ("stop", "length", "abort", "error", "repetition")
CACHE_CONFIG = {
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": "None",
    "enable_mamba_shared_prefix_checkpoint": "False",
    "enable_prefix_caching": "True",
    "gpu_memory_utilization": "0.92",
    "hash_block_size": "None",
    "is_attention_free": "False",
    "kv_cache_dtype_skip_layers": "[]",
    "kv_cache_layout": "None",
    "kv_cache_memory_bytes": "0",
    "kv_offloading_backend": "native",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "float32",
    "num_cpu_blocks": "None",
    "num_gpu_blocks_override": "None",
    "prefix_cache_retention_interval": "0",
    "prefix_caching_hash_algo": "simulated",
    "prefix_match_unit": "None",
    "replayssm_buffer_len": "16",
    "skip_page_size_padded": "None",
    "sliding_window": "None",
    "swa_bounded_replay": "True",
    "use_kda_recoverssm": "False",
    "use_replayssm": "False",
    "user_specified_block_size": "False",
    "_block_size_resolved": "True",
}


def process() -> str:
    """Return the metrics of this process and its Python, which prometheus-client measures."""
    registry = CollectorRegistry()
    prometheus_client.GCCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    prometheus_client.ProcessCollector(registry=registry)
    return prometheus_client.generate_latest(registry).decode()


def exposition(settings: SimSettings, scheduler: Scheduler, measures: Measures) -> str:
    """Return the whole text."""
    out = Exposition({"engine": "0", "model_name": settings.model}, measures.created_s)
    _load(out, settings, scheduler)
    _tokens(out, scheduler, measures)
    _requests(out, settings, scheduler, measures)
    _http(out, measures)
    _tools(out, settings, measures)
    return process() + out.text()


def _load(out: Exposition, settings: SimSettings, scheduler: Scheduler) -> None:
    waiting = len(scheduler.waiting)
    for what in ("flops", "read_bytes", "write_bytes"):
        out.counter(f"vllm:estimated_{what}_per_gpu_total", "Estimated work of a GPU; a simulated engine has none.", [(NO_LABELS, 0)])
    out.gauge("vllm:num_requests_running", "Requests in the batch.", [(NO_LABELS, len(scheduler.running))])
    out.gauge("vllm:num_requests_waiting", "Requests in the queue.", [(NO_LABELS, waiting)])
    by_reason = [({"reason": "capacity"}, waiting), ({"reason": "deferred"}, 0)]
    out.gauge("vllm:num_requests_waiting_by_reason", "Requests in the queue, by what they wait for.", by_reason)
    states = [({"sleep_state": state}, float(state == "awake")) for state in ("awake", "weights_offloaded", "discard_all")]
    out.gauge("vllm:engine_sleep_state", "Which sleep state the engine is in.", states)
    used = scheduler.pool.used / scheduler.pool.capacity
    out.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use; 1 is all.", [(NO_LABELS, used)])
    counters = scheduler.counters
    out.counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.", [(NO_LABELS, counters.prompt_tokens)])
    out.counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", [(NO_LABELS, counters.cached_tokens)])
    for name in ("external_prefix_cache_queries", "external_prefix_cache_hits", "mm_cache_queries", "mm_cache_hits"):
        out.counter(f"vllm:{name}_total", "Of a cache that a simulated engine does not have.", [(NO_LABELS, 0)])
    size = str(settings.block_size)
    config = {**CACHE_CONFIG, "block_size": size, "effective_attention_block_size": size, "num_gpu_blocks": str(scheduler.pool.capacity)}
    config |= {
        "kv_cache_size_tokens": str(settings.kv_tokens),
        "kv_cache_max_concurrency": str(round(settings.kv_tokens / settings.max_model_len, 2)),
    }
    out.gauge("vllm:cache_config_info", "Settings of the KV cache, as labels.", [({**config, "engine": "0"}, 1)], bare=True)


def _tokens(out: Exposition, scheduler: Scheduler, measures: Measures) -> None:
    counters = scheduler.counters
    cached = counters.cached_tokens
    out.counter("vllm:num_preemptions_total", "Requests that had to give their KV blocks back.", [(NO_LABELS, counters.preemptions)])
    out.counter("vllm:prompt_tokens_total", "Prompt tokens processed.", [(NO_LABELS, counters.prompt_tokens)])
    sources = {"local_compute": counters.prompt_tokens - cached, "local_cache_hit": cached, "external_kv_transfer": 0}
    out.counter(
        "vllm:prompt_tokens_by_source_total",
        "Prompt tokens processed, by where they came from.",
        [({"source": name}, value) for name, value in sources.items()],
    )
    out.counter("vllm:prompt_tokens_cached_total", "Prompt tokens that were cached.", [(NO_LABELS, cached)])
    where = {"device": cached, "host": 0, "p2p": 0, "disk": 0, "external_unspecified": 0}
    out.counter(
        "vllm:prompt_tokens_cached_by_source_total",
        "Prompt tokens that were cached, by where.",
        [({"source": name}, value) for name, value in where.items()],
    )
    out.counter("vllm:generation_tokens_total", "Tokens generated.", [(NO_LABELS, counters.generated_tokens)])
    out.histogram("vllm:iteration_tokens_total", "Tokens of one step.", [(NO_LABELS, measures.iteration_tokens)])


def _requests(out: Exposition, settings: SimSettings, scheduler: Scheduler, measures: Measures) -> None:
    ended = {**measures.finished, "abort": scheduler.counters.aborted}
    out.counter(
        "vllm:request_success_total",
        "Requests that ended, by why.",
        [({"finished_reason": reason}, ended.get(reason, 0)) for reason in REASONS],
    )
    name = {"model_name": settings.model}
    rejections = [({**name, "reason": f"max_num_queued_{what}"}, 0.0) for what in ("reqs", "tokens")]
    out.counter("vllm:admission_rejections_total", "Requests refused for a full queue.", rejections, bare=True)
    histograms: list[tuple[str, str, Histogram]] = [
        ("request_prompt_tokens", "Prompt tokens of a request.", measures.prompt_tokens),
        ("request_generation_tokens", "Tokens generated for a request.", measures.generation_tokens),
        ("request_max_num_generation_tokens", "Longest answer of a request.", measures.max_generation_tokens),
        ("request_params_n", "The n of a request.", measures.params_n),
        ("request_params_max_tokens", "The max_tokens of a request.", measures.params_max_tokens),
        ("time_to_first_token_seconds", "Time to the first token.", measures.first_token_s),
        ("inter_token_latency_seconds", "Time between two tokens.", measures.inter_token_s),
        ("request_time_per_output_token_seconds", "Mean time between tokens of a request.", measures.token_s),
        ("e2e_request_latency_seconds", "Time of a whole request.", measures.e2e_s),
        ("request_queue_time_seconds", "Time in the queue.", measures.queue_s),
        ("request_inference_time_seconds", "Time in the batch.", measures.inference_s),
        ("request_prefill_time_seconds", "Time in prefill.", measures.prefill_s),
        ("request_decode_time_seconds", "Time in decode.", measures.decode_s),
        ("request_num_preemptions", "Preemptions of a request.", measures.preemptions),
        ("request_prefill_kv_computed_tokens", "Prompt tokens computed, without cached ones.", measures.computed_tokens),
    ]
    for short, text, histogram in histograms:
        out.histogram(f"vllm:{short}", text, [(NO_LABELS, histogram)])


def _http(out: Exposition, measures: Measures) -> None:
    grouped: dict[tuple[str, str, str], int] = {}
    for (method, path, status), count in measures.answers.items():
        key = (method, path, f"{status // 100}xx")
        grouped[key] = grouped.get(key, 0) + count
    requests = [({"handler": path, "method": method, "status": status}, count) for (method, path, status), count in grouped.items()]
    out.counter("http_requests_total", "HTTP requests by method, status and handler.", requests, bare=True)
    sizes: dict[str, tuple[int, int, int]] = {}
    for (method, path), count in measures.http.items():
        before = sizes.get(path, (0, 0, 0))
        received, sent = measures.request_bytes.get((method, path), 0), measures.answer_bytes.get((method, path), 0)
        sizes[path] = (before[0] + count, before[1] + received, before[2] + sent)
    received_rows = [({"handler": path}, count, size) for path, (count, size, _) in sizes.items()]
    sent_rows = [({"handler": path}, count, size) for path, (count, _, size) in sizes.items()]
    out.summary("http_request_size_bytes", "Body size of requests by handler.", received_rows, bare=True)
    out.summary("http_response_size_bytes", "Body size of answers by handler.", sent_rows, bare=True)
    highr = [(NO_LABELS, measures.http_duration_highr)]
    out.histogram("http_request_duration_highr_seconds", "Time of HTTP requests, many buckets.", highr, bare=True)
    durations = [({"handler": path, "method": method}, found) for (method, path), found in measures.http_durations.items()]
    out.histogram("http_request_duration_seconds", "Time of HTTP requests by handler.", durations, bare=True)


def _tools(out: Exposition, settings: SimSettings, measures: Measures) -> None:
    rows = []
    for streaming, mode in ((True, "streaming"), (False, "non_streaming")):
        for called, outcome in ((True, "tool_call"), (False, "no_tool_call")):
            for api, kind in ((Api.CHAT, "chat_completions"), (Api.RESPONSES, "responses"), (Api.POOL, "other")):
                labels = {"mode": mode, "model_name": settings.model, "outcome": outcome, "request_type": kind}
                rows.append((labels, float(measures.tool_calls.get((streaming, called, api), 0))))
    out.counter("vllm:tool_call_parser_invocations_total", "Answers that went through the tool parser.", rows, bare=True)
