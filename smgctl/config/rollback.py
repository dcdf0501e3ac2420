"""`smgctl config rollback`: go back to the configuration before the one in force."""

from __future__ import annotations

import typer

from smgctl.config.changes import show_result
from smgctl.context import SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, examples

EPILOG = examples("smgctl config rollback")


def rollback(ctx: typer.Context, url: Url = DEFAULT_URL, api_key: ApiKey = None, ca_file: CaFile = None, as_json: Json = False) -> None:
    """Go back to the configuration before the one in force; again for one further back."""
    context: SmgContext = ctx.obj
    with context.connect(url, api_key, ca_file, timeout_s=120.0) as gateway:
        result = gateway.rollback_config()
    if as_json:
        context.out.json(result)
    else:
        show_result(context, result)
