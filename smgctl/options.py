"""Options and arguments that several commands share, and the way examples are written in `--help`."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_URL = "http://127.0.0.1:30000"

_CONNECTION = "Connection"

Url = Annotated[str, typer.Option("--url", envvar="SMG_URL", metavar="URL", help="Gateway to talk to.", rich_help_panel=_CONNECTION)]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="SMG_API_KEY", metavar="KEY", help="Key with the role view or admin.", rich_help_panel=_CONNECTION),
]
CaFile = Annotated[
    str | None,
    typer.Option("--ca-file", metavar="FILE", help="PEM file that signs the gateway's certificate.", rich_help_panel=_CONNECTION),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]


def complete_worker(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a worker by the URLs that the gateway has; nothing, quickly, where it does not answer."""
    from gateway.sdk import Client, SmgError

    url = ctx.params.get("url") or DEFAULT_URL
    try:
        with Client(url, api_key=ctx.params.get("api_key"), timeout_s=1.0, connect_timeout_s=0.5) as gateway:
            return [worker.url for worker in gateway.workers().workers if worker.url.startswith(incomplete)]
    except (SmgError, ValueError):
        return []


WorkerRef = Annotated[str, typer.Argument(metavar="WORKER", help="Id or URL of the worker.", autocompletion=complete_worker)]


def examples(*lines: str) -> str:
    """Write the examples at the end of a command's help."""
    return "\n\n".join(["Examples:", *lines])
