"""`smgctl worker drain`: give a worker no new requests."""

from __future__ import annotations

import typer

from smgctl.context import SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, WorkerRef, examples

EPILOG = examples("smgctl worker drain http://127.0.0.1:8000")


def drain(
    ctx: typer.Context, worker: WorkerRef, url: Url = DEFAULT_URL, api_key: ApiKey = None, ca_file: CaFile = None, as_json: Json = False
) -> None:
    """Give a worker no new requests. What it has goes on, and it stays in the list."""
    context: SmgContext = ctx.obj
    with context.connect(url, api_key, ca_file) as gateway:
        found = gateway.find_worker(worker)
        accepted = gateway.drain_worker(found.id)
    if as_json:
        context.out.json(accepted)
    else:
        context.out.line(f"{found.url} drains, {found.load} in flight")
