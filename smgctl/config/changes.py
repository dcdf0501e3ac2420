"""Shows what a change of configuration changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smgctl.context import SmgContext

if TYPE_CHECKING:
    from gateway.sdk import ApplyResult, Change


def show_result(context: SmgContext, result: ApplyResult, *, dry_run: bool = False) -> None:
    """Print the changes, then what became of them."""
    if not result.changes:
        context.out.line(f"nothing to change, version {result.version} stays")
        return
    _show(context, result.changes)
    context.out.line("")
    if result.needs_restart:
        context.out.line(f"refused as it stands: only a restart brings {', '.join(result.needs_restart)} into force")
    if dry_run or not result.applied:
        context.out.line(f"nothing was changed, version {result.version} stays")
    else:
        context.out.line(f"applied as version {result.version}")


def _show(context: SmgContext, changes: Sequence[Change]) -> None:
    context.out.table(["PATH", "BEFORE", "AFTER"], [(change.path, _value(change.before), _value(change.after)) for change in changes])


def _value(value: Any) -> Any:
    """Write a section that came or went in one line."""
    return " ".join(f"{key}={item}" for key, item in value.items()) if isinstance(value, dict) else value
