"""The environment: the `SMG_*` variables of the configuration, and the only place that reads `os.environ`.

Two kinds of variable set configuration keys. The short ones are those of the flags of `smgctl serve` (`SMG_PORT`). Beyond
them every single-valued key of a section has one, `SMG_<SECTION>_<KEY>` (`SMG_RETRY_MAX_ATTEMPTS`). Lists are written with commas.
An empty variable counts as unset.

Kubernetes injects `SMG_PORT=tcp://10.0.0.1:80` into every pod beside a Service named `smg`. A value that starts with `tcp://`,
`udp://` or `sctp://` is therefore taken as such a link and not as a setting.
"""

from __future__ import annotations

import difflib
import os
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from gateway.config.mistake import Path, dotted
from gateway.config.model import GatewayConfig, WorkerConfig

SHORT: Mapping[str, tuple[Path, str]] = {
    "SMG_WORKER_URLS": (("workers",), "workers by URL, separated by commas; instead of the file's"),
    "SMG_POLICY": (("routing", "policy"), "routing policy"),
    "SMG_HOST": (("server", "host"), "address to listen on"),
    "SMG_PORT": (("server", "port"), "port to listen on"),
    "SMG_METRICS_PORT": (("server", "metrics_port"), "port of `/metrics`"),
    "SMG_PROCESSES": (("server", "processes"), "serving processes"),
    "SMG_LOG_LEVEL": (("log", "level"), "debug, info, warning or error"),
    "SMG_LOG_JSON": (("log", "json_lines"), "log as JSON lines"),
    "SMG_API_KEY": (("auth", "keys"), "one key for data and control plane, instead of the file's; `smgctl` also sends it"),
}
"""Variables with a flag beside them -> what they set, and what that means."""

OTHER: Mapping[str, str] = {
    "SMG_URL": "gateway that `smgctl` talks to",
    "SMG_CONFIG": "configuration file of `smgctl serve`",
}
"""Variables that set no configuration key."""

_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)")
"""What else Kubernetes injects for a Service."""
_LINK_SCHEMES = ("tcp://", "udp://", "sctp://")


@dataclass(frozen=True, slots=True)
class Override:
    """A variable that is set."""

    variable: str
    path: Path
    text: str

    def __repr__(self) -> str:
        return f"<Override {self.variable} -> {dotted(self.path)}>"


def environment() -> Mapping[str, str]:
    """Return the environment of this process."""
    return os.environ


@cache
def variables() -> Mapping[str, Path]:
    """Return every variable that sets a configuration key, the short ones first."""
    found: dict[str, Path] = {name: path for name, (path, _) in SHORT.items()}
    for path in _leaves(GatewayConfig, ()):
        found.setdefault("SMG_" + "_".join(str(step) for step in path).upper(), path)
    return types.MappingProxyType(found)


def overrides(environ: Mapping[str, str]) -> list[Override]:
    """List what the environment sets, the long names first: where both are set, the short one wins."""
    known = variables()
    found = [Override(name, path, environ[name]) for name, path in known.items() if _is_setting(environ.get(name, ""))]
    return sorted(found, key=lambda override: override.variable in SHORT)


def hints(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Name the variables that look like a misspelt one."""
    known = [*variables(), *OTHER]
    found = []
    for name in sorted(environ):
        if not name.startswith("SMG_") or name in known or _KUBERNETES.search(name) or not _is_setting(environ[name]):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.87)
        if close:
            found.append(f"{name} is set but is no variable of the gateway; did you mean {close[0]}?")
    return tuple(found)


def worker_api_key(worker: WorkerConfig, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the bearer token for a worker: its own, or that of the variable it names; None where it needs none."""
    if worker.api_key is not None:
        return worker.api_key.get_secret_value()
    if worker.api_key_env is None:
        return None
    return (environment() if environ is None else environ).get(worker.api_key_env) or None


def _is_setting(text: str) -> bool:
    return bool(text) and not text.startswith(_LINK_SCHEMES)


def _leaves(model: type[BaseModel], path: Path) -> Iterator[Path]:
    """Walk the keys that hold one value, or a list of plain ones."""
    for name, field in model.model_fields.items():
        here = (*path, name)
        kind = _without_none(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(kind, here)
        elif is_list(kind) or not _holds_others(kind):
            yield here


def is_list(annotation: Any) -> bool:
    """Tell whether a field takes a list of plain values."""
    kind = _without_none(annotation)
    return get_origin(kind) is tuple and not _holds_others(_without_none(get_args(kind)[0]))


def _without_none(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _without_none(kinds[0]) if len(kinds) == 1 else annotation
    return annotation


def _holds_others(kind: Any) -> bool:
    if get_origin(kind) in (dict, tuple, Union, types.UnionType):
        return True
    return isinstance(kind, type) and issubclass(kind, BaseModel | SecretStr)


def section_of(annotation: Any) -> type[BaseModel]:
    """Return the section that a field holds."""
    kind = _without_none(annotation)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    raise TypeError(f"{annotation} is no section")


def takes_none(annotation: Any) -> bool:
    """Tell whether a field may be null."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)
