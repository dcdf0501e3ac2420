"""What `GET /_sim/state` tells of an engine: counters, load, faults, and the last requests byte for byte."""

from __future__ import annotations

import msgspec

from harness.sim.faults import Fault


class SeenRequest(msgspec.Struct, frozen=True):
    """A request as it arrived, bodies above 4 MiB cut. In JSON the body is base64."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    """In the order and case in which they came."""
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header of this name, any case."""
        low = name.lower()
        return next((value for found, value in self.headers if found.lower() == low), None)


class SimState(msgspec.Struct, frozen=True):
    """A snapshot of one engine."""

    flavour: str
    model: str
    port: int
    requests: int
    """Requests received since the start, control routes not counted."""
    paths: dict[str, int]
    """The same by path; at most 64 paths are told apart, others count as `other`."""
    statuses: dict[str, int]
    """Answers begun, by status."""
    aborted: int
    """Requests whose client left before the answer was over."""
    running: int
    """Sequences in the batch."""
    waiting: int
    """Sequences in the queue."""
    finished: int
    """Sequences that ended by themselves."""
    connections: int
    """Open client connections."""
    connections_total: int
    slow_clients: int
    """Connections whose client does not read what is there for it."""
    kv_used_tokens: int
    cached_tokens: int
    """Prompt tokens that the prefix cache gave, in total."""
    prompt_tokens: int
    generated_tokens: int
    fault_hits: int
    faults: list[Fault]
    last: list[SeenRequest]
    """The last requests, oldest first."""
