"""Builds the configuration: flags win over `SMG_*` variables, those over the file, that over the defaults.

A list is replaced, not added to: `--worker-url` stands instead of the file's `workers`. Whatever is wrong is collected first
and raised as one `ConfigError`, every mistake with its path and where it was said (`smg.yaml:12`, `SMG_PORT`, `--port`).
Reads the file and the environment, and the certificates that the configuration names; changes nothing.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from gateway.config import env
from gateway.config.document import MAX_TEXT_BYTES, Document, read
from gateway.config.mistake import Mistake, Path, to_error
from gateway.config.model import GatewayConfig
from gateway.config.shape import check_shape
from gateway.config.validate import mistakes

FLAG_KEY_ID = "api-key"
"""Id of the key that `--api-key` gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags of `smgctl serve`; None, or no URL, is a flag that was not given."""

    worker_urls: tuple[str, ...] = ()
    policy: str | None = None
    host: str | None = None
    port: int | None = None
    metrics_port: int | None = None
    processes: int | None = None
    model_path: str | None = None
    log_level: str | None = None
    log_json: bool | None = None
    api_key: str | None = field(default=None, repr=False)


_FLAG_PATHS: Mapping[str, tuple[str, Path]] = {
    "worker_urls": ("--worker-url", ("workers",)),
    "policy": ("--policy", ("routing", "policy")),
    "host": ("--host", ("server", "host")),
    "port": ("--port", ("server", "port")),
    "metrics_port": ("--metrics-port", ("server", "metrics_port")),
    "processes": ("--processes", ("server", "processes")),
    "model_path": ("--model-path", ("model_path",)),
    "log_level": ("--log-level", ("log", "level")),
    "log_json": ("--log-json", ("log", "json_lines")),
    "api_key": ("--api-key", ("auth", "keys")),
}


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Where a gateway's configuration comes from, so that it can be read again (SIGHUP) and parts of it replaced."""

    path: str | None = None
    """The configuration file; flags, environment and defaults alone without one."""
    flags: Flags = field(default_factory=Flags)

    def load(self) -> GatewayConfig:
        """Read file and environment anew.

        Raises:
            ConfigError: something is wrong; it names every mistake.
        """
        return self._build(Document("configuration") if self.path is None else read_file(self.path))

    def load_text(self, text: str, name: str = "configuration") -> GatewayConfig:
        """Take a text in place of the file, under the same flags and environment; mistakes call it `name`.

        Raises:
            ConfigError: something is wrong; it names every mistake.
        """
        return self._build(read(text, name))

    def _build(self, document: Document) -> GatewayConfig:
        environ = env.environment()
        layers = _Layers(document)
        for override in env.overrides(environ):
            layers.put(override.path, _from_text(override), override.variable)
        for flag in fields(self.flags):
            value = getattr(self.flags, flag.name)
            if value is not None and value != ():
                name, path = _FLAG_PATHS[flag.name]
                layers.put(path, _from_flag(path, value), name)
        return build(layers, environ)


def load(path: str | None = None, flags: Flags | None = None) -> GatewayConfig:
    """Build a configuration from a file, flags and the environment.

    Raises:
        ConfigError: something is wrong; it names every mistake.
    """
    return ConfigSource(path, flags if flags is not None else Flags()).load()


def read_file(path: str) -> Document:
    """Read a configuration file; one that cannot be read is a mistake of the document."""
    document = Document(path)
    try:
        with pathlib.Path(path).open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
        return read(data.decode("utf-8-sig"), path)
    except FileNotFoundError:
        said = "no such file"
    except UnicodeDecodeError as error:
        said = f"not UTF-8, at byte {error.start}"
    except OSError as error:
        said = f"cannot be read: {(error.strerror or str(error)).lower()}"
    document.mistakes.append(Mistake(path, (), said))
    return document


class _Layers:
    """The tree of values as it grows from layer to layer, and who said what. It takes the document over."""

    def __init__(self, document: Document) -> None:
        self.tree = document.value
        self.mistakes = list(document.mistakes)
        self._document = document
        self._said: dict[Path, str] = {}

    def put(self, path: Path, value: Any, origin: str) -> None:
        """Set a value over whatever was there."""
        node = self.tree
        for step in path[:-1]:
            below = node.get(str(step))
            if not isinstance(below, dict):
                if below is not None:
                    self.mistakes.append(Mistake(self.origin(path[:-1]), path[:-1], "must be a mapping of keys to values"))
                below = node[str(step)] = {}
            node = below
        node[str(path[-1])] = value
        self._said[path] = origin

    def origin(self, path: Path) -> str:
        """Say where the value at a path comes from."""
        for length in range(len(path), 0, -1):
            said = self._said.get(path[:length])
            if said is not None:
                return said
        return self._document.origin(path)


def build(layers: _Layers, environ: Mapping[str, str]) -> GatewayConfig:
    """Check a tree of values whole, and make the configuration of it.

    Raises:
        ConfigError: something is wrong; it names every mistake.
    """
    shape = check_shape(layers.tree)
    found = list(layers.mistakes)
    found += [Mistake(layers.origin(path), path, message) for path, message in shape.mistakes]
    if shape.config is not None:
        places = ((shape.place(path), message) for path, message in mistakes(shape.config, environ))
        found += [Mistake(layers.origin(path), path, message) for path, message in places]
    if found or shape.config is None:
        raise to_error(sorted(found, key=_line))
    return shape.config


def _line(mistake: Mistake) -> int:
    """Sort by line; what a flag or a variable says comes first."""
    line = mistake.origin.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def _from_text(override: env.Override) -> Any:
    """Read a variable's text: lists by comma, a key by its hash, everything else as pydantic reads words."""
    if override.path in (("workers",), ("auth", "keys")):
        return _from_flag(override.path, _split(override.text) if override.path == ("workers",) else override.text)
    annotation: Any = GatewayConfig
    for step in override.path:
        section = env.section_of(annotation)
        annotation = section.model_fields[str(step)].annotation
    if env.is_list(annotation):
        return list(_split(override.text))
    if override.text in ("null", "none") and env.takes_none(annotation):
        return None
    return override.text


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _from_flag(path: Path, value: Any) -> Any:
    if path == ("workers",):
        return [{"url": url} for url in value]
    if path == ("auth", "keys"):
        return [
            {
                "id": FLAG_KEY_ID,
                "sha256": hashlib.sha256(str(value).encode()).hexdigest(),
                "roles": ["data", "admin"],
                "max_priority": "system",
            }
        ]
    return value
