"""The listening sockets of a gateway with several processes, one a process, and which of them get new connections.

The supervisor binds them all to one port (`SO_REUSEPORT`) and keeps them open, so that a process that is restarted takes
its predecessor's socket over, with the connections that wait in it. `Steering` tells the kernel to give new connections to
the sockets of living processes only (a classic BPF program on the group; docs/adr/0009-processes.md).
"""

from __future__ import annotations

import ctypes
import logging
import socket
from collections.abc import Iterable
from struct import pack
from typing import Any

from gateway.errors import ConfigError

BACKLOG = 2048
SO_ATTACH_REUSEPORT_CBPF = 51
"""From linux/asm-generic/socket.h; the socket module does not name it."""

# Classic BPF (linux/filter.h): load a random number, take it modulo k, and return the socket index of that case.
_LOAD_RANDOM = 0x20, 0xFFFFF000 + 56
_MODULO = 0x94
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06

log = logging.getLogger(__name__)


def bind_listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """Return `count` sockets that listen on one port; port 0 takes a free one.

    Raises:
        ConfigError: when the address cannot be had, also when another program listens on it.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(f"server.host: {host!r} is not an address: {error.strerror}") from error
    family, address = found[0][0], found[0][4]
    listeners: list[socket.socket] = []
    try:
        # A second gateway would silently share the port of the first: a plain bind refuses what `SO_REUSEPORT` allows.
        with _bind(family, address, shared=False) as probe:
            address = probe.getsockname()
        for _ in range(count):
            listeners.append(_bind(family, address, shared=True))
            listeners[-1].listen(BACKLOG)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise ConfigError(f"server.port: cannot listen on {host}:{port}: {error.strerror}") from error
    return listeners


def _bind(family: int, address: Any, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


class Steering:
    """Directs new connections to some of the sockets of a port; those already queued stay where they are."""

    def __init__(self, listeners: list[socket.socket]) -> None:
        self._listeners = listeners
        self._live = frozenset(range(len(listeners)))

    @property
    def live(self) -> frozenset[int]:
        """The sockets that get new connections."""
        return self._live

    def steer(self, live: Iterable[int]) -> None:
        """Give new connections to these sockets, evenly at random. With none of them nothing changes.

        A kernel that refuses leaves all sockets in use: connections to a dead process then wait until it is back.
        """
        wanted = frozenset(live)
        if not wanted or wanted == self._live:
            return
        program = steering_program(sorted(wanted))
        instructions = ctypes.create_string_buffer(program, len(program))
        try:
            self._listeners[0].setsockopt(
                socket.SOL_SOCKET,
                SO_ATTACH_REUSEPORT_CBPF,
                pack("@HP", len(program) // 8, ctypes.addressof(instructions)),
            )
        except OSError as error:
            log.warning("new connections cannot be kept from processes that are down: %s", error.strerror)
        else:
            self._live = wanted


def steering_program(live: list[int]) -> bytes:
    """Return the BPF program that picks one of these indices at random."""
    program = [(_LOAD_RANDOM[0], 0, 0, _LOAD_RANDOM[1]), (_MODULO, 0, 0, len(live))]
    for case, index in enumerate(live):
        program += [(_JUMP_IF_EQUAL, 0, 1, case), (_RETURN, 0, 0, index)]
    program.append((_RETURN, 0, 0, live[0]))
    return b"".join(pack("=HBBI", *instruction) for instruction in program)
