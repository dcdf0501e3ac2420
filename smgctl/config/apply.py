"""`smgctl config apply`: change the configuration of a running gateway, whole or not at all."""

from __future__ import annotations

from typing import Annotated

import typer

from smgctl.config.changes import show_result
from smgctl.config.text import NAME_OF_STDIN, File, read_text
from smgctl.context import SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, examples

EPILOG = examples("smgctl config apply smg.yaml --dry-run", "smgctl config apply smg.yaml")


def apply(
    ctx: typer.Context,
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    ca_file: CaFile = None,
    as_json: Json = False,
) -> None:
    """Give a running gateway a new configuration, in all its processes or in none.

    Requests in flight are not touched. A mistake in the file changes nothing.
    A configuration that fails to start is taken back.
    Flags that the gateway was started with still win over the file.
    """
    from gateway.sdk import SmgApiError

    context: SmgContext = ctx.obj
    text = read_text(context, file)
    with context.connect(url, api_key, ca_file, timeout_s=120.0) as gateway:
        try:
            result = gateway.apply_config(text, dry_run=dry_run)
        except SmgApiError as error:
            name = NAME_OF_STDIN if file == "-" else file
            error.problems = tuple(_named(problem, name) for problem in error.problems)
            raise
    if as_json:
        context.out.json(result)
    else:
        show_result(context, result, dry_run=dry_run)


def _named(problem: str, file: str) -> str:
    """Put the name of the file where the gateway, which has seen its text alone, says `configuration:LINE`."""
    return f"{file}{problem.removeprefix('configuration')}" if problem.startswith("configuration:") else problem
