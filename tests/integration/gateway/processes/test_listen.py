"""Listening sockets of several processes on one port, and which of them get new connections."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.errors import ConfigError
from gateway.processes.listen import Steering, bind_listeners


@contextmanager
def _bound(count: int, host: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(listener) for listener in bind_listeners(host, 0, count)]


def _connect(listeners: list[socket.socket], count: int, stack: contextlib.ExitStack) -> None:
    for _ in range(count):
        stack.enter_context(socket.create_connection(listeners[0].getsockname()[:2], timeout=5))


def _accepted(listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_all_share_one_free_port_and_get_connections() -> None:
    """Port 0 is one port for all, and each socket gets its share."""
    with _bound(3) as listeners, contextlib.ExitStack() as stack:
        assert len({listener.getsockname() for listener in listeners}) == 1
        _connect(listeners, 120, stack)
        counts = [_accepted(listener) for listener in listeners]
        assert sum(counts) == 120
        assert min(counts) > 10


@pytest.mark.parametrize("live", [[0], [2], [0, 2], [1, 2]])
def test_new_connections_go_to_the_living_alone(live: list[int]) -> None:
    """The others get none, the living share them."""
    with _bound(3) as listeners, contextlib.ExitStack() as stack:
        steering = Steering(listeners)
        steering.steer(live)
        assert steering.live == frozenset(live)
        _connect(listeners, 60, stack)
        counts = [_accepted(listener) for listener in listeners]
        assert sum(counts) == 60
        assert [index for index, count in enumerate(counts) if count] == live


def test_connections_that_wait_stay_with_their_socket() -> None:
    """A process that is restarted takes over what its predecessor had not accepted."""
    with _bound(2) as listeners, contextlib.ExitStack() as stack:
        steering = Steering(listeners)
        steering.steer([1])
        _connect(listeners, 5, stack)
        steering.steer([0])
        _connect(listeners, 3, stack)
        assert [_accepted(listener) for listener in listeners] == [3, 5]
        steering.steer([0, 1])
        _connect(listeners, 60, stack)
        assert min(_accepted(listener) for listener in listeners) > 5


def test_steering_to_nobody_changes_nothing() -> None:
    """While every process is down connections wait, they are not refused."""
    with _bound(2) as listeners, contextlib.ExitStack() as stack:
        steering = Steering(listeners)
        steering.steer([1])
        steering.steer([])
        _connect(listeners, 4, stack)
        assert [_accepted(listener) for listener in listeners] == [0, 4]


def test_a_port_that_another_gateway_has_is_refused() -> None:
    """Two gateways do not share a port by accident, though the kernel would let them."""
    with _bound(2) as listeners:
        port = listeners[0].getsockname()[1]
        with pytest.raises(ConfigError, match=f"server.port: cannot listen on 127.0.0.1:{port}"):
            bind_listeners("127.0.0.1", port, 2)


def test_a_host_that_is_no_address_is_a_mistake_of_the_configuration() -> None:
    """It is named by its key."""
    with pytest.raises(ConfigError, match=r"server\.host"):
        bind_listeners("no such host", 0, 1)


def test_ipv6() -> None:
    """A colon address works like the others."""
    with _bound(2, "::1") as listeners, contextlib.ExitStack() as stack:
        _connect(listeners, 10, stack)
        assert sum(_accepted(listener) for listener in listeners) == 10
