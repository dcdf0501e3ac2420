"""What every command finds in `ctx.obj`: the output, the way to a gateway, and the way out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn

import typer

from smgctl.output import Output

if TYPE_CHECKING:
    from httpx import BaseTransport  # noqa: TID251 - a type; the client is the SDK's

    from gateway.config.load import ConfigSource
    from gateway.config.model import GatewayConfig
    from gateway.sdk import Client

    Launch = Callable[[GatewayConfig, ConfigSource, Sequence[str]], int]


class ExitCode(IntEnum):
    """What the exit code of `smgctl` means."""

    OK = 0
    CHECK_FAILED = 1
    """A check failed, or the gateway refused."""
    USAGE = 2
    """The command line or a configuration is wrong."""
    UNREACHABLE = 3
    """No gateway answered."""


def launch(config: GatewayConfig, source: ConfigSource, hints: Sequence[str]) -> int:
    """Run a gateway in this process until a signal ends it."""
    from gateway.app import serve
    from gateway.telemetry.log import setup

    setup(config.log.level, json_lines=config.log.json_lines)
    for hint in hints:
        logging.getLogger(__name__).warning("%s", hint)
    return serve(config, source)


@dataclass(slots=True)
class SmgContext:
    """One run of `smgctl`."""

    out: Output = field(default_factory=Output)
    launch: Launch = launch
    """Runs a gateway and returns its exit code."""
    transport: BaseTransport | None = None
    """Carries calls to the gateway; sockets unless set."""

    def connect(self, url: str, api_key: str | None, ca_file: str | None = None, *, timeout_s: float = 30.0) -> Client:
        """Return a client of the gateway at a URL; the caller closes it."""
        from gateway.sdk import Client

        try:
            return Client(url, api_key=api_key, ca_file=ca_file, timeout_s=timeout_s, transport=self.transport)
        except ValueError as error:
            self.abort(str(error), ExitCode.USAGE)

    def abort(self, message: str, code: ExitCode) -> NoReturn:
        """Say what went wrong and end the command."""
        self.out.error(message)
        raise typer.Exit(code)
