"""What a simulated engine is: its flavour, names, speeds and limits, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

Flavour = Literal["vllm", "sglang", "trtllm"]
Task = Literal["generate", "embed", "rerank"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimSettings:
    """Settings of one simulated engine; the defaults are those of a small model on a fast accelerator."""

    flavour: Flavour = "vllm"
    """Whose HTTP surface is spoken: vLLM 0.32, SGLang 0.5.23 or TensorRT-LLM's `trtllm-serve`."""
    model: str = "sim-model"
    """Name of the served model."""
    aliases: tuple[str, ...] = ()
    """Further names of the same model, each listed by `/v1/models` (vLLM's `--served-model-name` takes several)."""
    loras: tuple[str, ...] = ()
    """Names of LoRA adapters, listed by `/v1/models` with the model as parent."""
    tasks: tuple[Task, ...] = TASKS
    """What the model is for; the routes of other tasks answer as the engine does without them."""
    seed: int = 0
    """Same seed and same prompt give the same text; also seeds the faults with a rate."""
    api_key: str | None = field(default=None, repr=False)
    """Bearer token that clients must send; none unless set."""
    max_model_len: int = 32_768
    """Context length, prompt and answer together."""
    prefill_tps: float = 20_000.0
    """Prompt tokens computed a second; 0 makes prefill take no time."""
    decode_base_ms: float = 5.0
    """Time of one decode step with no request in it."""
    decode_per_req_ms: float = 0.1
    """Time that each request adds to a decode step."""
    max_running: int = 256
    """Requests in a batch; further ones wait."""
    max_batched_tokens: int = 8_192
    """Tokens of one step, decode and prefill together (vLLM's max_num_batched_tokens): the size of a prefill chunk."""
    kv_tokens: int = 262_144
    """Tokens that the KV cache holds."""
    block_size: int = 16
    """Tokens of a KV block; only whole blocks are found again by the prefix cache."""
    output_tokens: int = 48
    """Mean length of an answer that nothing cuts short."""
    keep_alive_s: float = 5.0
    """Idle time after which a connection is closed (uvicorn's default, which the engines keep)."""
    cache_report: bool = False
    """SGLang only: report cached tokens in `usage` (its `--enable-cache-report`)."""
    request_id_headers: bool = True
    """vLLM only: answer with `x-request-id` (its `--enable-request-id-headers`)."""
    history: int = 64
    """Requests whose head and raw body are kept for `/_sim/state`."""
    crash_exits: bool = False
    """A crash ends the whole process; otherwise this engine alone drops its connections and listens no more."""

    def __post_init__(self) -> None:
        """Refuse settings that no engine could run with."""
        if self.flavour not in FLAVOURS:
            raise ValueError(f"unknown flavour {self.flavour!r}: choose one of {', '.join(FLAVOURS)}")
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(f"unknown task {task!r}: choose among {', '.join(TASKS)}")
        for name in ("max_model_len", "max_running", "max_batched_tokens", "kv_tokens", "block_size", "output_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("prefill_tps", "decode_base_ms", "decode_per_req_ms", "keep_alive_s", "history"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.kv_tokens < self.block_size:
            raise ValueError("kv_tokens must hold at least one block")

    @property
    def room_tokens(self) -> int:
        """Tokens of prompt and answer that one sequence can have: the context, or the KV cache where that is smaller."""
        return min(self.max_model_len, self.kv_tokens // self.block_size * self.block_size - 2)

    def knows(self, model: str) -> bool:
        """Tell whether a model name is served here: the model's, an alias or an adapter."""
        return model == self.model or model in self.aliases or model in self.loras

    @property
    def names(self) -> tuple[str, ...]:
        """All names that are served here, the model's first."""
        return (self.model, *self.aliases, *self.loras)
