"""Reads the recordings of real engines in tests/data/wire, and compares the shapes of answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "wire"


@dataclass(frozen=True)
class Recording:
    """One answer: what an engine put on the wire, or what a client read from a socket."""

    status: int
    headers: list[tuple[str, str]]
    """In order and case; empty where only the body was recorded."""
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of this name, any case."""
        return next((value for found, value in self.headers if found.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[tuple[str | None, str]]:
        """The server-sent events of the body: name, data."""
        found: list[tuple[str | None, str]] = []
        for block in self.body.decode().split("\n\n"):
            if not block.strip():
                continue
            name, data = None, ""
            for line in block.strip("\n").split("\n"):
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data = line[6:]
                else:
                    raise ValueError(f"no line of an event stream: {line!r}")
            found.append((name, data))
        return found


def load(engine: str, name: str) -> Recording:
    """Read a recording: `load("vllm-0.32-http", "chat")`."""
    raw = (FOLDER / engine / f"{name}.txt").read_bytes()
    if not raw.startswith(b"HTTP/"):
        return Recording(200, [], raw)
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(line.split(":", 1)[0], line.split(":", 1)[1].strip()) for line in lines]
    return Recording(int(first.split()[1]), headers, body)


def shape(value: Any) -> Any:
    """Return what kind of value this is: keys in their order and the types behind them; a list becomes the shapes in it."""
    if isinstance(value, dict):
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        shapes: list[Any] = []
        for item in value:
            if (found := shape(item)) not in shapes:
                shapes.append(found)
        return ["list", *shapes]
    return type(value).__name__


def event_shapes(events: list[tuple[str | None, str]]) -> list[Any]:
    """Return the shapes of events in their order, those alike in a row told once."""
    shapes: list[Any] = []
    for name, data in events:
        found = (name, shape(json.loads(data)) if data.startswith("{") else data)
        if not shapes or shapes[-1] != found:
            shapes.append(found)
    return shapes


@dataclass(frozen=True)
class Family:
    """A metric family as its text shows it."""

    kind: str
    labels: frozenset[str]
    bounds: tuple[str, ...]


def families(text: str) -> dict[str, Family]:
    """Return the metric families of a Prometheus text: kind, label names, histogram bounds."""
    kinds: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    bounds: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
            continue
        if not line or line.startswith("#"):
            continue
        match = re.match(r"([\w:]+)(\{.*\})? (\S+)$", line)
        if match is None:
            raise ValueError(f"no sample: {line!r}")
        sample, inner = match[1], dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
        float(match[3])
        base = re.sub(r"_(bucket|count|sum)$", "", sample)
        family = base if kinds.get(base) in ("histogram", "summary") else sample
        if sample.endswith("_bucket") and family == base:
            bound = inner.pop("le")
            if bound not in bounds.setdefault(family, []):
                bounds[family].append(bound)
        labels.setdefault(family, set()).update(inner)
    return {name: Family(kind, frozenset(labels.get(name, ())), tuple(bounds.get(name, ()))) for name, kind in kinds.items()}
