"""`smgctl worker remove`: drain a worker and let it leave."""

from __future__ import annotations

from typing import Annotated

import typer

from smgctl.context import ExitCode, SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, WorkerRef, examples

EPILOG = examples("smgctl worker remove http://127.0.0.1:8000", "smgctl worker remove 127.0.0.1:8000 --wait 180")


def remove(
    ctx: typer.Context,
    worker: WorkerRef,
    wait: Annotated[float | None, typer.Option("--wait", metavar="SECONDS", help="Wait until it has left, at most so long.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    as_json: Json = False,
) -> None:
    """Remove a worker: it gets no new requests, and leaves when those it has are done."""
    context: SmgContext = ctx.obj
    with context.connect(url, api_key, ca_file) as gateway:
        found = gateway.find_worker(worker)
        accepted = gateway.remove_worker(found.id)
        left = gateway.wait_for_worker(found.id, (), wait) if wait is not None else None
    if as_json:
        context.out.json(accepted)
    else:
        gone = wait is not None and left is None
        context.out.line(f"removed {found.url}" if gone else f"{found.url} drains and leaves, {found.load} in flight")
    if left is not None:
        context.abort(f"{found.url} has not left after {wait:g} s: {left.load} in flight", ExitCode.CHECK_FAILED)
