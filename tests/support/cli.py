"""Calls `smgctl` as a function and keeps everything that it wrote."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from gateway.config.load import ConfigSource
from gateway.config.model import GatewayConfig
from smgctl.app import run
from smgctl.context import SmgContext
from smgctl.output import Output
from tests.support.control_plane import ControlPlane


@dataclass
class Result:
    """How a command ended."""

    exit_code: int
    output: str
    errors: str


@dataclass
class Smgctl:
    """`smgctl` before a control plane in memory; starting a gateway is recorded instead."""

    plane: ControlPlane = field(default_factory=ControlPlane)
    transport: httpx.BaseTransport | None = None
    started: list[tuple[GatewayConfig, ConfigSource, tuple[str, ...]]] = field(default_factory=list)
    ends_with: int = 0

    def __call__(self, *args: str, stdin: str = "") -> Result:
        out, err, before = io.StringIO(), io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(stdin)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                transport = self.transport if self.transport is not None else self.plane.transport()
                code = run(args, SmgContext(Output(), launch=self._launch, transport=transport))
        finally:
            sys.stdin = before
        return Result(code, out.getvalue(), err.getvalue())

    def _launch(self, config: GatewayConfig, source: ConfigSource, hints: Sequence[str]) -> int:
        self.started.append((config, source, tuple(hints)))
        return self.ends_with


def lines(text: Any) -> list[str]:
    """Split what was written, so that a failed comparison shows the line."""
    return str(text).splitlines()
