"""`python -m harness.sim --flavour vllm --port 8000`: simulated engines without the command line of smgctl."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from harness.sim.engine import SimEngine
from harness.sim.faults import fault_from
from harness.sim.serve import ports_from, serve, several, trouble
from harness.sim.settings import FLAVOURS, TASKS, SimSettings

NUMBERS: dict[str, tuple[str, type[int] | type[float], str]] = {
    "seed": ("seed", int, "same seed and same prompt give the same text"),
    "step-ms": ("decode_base_ms", float, "time of a decode step with no request in it"),
    "per-request-ms": ("decode_per_req_ms", float, "time that each request adds to a step"),
    "prefill-tps": ("prefill_tps", float, "prompt tokens computed a second; 0 takes no time"),
    "output-tokens": ("output_tokens", int, "mean length of an answer that nothing cuts short"),
    "max-model-len": ("max_model_len", int, "context length"),
    "max-running": ("max_running", int, "requests in a batch; further ones wait"),
    "max-batched-tokens": ("max_batched_tokens", int, "tokens of a step: the size of a prefill chunk"),
    "kv-tokens": ("kv_tokens", int, "tokens that the KV cache holds"),
    "block-size": ("block_size", int, "tokens of a KV block"),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m harness.sim", description="Run simulated LLM engines.")
    made.add_argument("--flavour", choices=FLAVOURS, default="vllm", help="whose HTTP surface is spoken")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on")
    made.add_argument("--port", type=int, default=0, help="first port; 0 takes free ones")
    made.add_argument("--count", type=int, default=1, help="engines, on ports counting up")
    made.add_argument("--model", default="sim-model", help="name of the served model")
    made.add_argument("--alias", action="append", default=[], help="further name of the model")
    made.add_argument("--lora", action="append", default=[], help="name of a LoRA adapter")
    made.add_argument("--task", action="append", choices=TASKS, default=[], help="what the model is for; all unless given")
    made.add_argument("--api-key", help="bearer token that clients must send")
    made.add_argument("--tls-cert", help="PEM file")
    made.add_argument("--tls-key", help="PEM file")
    made.add_argument("--fault", action="append", default=[], metavar="JSON", help='fault from the start: {"kind":"error","rate":0.1}')
    for flag, (field, kind, text) in NUMBERS.items():
        made.add_argument(f"--{flag}", dest=field, type=kind, help=text)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code: 0 after a signal, 2 for settings that cannot be."""
    given = parser().parse_args(arguments)
    try:
        settings = SimSettings(
            flavour=given.flavour,
            model=given.model,
            aliases=tuple(given.alias),
            loras=tuple(given.lora),
            tasks=tuple(given.task) or TASKS,
            api_key=given.api_key,
            **{field: getattr(given, field) for field, _, _ in NUMBERS.values() if getattr(given, field) is not None},
        )
        faults = [fault_from(text) for text in given.fault]
        ports = ports_from(given.port, given.count)
        serve(
            several(settings, given.count),
            given.host,
            ports,
            ready=_ready,
            tls_cert=given.tls_cert,
            tls_key=given.tls_key,
            faults=faults,
        )
    except (ValueError, OSError) as problem:
        sys.stderr.write(f"error: {trouble(problem, given.host)}\n")
        return 2
    return 0


def _ready(engine: SimEngine) -> None:
    sys.stdout.write(f"listening {engine.url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
