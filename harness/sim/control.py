"""The control routes of a simulated engine, below `/_sim/`: faults and state. They answer a frozen engine too."""

from __future__ import annotations

from typing import Protocol

import msgspec

from harness.sim.faults import Fault, Faults
from harness.sim.http import Exchange, Headers
from harness.sim.state import SimState

PREFIX = "/_sim/"
HEADERS: Headers = [("content-type", "application/json"), ("x-smg-sim", "1")]
UNKNOWN = "no such control route: GET /_sim/state, GET|POST|DELETE /_sim/faults"


class Engine(Protocol):
    """What the control routes need of their engine."""

    armed: Faults

    def state(self) -> SimState:
        """Return a snapshot."""

    def arm(self, fault: Fault) -> None:
        """Arm a fault."""

    def clear_faults(self) -> None:
        """Disarm all faults."""


def answer(engine: Engine, exchange: Exchange) -> None:
    """Answer a control request."""
    request = exchange.request
    match request.method, request.path:
        case "GET", "/_sim/state":
            _send(exchange, 200, engine.state())
        case "GET", "/_sim/faults":
            _send(exchange, 200, {"faults": engine.armed.armed})
        case "POST", "/_sim/faults":
            try:
                for fault in read(request.body):
                    engine.arm(fault)
            except ValueError as problem:
                _send(exchange, 400, {"error": str(problem)})
                return
            _send(exchange, 200, {"faults": engine.armed.armed})
        case "DELETE", "/_sim/faults":
            engine.clear_faults()
            _send(exchange, 200, {"faults": []})
        case _:
            _send(exchange, 404, {"error": UNKNOWN})


def read(body: bytes) -> list[Fault]:
    """Read one fault or a list of faults.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: both ValueErrors, when it is neither.
    """
    if body.lstrip()[:1] == b"[":
        return msgspec.json.decode(body, type=list[Fault])
    return [msgspec.json.decode(body, type=Fault)]


def _send(exchange: Exchange, status: int, value: object) -> None:
    body = msgspec.json.encode(value)
    exchange.respond(status, [("content-length", str(len(body))), *HEADERS], body)
