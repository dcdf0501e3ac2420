"""Ports of the loopback address that nobody listens on."""

from __future__ import annotations

import contextlib
import os
import socket

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Find so many different free ports; whoever takes one first has it."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


def trouble_with(port: int) -> str | None:
    """Say why a port cannot be listened on; None where it can."""
    if not 0 <= port <= 65_535:
        return "a port is a number up to 65535"
    try:
        with socket.create_server((HOST, port)):
            return None
    except OSError as error:
        return (os.strerror(error.errno) if error.errno else str(error)).lower()
