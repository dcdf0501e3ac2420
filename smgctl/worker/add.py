"""`smgctl worker add`: route to one more engine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from smgctl.context import ExitCode, SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, examples

EPILOG = examples(
    "smgctl worker add http://127.0.0.1:8000",
    "smgctl worker add http://10.0.0.7:8000 --wait 60",
    "smgctl worker add https://engine.internal --model llama-3.1-8b --priority 80 --label zone=a --worker-key-env ENGINE_KEY",
)


def add(
    ctx: typer.Context,
    worker_url: Annotated[str, typer.Argument(metavar="WORKER_URL", help="http:// or https://, host and port.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="A model it serves; repeatable. Asked of the engine unless given.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="NAME", help="sglang, vllm, trtllm, llamacpp or openai. Found out unless given.")
    ] = None,
    priority: Annotated[int | None, typer.Option("--priority", metavar="N", help="Higher goes first, 0 to 1000: 50 unless set.")] = None,
    cost: Annotated[float | None, typer.Option("--cost", metavar="X", help="Cost 2 gets half of what cost 1 gets: 1 unless set.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; repeatable.")] = None,
    worker_key_env: Annotated[
        str | None,
        typer.Option("--worker-key-env", metavar="NAME", help="Variable of this shell that holds the worker's bearer token."),
    ] = None,
    wait: Annotated[float | None, typer.Option("--wait", metavar="SECONDS", help="Wait until it is ready, at most so long.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    as_json: Json = False,
) -> None:
    """Add a worker to a running gateway. It gets requests as soon as it has answered."""
    context: SmgContext = ctx.obj
    spec: dict[str, Any] = {
        "models": model or None,
        "engine": engine,
        "priority": priority,
        "cost": cost,
        "labels": dict(read_label(text) for text in label) if label else None,
        "api_key": read_key(context, worker_key_env) if worker_key_env is not None else None,
    }
    with context.connect(url, api_key, ca_file) as gateway:
        accepted = gateway.add_worker(worker_url, **{key: value for key, value in spec.items() if value is not None})
        found = gateway.wait_for_worker(accepted.worker_id, {"ready", "failed"}, wait) if wait is not None else None
    if as_json:
        context.out.json(accepted if found is None else found)
    else:
        context.out.line(f"added {accepted.url or worker_url} as {accepted.worker_id}" + (f": {found.status}" if found is not None else ""))
    if wait is not None and (found is None or found.status != "ready"):
        why = "it has left again" if found is None else found.reason or f"it is {found.status}"
        context.abort(f"{worker_url} is not ready after {wait:g} s: {why}", ExitCode.CHECK_FAILED)


def read_key(context: SmgContext, variable: str) -> str:
    """Read a worker's token from the environment, where no list of processes shows it."""
    from gateway.config.env import environment

    key = environment().get(variable)
    if not key:
        context.abort(f"the environment variable {variable} is not set", ExitCode.USAGE)
    return key


def read_label(text: str) -> tuple[str, str]:
    """Take KEY=VALUE apart."""
    key, found, value = text.partition("=")
    if not key or not found:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--label")
    return key, value
