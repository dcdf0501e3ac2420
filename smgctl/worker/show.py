"""`smgctl worker show`: everything that is known of one worker."""

from __future__ import annotations

import typer

from smgctl.context import SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, WorkerRef, examples

EPILOG = examples("smgctl worker show http://127.0.0.1:8000", "smgctl worker show 127.0.0.1:8000 --json")


def show(
    ctx: typer.Context, worker: WorkerRef, url: Url = DEFAULT_URL, api_key: ApiKey = None, ca_file: CaFile = None, as_json: Json = False
) -> None:
    """Show one worker."""
    context: SmgContext = ctx.obj
    with context.connect(url, api_key, ca_file) as gateway:
        found = gateway.find_worker(worker)
    if as_json:
        context.out.json(found)
        return
    context.out.fields(
        {
            "id": found.id,
            "url": found.url,
            "status": found.status,
            "reason": found.reason,
            "engine": f"{found.known_engine} {found.version}".strip(),
            "models": found.model_names,
            "load": found.load,
            "breaker": found.breaker,
            "priority": found.priority,
            "cost": found.cost,
            "labels": found.labels,
            "source": found.source,
        }
    )
