"""`smgctl sim engine`: run simulated SGLang, vLLM or TensorRT-LLM servers until a signal."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from smgctl.context import ExitCode, SmgContext
from smgctl.options import examples

if TYPE_CHECKING:
    from harness.sim import SimEngine

EPILOG = examples(
    "smgctl sim engine --flavour vllm --port 8000",
    "smgctl sim engine --flavour sglang --port 8000 --count 4 --model llama --step-ms 20",
    """smgctl sim engine --port 8000 --fault '{"kind":"stall","after_events":3,"rate":0.01}'""",
)
SPEED, SIZE, WHAT = "Speed", "Size", "What it serves"


class FlavourName(StrEnum):
    """Whose HTTP surface is spoken."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM = "trtllm"


class TaskName(StrEnum):
    """What a model is for."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


def engine(
    ctx: typer.Context,
    flavour: Annotated[FlavourName, typer.Option(help="Whose HTTP surface is spoken.")] = FlavourName.VLLM,
    port: Annotated[int, typer.Option(help="First port; 0 takes free ones.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Engines in this process, on ports counting up.")] = 1,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    model: Annotated[str, typer.Option(metavar="NAME", help="Name of the served model.", rich_help_panel=WHAT)] = "sim-model",
    alias: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Further name of the model; repeatable.", rich_help_panel=WHAT)
    ] = None,
    lora: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name of a LoRA adapter; repeatable.", rich_help_panel=WHAT)
    ] = None,
    task: Annotated[
        list[TaskName] | None,
        typer.Option(metavar="TASK", help="generate, embed or rerank; repeatable: all unless given.", rich_help_panel=WHAT),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed and same prompt give the same text.", rich_help_panel=WHAT)] = 0,
    output_tokens: Annotated[int, typer.Option(help="Mean length of an answer that nothing cuts short.", rich_help_panel=WHAT)] = 48,
    api_key: Annotated[str | None, typer.Option(metavar="KEY", help="Bearer token that clients must send.", rich_help_panel=WHAT)] = None,
    tls_cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="PEM file; with --tls-key the engines speak HTTPS.", rich_help_panel=WHAT)
    ] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="PEM file of the key.", rich_help_panel=WHAT)] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="JSON", help='Fault armed from the start, as {"kind":"error","rate":0.1}; repeat for more.'),
    ] = None,
    step_ms: Annotated[float, typer.Option(help="Time of a decode step with no request in it.", rich_help_panel=SPEED)] = 5.0,
    per_request_ms: Annotated[float, typer.Option(help="Time that each request adds to a step.", rich_help_panel=SPEED)] = 0.1,
    prefill_tps: Annotated[float, typer.Option(help="Prompt tokens computed a second; 0 takes no time.", rich_help_panel=SPEED)] = 20_000.0,
    max_model_len: Annotated[int, typer.Option(help="Context length.", rich_help_panel=SIZE)] = 32_768,
    max_running: Annotated[int, typer.Option(help="Requests in a batch; further ones wait.", rich_help_panel=SIZE)] = 256,
    max_batched_tokens: Annotated[int, typer.Option(help="Tokens of a step: the size of a prefill chunk.", rich_help_panel=SIZE)] = 8_192,
    kv_tokens: Annotated[int, typer.Option(help="Tokens that the KV cache holds.", rich_help_panel=SIZE)] = 262_144,
    block_size: Annotated[int, typer.Option(help="Tokens of a KV block.", rich_help_panel=SIZE)] = 16,
) -> None:
    """Run simulated engines: real HTTP servers with a simulated batch inside, for trying and testing a gateway.

    Prints "listening URL" for each engine once all of them listen, and runs until SIGTERM or Ctrl-C.
    Arm faults with POST URL/_sim/faults, see what an engine saw with GET URL/_sim/state.
    """
    from harness.sim import SimSettings
    from harness.sim.faults import fault_from
    from harness.sim.serve import ports_from, serve, several, trouble
    from harness.sim.settings import TASKS

    context: SmgContext = ctx.obj

    def ready(engine: SimEngine) -> None:
        context.out.line(f"listening {engine.url}")
        sys.stdout.flush()

    try:
        settings = SimSettings(
            flavour=flavour.value,
            model=model,
            aliases=tuple(alias or ()),
            loras=tuple(lora or ()),
            tasks=tuple(one.value for one in task) if task else TASKS,
            seed=seed,
            output_tokens=output_tokens,
            api_key=api_key,
            decode_base_ms=step_ms,
            decode_per_req_ms=per_request_ms,
            prefill_tps=prefill_tps,
            max_model_len=max_model_len,
            max_running=max_running,
            max_batched_tokens=max_batched_tokens,
            kv_tokens=kv_tokens,
            block_size=block_size,
        )
        faults = [fault_from(text) for text in fault or ()]
        ports = ports_from(port, count)
        serve(several(settings, count), host, ports, ready=ready, tls_cert=tls_cert, tls_key=tls_key, faults=faults)
    except (ValueError, OSError) as problem:
        context.abort(trouble(problem, host), ExitCode.USAGE)
