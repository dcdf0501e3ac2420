"""Free ports can be listened on, taken ones are told apart."""

from __future__ import annotations

import contextlib
import socket

from harness.fleet.ports import HOST, free_ports, trouble_with


def test_free_ports_are_free_and_different() -> None:
    """All of them can be used at the same time."""
    ports = free_ports(8)
    assert len(set(ports)) == 8
    with contextlib.ExitStack() as stack:
        for port in ports:
            assert trouble_with(port) is None
            stack.enter_context(socket.create_server((HOST, port)))


def test_a_taken_port_says_why() -> None:
    """A port that is in use, or that is none, cannot be listened on."""
    with socket.create_server((HOST, 0)) as one:
        assert "in use" in str(trouble_with(one.getsockname()[1]))
    assert trouble_with(70_000) is not None
