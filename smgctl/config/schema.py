"""`smgctl config schema`: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import typer

from smgctl.context import SmgContext
from smgctl.options import examples

EPILOG = examples(
    "smgctl config schema > smg.schema.json",
    "Then, as the first line of smg.yaml: # yaml-language-server: $schema=smg.schema.json",
)


def schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of the configuration; editors complete and check smg.yaml with it."""
    from gateway.config.schema import json_schema

    context: SmgContext = ctx.obj
    context.out.json(json_schema())
