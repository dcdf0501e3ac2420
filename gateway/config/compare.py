"""Tells two configurations apart, key by key, and which differences only a restart brings into force.

Workers, models, keys and discovery sources are matched by what names them (`url`, `name`, `id`), not by position: a worker
that was taken out is one change, and a list in another order is none. Where secrets differ, the change says so without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from pydantic import BaseModel, SecretStr

from gateway.config.mask import MASK, masked
from gateway.config.mistake import Path, dotted
from gateway.config.model import (
    ApiKeyConfig,
    DnsDiscovery,
    FileDiscovery,
    GatewayConfig,
    KubernetesDiscovery,
    ModelConfig,
    WorkerConfig,
)

RESTART: frozenset[str] = frozenset(
    {
        "server.host",
        "server.port",
        "server.metrics_host",
        "server.metrics_port",
        "server.processes",
        "server.tls",
        "server.tls.client_ca_file",
        "model_path",
    }
)
"""Changes that a running process cannot take over. TLS can be switched on or off by a restart alone; another certificate
or key is taken over at once."""

CHANGED = f"{MASK} (changed)"
"""What stands for a secret that is another now."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two configurations, secrets masked."""

    path: str
    """Dotted path of the key, `routing.policy` or `workers[2].cost`; the position is the new one, or the old one of what left."""
    before: Any = None
    after: Any = None


def compare(before: GatewayConfig, after: GatewayConfig) -> tuple[Change, ...]:
    """List what differs, in the order of the model."""
    return tuple(_section(before, after, ()))


def needs_restart(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Pick the changes that come into force at the next start alone."""
    return tuple(change for change in changes if change.path in RESTART)


def _section(before: BaseModel, after: BaseModel, path: Path) -> Iterator[Change]:
    if type(before) is not type(after):
        yield _change(path, before, after)
        return
    shown_before, shown_after = masked(before), masked(after)
    for name in type(after).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        here = (*path, name)
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            yield from _section(old, new, here)
        elif isinstance(old, dict) and isinstance(new, dict):
            yield from _mapping(old, new, here)
        elif isinstance(old, tuple) and isinstance(new, tuple) and any(isinstance(item, BaseModel) for item in old + new):
            yield from _list(old, new, here)
        elif isinstance(old, BaseModel) or isinstance(new, BaseModel):
            yield _change(here, old, new)
        else:
            now = shown_after[name]
            yield Change(path=dotted(here), before=shown_before[name], after=CHANGED if now == MASK == shown_before[name] else now)


def _mapping(before: dict[str, Any], after: dict[str, Any], path: Path) -> Iterator[Change]:
    for key in (*before, *(key for key in after if key not in before)):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        here = (*path, key)
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            yield from _section(old, new, here)
        elif key == "api_key" and old is not None and new is not None:
            yield Change(path=dotted(here), before=MASK, after=CHANGED)
        else:
            yield _change(here, MASK if key == "api_key" and old else old, MASK if key == "api_key" and new else new)


def _list(before: tuple[Any, ...], after: tuple[Any, ...], path: Path) -> Iterator[Change]:
    """Compare lists of sections by what names them; by position where two have one name."""
    old_names, new_names = [_name(item) for item in before], [_name(item) for item in after]
    if len(set(old_names)) == len(old_names) and len(set(new_names)) == len(new_names):
        pairs = {name: index for index, name in enumerate(old_names)}
        for index, name in enumerate(old_names):
            if name not in new_names:
                yield _change((*path, index), before[index], None)
        for index, name in enumerate(new_names):
            if name not in pairs:
                yield _change((*path, index), None, after[index])
            else:
                yield from _section(before[pairs[name]], after[index], (*path, index))
        return
    for index in range(max(len(before), len(after))):
        if index >= len(after):
            yield _change((*path, index), before[index], None)
        elif index >= len(before):
            yield _change((*path, index), None, after[index])
        else:
            yield from _section(before[index], after[index], (*path, index))


def _name(item: Any) -> str:
    match item:
        case WorkerConfig(url=name) | ModelConfig(name=name) | ApiKeyConfig(id=name):
            return str(name)
        case FileDiscovery(path=name) | DnsDiscovery(name=name):
            return f"{item.kind} {name}"
        case KubernetesDiscovery():
            return f"{item.kind} {item.namespace} {item.selector}"
    raise TypeError(f"a list of {type(item).__name__} has no rule here")


def _change(path: Path, before: Any, after: Any) -> Change:
    return Change(path=dotted(path), before=_shown(before), after=_shown(after))


def _shown(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return masked(value, only_set=True)
    if isinstance(value, SecretStr):
        return MASK
    return value
