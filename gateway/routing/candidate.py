"""What a policy sees: candidates with a load and a cost, and the few facts of a request that ranking may use.

A policy ranks, it does not act: `rank` yields the first choice, then the next, and the caller stops when an attempt holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class Candidate(Protocol):
    """A worker as a policy sees it. Identity (`is`) is the worker; `id` names it over time."""

    id: str
    url: str
    cost: float
    """Configured relative cost of a request; 2.0 means half the share of 1.0."""
    effective_cost: float
    """`cost`, raised while a worker that came back is given its share slowly. Load policies use this one."""

    @property
    def load(self) -> int:
        """Requests in flight on it, over all processes."""
        ...


class RoutingRequest(Protocol):
    """The facts of one request that a policy may use; reading a header is a scan, so only policies that need one pay."""

    prompt: bytes
    """Prefix-stable bytes of the prompt (the raw JSON of messages, prompt or input); empty where there is none."""

    def header(self, name: bytes) -> bytes | None:
        """Value of a request header, by its lower-case name."""
        ...


class Policy(Protocol):
    """A way to rank. One instance serves one pool (model), in one process, on one event loop.

    Example::

        class First:
            name = "first"

            def rank(self, request, candidates):
                yield from candidates

            def chosen(self, request, candidate): ...
            def forget(self, candidate_id): ...
    """

    name: str

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield candidates, best first, each at most once, all of them in the end.

        `candidates` are available, of one priority tier, and never empty; the same tuple object comes again until the pool
        changes, so that what is derived from it can be kept (`candidates is self._seen`).
        """
        ...

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Hear which candidate an attempt was sent to (also a second or a third)."""
        ...

    def forget(self, candidate_id: str) -> None:
        """Drop all that is kept about a worker that left."""
        ...
