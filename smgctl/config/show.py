"""`smgctl config show`: the whole configuration that is in force, or that a file would bring."""

from __future__ import annotations

from typing import Annotated

import typer

from smgctl.context import SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, examples

EPILOG = examples("smgctl config show", "smgctl config show --config smg.yaml", "smgctl config show --json")


def show(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", metavar="FILE", help="Show what this file and the environment bring, without a gateway."),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    as_json: Json = False,
) -> None:
    """Show every key of the configuration with its value, secrets masked."""
    from gateway.config.load import ConfigSource
    from gateway.config.mask import masked
    from gateway.config.show import to_yaml

    context: SmgContext = ctx.obj
    if config is not None:
        values = masked(ConfigSource(config).load())
        if as_json:
            context.out.json(values)
        else:
            context.out.text(to_yaml(values))
        return
    with context.connect(url, api_key, ca_file) as gateway:
        view = gateway.config()
    if as_json:
        context.out.json(view)
    else:
        context.out.text(f"# version {view.version}, from {view.source}\n{to_yaml(view.config)}")
