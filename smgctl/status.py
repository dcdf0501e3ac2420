"""`smgctl status`: the state of a running gateway and its processes."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from smgctl.context import SmgContext
from smgctl.options import DEFAULT_URL, ApiKey, CaFile, Json, Url, examples

EPILOG = examples("smgctl status", "smgctl status --json --url http://10.0.0.5:30000")


def status(ctx: typer.Context, url: Url = DEFAULT_URL, api_key: ApiKey = None, ca_file: CaFile = None, as_json: Json = False) -> None:
    """Show the state of a running gateway: its configuration, workers and processes."""
    context: SmgContext = ctx.obj
    with context.connect(url, api_key, ca_file) as gateway:
        state = gateway.status()
    if as_json:
        context.out.json(state)
        return
    context.out.fields(
        {
            "state": state.state,
            "started": moment(state.started_s),
            "configuration": f"version {state.config_version} from {state.config_source}",
            "workers": ", ".join(f"{count} {name}" for name, count in state.workers.items() if count),
            **({"discovery": "; ".join(f"{name}: {why}" for name, why in state.discovery.items())} if state.discovery else {}),
            "last error": state.last_error,
        }
    )
    context.out.line("")
    context.out.table(
        ["PROCESS", "PID", "STATE", "RESTARTS", "CONFIG", "SINCE", "REASON"],
        [
            ("supervisor" if one.index < 0 else one.index, one.pid, one.state, one.restarts, one.version, moment(one.since_s), one.reason)
            for one in state.processes
        ],
    )


def moment(unix_s: float) -> str:
    """Write a time, in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if unix_s else ""
