"""`smgctl serve`: start a gateway, and stay until a signal ends it."""

from __future__ import annotations

from typing import Annotated

import typer

from smgctl.context import SmgContext
from smgctl.options import examples

EPILOG = examples(
    "smgctl serve --worker-url http://127.0.0.1:8000 --worker-url http://127.0.0.1:8001",
    "smgctl serve --config smg.yaml --port 8080",
    "smgctl serve --host 0.0.0.0 --api-key SECRET --processes 4 --worker-url http://10.0.0.7:8000",
)


def complete_policy(incomplete: str) -> list[str]:
    """Complete the name of a policy."""
    from typing import get_args

    from gateway.config.model import PolicyName

    return [name for name in get_args(PolicyName) if name.startswith(incomplete)]


def complete_level(incomplete: str) -> list[str]:
    """Complete a log level."""
    return [name for name in ("debug", "info", "warning", "error") if name.startswith(incomplete)]


def serve(
    ctx: typer.Context,
    config: Annotated[
        str | None, typer.Option("--config", "-c", metavar="FILE", envvar="SMG_CONFIG", help="Configuration file (YAML).")
    ] = None,
    worker_url: Annotated[
        list[str] | None,
        typer.Option(
            "--worker-url",
            metavar="URL",
            help="An engine to route to, http:// or https://; repeatable. Instead of the file's workers.",
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="NAME", help="How workers are ranked: cache_aware unless set.", autocompletion=complete_policy),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on: 127.0.0.1 unless set.")] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", help="Port to listen on: 30000 unless set.")] = None,
    metrics_port: Annotated[int | None, typer.Option("--metrics-port", metavar="PORT", help="Port of /metrics: 29000 unless set.")] = None,
    processes: Annotated[int | None, typer.Option("--processes", metavar="N", help="Processes that serve: 1 unless set.")] = None,
    model_path: Annotated[
        str | None, typer.Option("--model-path", metavar="DIR", help="Folder with a tokenizer, for gRPC workers.")
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error: info unless set.", autocompletion=complete_level),
    ] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json/--no-log-json", help="Log JSON lines.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", metavar="KEY", help="One key that opens data and control plane. Instead of the file's keys."),
    ] = None,
) -> None:
    """Start a gateway in front of engines, and stay until a signal ends it.

    Flags win over SMG_* environment variables, those over the file.
    SIGTERM drains, a second one stops at once, SIGHUP reads the file again.
    Workers can also be added while it runs: smgctl worker add URL.
    """
    from gateway.config import env
    from gateway.config.load import ConfigSource, Flags
    from gateway.config.validate import hints

    flags = Flags(
        worker_urls=tuple(worker_url or ()),
        policy=policy,
        host=host,
        port=port,
        metrics_port=metrics_port,
        processes=processes,
        model_path=model_path,
        log_level=log_level,
        log_json=log_json,
        api_key=api_key,
    )
    source = ConfigSource(config, flags)
    loaded = source.load()
    context: SmgContext = ctx.obj
    raise typer.Exit(context.launch(loaded, source, (*env.hints(env.environment()), *hints(loaded))))
