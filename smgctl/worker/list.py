"""`smgctl worker list`: all workers, a line each."""

from __future__ import annotations

from typing import Annotated

import typer

from smgctl.context import SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, examples

EPILOG = examples("smgctl worker list", "smgctl worker list --model llama-3.1-8b", "smgctl worker list --json | jq '.workers[].url'")
COLUMNS = ["URL", "STATUS", "ENGINE", "MODELS", "LOAD", "PRIORITY", "COST", "BREAKER", "ID", "REASON"]


def list_workers(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Only the workers of this model.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    as_json: Json = False,
) -> None:
    """List the workers: status, engine, models, and requests in flight (LOAD)."""
    context: SmgContext = ctx.obj
    with context.connect(url, api_key, ca_file) as gateway:
        found = gateway.workers(model=model)
    if as_json:
        context.out.json(found)
    elif not found.workers:
        context.out.line("no workers" if model is None else f"no worker serves {model}")
    else:
        context.out.table(
            COLUMNS,
            [
                (w.url, w.status, w.known_engine, w.model_names, w.load, w.priority, w.cost, w.breaker, w.id, w.reason)
                for w in found.workers
            ],
        )
