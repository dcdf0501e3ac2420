"""What is wrong with a configuration: one mistake, where it stands, and how it is said.

A place in a configuration is a path of keys and list positions, `("workers", 1, "url")`, written `workers[1].url`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import ConfigError

Path = tuple[str | int, ...]

MAX_IN_MESSAGE = 10
"""Mistakes that the message of the error names; `problems` has them all."""


def dotted(path: Path) -> str:
    """Write a path the way people do: `workers[1].health.path`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong."""

    origin: str
    """Where it was said: `smg.yaml:12`, `SMG_PORT`, `--port`."""
    path: Path
    message: str
    """What is wrong and what to do, in lower case."""

    def __str__(self) -> str:
        parts = (self.origin, dotted(self.path), self.message)
        return ": ".join(part for part in parts if part)


def to_error(mistakes: Iterable[Mistake]) -> ConfigError:
    """Make the one error that names all mistakes."""
    problems = tuple(dict.fromkeys(str(mistake) for mistake in mistakes))
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    said = "; ".join(problems[:MAX_IN_MESSAGE])
    more = f"; and {len(problems) - MAX_IN_MESSAGE} more" if len(problems) > MAX_IN_MESSAGE else ""
    return ConfigError(f"the configuration has {count}: {said}{more}", problems)
