"""`smgctl config check`: find every mistake in a configuration."""

from __future__ import annotations

import typer

from smgctl.config.text import NAME_OF_STDIN, File, read_text
from smgctl.context import ExitCode, SmgContext
from smgctl.options import Json, examples

EPILOG = examples("smgctl config check smg.yaml", "smgctl config check - < smg.yaml", "smgctl config check smg.yaml --json")


def check(ctx: typer.Context, file: File, as_json: Json = False) -> None:
    """Check a configuration as smgctl serve would, SMG_* environment variables included.

    Every mistake is named with its line, and the exit code is 2 if there is one.
    """
    from gateway.config import env
    from gateway.config.load import ConfigSource
    from gateway.config.validate import hints
    from gateway.errors import ConfigError

    context: SmgContext = ctx.obj
    source = ConfigSource(None if file == "-" else file)
    try:
        config = source.load_text(read_text(context, file), NAME_OF_STDIN) if file == "-" else source.load()
    except ConfigError as error:
        if not as_json:
            raise
        context.out.json({"ok": False, "problems": error.problems, "hints": []})
        raise typer.Exit(ExitCode.USAGE) from None
    found = (*env.hints(env.environment()), *hints(config))
    if as_json:
        context.out.json({"ok": True, "problems": [], "hints": found})
        return
    for hint in found:
        context.out.hint(hint)
    name = NAME_OF_STDIN if file == "-" else file
    context.out.line(
        f"{name}: ok, {_count(len(config.workers), 'worker')}, {_count(len(config.discovery), 'discovery source')}, "
        f"policy {config.routing.policy}, listens on {config.server.host}:{config.server.port}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
