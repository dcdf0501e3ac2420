"""Answers about the engine itself: models, versions, server info, loads."""

from __future__ import annotations

import time
import zlib
from datetime import UTC, datetime
from typing import Any

from harness.sim.driver import Driver
from harness.sim.scheduler import Scheduler
from harness.sim.settings import SimSettings

VLLM_VERSION = "0.32.0"
SGLANG_VERSION = "0.5.23"
TRTLLM_VERSION = "1.2.1"


def models(settings: SimSettings) -> dict[str, Any]:
    """Return `/v1/models` in the engine's own fields; adapters name their parent."""
    created = int(time.time())
    cards: list[dict[str, Any]] = []
    for name in settings.names:
        parent = settings.model if name in settings.loras else None
        card: dict[str, Any] = {"id": name, "object": "model", "created": created}
        match settings.flavour:
            case "vllm":
                card |= {"owned_by": "vllm", "root": name, "parent": parent}
                card["max_model_len"] = settings.max_model_len if parent is None else None
                card["permission"] = [_permission(name, created)]
            case "sglang":
                card |= {"owned_by": "sglang", "root": name, "parent": parent}
                card["max_model_len"] = settings.max_model_len if parent is None else None
            case "trtllm":
                card["owned_by"] = "tensorrt_llm"
        cards.append(card)
    return {"object": "list", "data": cards}


def _permission(name: str, created: int) -> dict[str, Any]:
    return {
        "id": f"modelperm-{zlib.crc32(name.encode()):016x}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }


def orca(settings: SimSettings, driver: Driver, style: str) -> str | None:
    """Return the value of `endpoint-load-metrics` in the style asked for (`json` or `text`), None for an unknown one.

    The names are the engine's own: vLLM's, or those of Triton in front of TensorRT-LLM.
    """
    scheduler = driver.scheduler
    if settings.flavour == "vllm":
        named: dict[str, float] = {"num_requests_waiting": float(len(scheduler.waiting)), "kv_cache_usage_perc": kv_usage(scheduler)}
    else:
        named = {"kv_cache_utilization": kv_usage(scheduler), "max_token_capacity": settings.kv_tokens}
    match style.strip().lower():
        case "json":
            pairs = ", ".join(f'"{name}": {value}' for name, value in named.items())
            return f'JSON {{"named_metrics": {{{pairs}}}}}'
        case "text":
            return "TEXT " + ", ".join(f"named_metrics.{name}={value}" for name, value in named.items())
        case _:
            return None


def kv_usage(scheduler: Scheduler) -> float:
    """Return the share of KV blocks that requests need."""
    return scheduler.pool.used / scheduler.pool.capacity


def cache_hit_rate(scheduler: Scheduler) -> float:
    """Return the share of prompt tokens that the prefix cache gave, since the start."""
    counters = scheduler.counters
    return counters.cached_tokens / counters.prompt_tokens if counters.prompt_tokens else 0.0


def model_info(settings: SimSettings) -> dict[str, Any]:
    """Return SGLang's `/get_model_info` (`/model_info`)."""
    return {
        "model_path": settings.model,
        "served_model_name": settings.model,
        "tokenizer_path": settings.model,
        "is_generation": "generate" in settings.tasks,
        "preferred_sampling_params": None,
        "weight_version": "default",
        "load_format": "auto",
        "reasoning_parser": None,
        "tool_call_parser": "qwen",
        "disaggregation_mode": "null",
        "has_image_understanding": False,
        "has_audio_understanding": False,
        "model_type": "smg-sim",
        "architectures": ["SmgSimForCausalLM"],
        "embedding": _embedding(),
    }


def _embedding() -> dict[str, Any]:
    return {
        "family": "none",
        "task": "none",
        "execution": "none",
        "attention": "none",
        "pooling": "model_defined",
        "normalize": False,
        "postprocessor": "none",
        "tokenizer_special_tokens": "model_default",
        "supports_dimensions": False,
        "supports_token_embeddings": False,
        "supports_multimodal": False,
        "requires_embedding_flag": False,
        "auto_enable_embedding": False,
        "bcg_eligibility": "disabled",
        "safe_disable_kv_cache": False,
        "safe_disable_radix_cache": False,
        "safe_disable_chunked_prefill": False,
        "enabled": False,
        "matryoshka_dimensions": [],
        "bcg": {"prefill_backend": "disabled", "enabled": False, "capture_token_budget": 4096, "capture_batch_sizes": [4, 8, 16]},
        "cache": {"kv_cache_disabled": False, "radix_cache_disabled": False, "chunked_prefill_disabled": False},
    }


def server_info(settings: SimSettings, driver: Driver, throughput: float) -> dict[str, Any]:
    """Return SGLang's `/get_server_info` (`/server_info`): its start arguments, then what the scheduler says."""
    return {
        "model_path": settings.model,
        "tokenizer_path": settings.model,
        "tokenizer_mode": "auto",
        "tokenizer_backend": "huggingface",
        "tokenizer_worker_num": 1,
        "detokenizer_worker_num": 1,
        "skip_tokenizer_init": False,
        "load_format": "auto",
        "model_loader_extra_config": "{}",
        "trust_remote_code": False,
        "context_length": settings.max_model_len,
        "is_embedding": "generate" not in settings.tasks,
        "enable_multimodal": None,
        "revision": None,
        "model_impl": "auto",
        "model_config_parser": "auto",
        "json_model_override_args": "{}",
        "dtype": "auto",
        "quantization": None,
        "quantization_param_path": None,
        "kv_cache_dtype": "auto",
        "enable_fp32_lm_head": False,
        "served_model_name": settings.model,
        "tp_size": 1,
        "pp_size": 1,
        "dp_size": 1,
        "page_size": settings.block_size,
        "chunked_prefill_size": settings.max_batched_tokens,
        "max_running_requests": settings.max_running,
        "max_total_num_tokens": settings.kv_tokens,
        "disable_radix_cache": False,
        "tool_call_parser": "qwen",
        "reasoning_parser": None,
        "disaggregation_mode": "null",
        "random_seed": settings.seed,
        "internal_states": [
            {
                "last_gen_throughput": round(throughput, 2),
                "memory_usage": {"weight": 0.012, "kvcache": 0.016, "token_capacity": settings.kv_tokens, "graph": 0.0},
                "effective_max_running_requests_per_dp": settings.max_running,
            }
        ],
        "version": SGLANG_VERSION,
    }


def loads(settings: SimSettings, driver: Driver, throughput: float) -> dict[str, Any]:
    """Return SGLang's `/v1/loads`."""
    scheduler = driver.scheduler
    used = scheduler.pool.used * settings.block_size
    queued = len(scheduler.waiting)
    uncached = sum(sequence.target for sequence in scheduler.waiting)
    running = len(scheduler.running)
    return {
        "timestamp": datetime.now(UTC).isoformat(),
        "version": SGLANG_VERSION,
        "accelerator": None,
        "num_accelerators": 1,
        "loads": [
            {
                "timestamp": time.time(),
                "dp_rank": 0,
                "num_running_reqs": running,
                "num_waiting_reqs": queued,
                "num_waiting_uncached_tokens": uncached,
                "num_used_tokens": used,
                "num_total_tokens": used + uncached,
                "num_active_tokens": used,
                "num_prealloc_ready_tokens": 0,
                "max_total_num_tokens": settings.kv_tokens,
                "max_running_requests": settings.max_running,
                "token_usage": round(kv_usage(scheduler), 4),
                "gen_throughput": round(throughput, 2),
                "cache_hit_rate": round(cache_hit_rate(scheduler), 4),
                "utilization": round(running / settings.max_running, 4),
                "total_prefill_uncached_tokens": scheduler.counters.prompt_tokens - scheduler.counters.cached_tokens,
                "total_prefill_busy_us": 0,
                "decode_moments": [float(scheduler.counters.steps), 0.0, 0.0, 0.0, 0.0, 0.0],
                "memory": {"weight_gb": 0.012, "kv_cache_gb": 0.016, "graph_gb": 0.0, "token_capacity": settings.kv_tokens},
                "disaggregation": {
                    "mode": "null",
                    "prefill_bootstrap_queue_reqs": 0,
                    "prefill_inflight_queue_reqs": 0,
                    "decode_prealloc_queue_reqs": 0,
                    "decode_transfer_queue_reqs": 0,
                    "decode_retracted_queue_reqs": 0,
                    "kv_transfer_speed_gb_s": 0.0,
                    "kv_transfer_latency_ms": 0.0,
                },
                "queues": {"waiting": queued, "grammar": 0, "paused": 0, "retracted": 0, "prealloc_ready": 0},
            }
        ],
    }
