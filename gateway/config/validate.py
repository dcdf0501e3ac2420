"""Checks that look at several keys at once, or at the machine: URLs, names that clash, files, variables, extras."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config.mistake import Path
from gateway.config.model import GatewayConfig


def mistakes(config: GatewayConfig, environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield every mistake, as the path of the key and what is wrong."""
    yield from ()
