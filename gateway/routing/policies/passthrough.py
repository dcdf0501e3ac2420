"""passthrough: the candidates as they come; for one worker, where there is nothing to choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.routing.candidate import Candidate, RoutingRequest


class Passthrough:
    """Takes the first available worker; others only when it fails. Balances nothing."""

    name = "passthrough"

    def rank(self, request: RoutingRequest, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Yield the candidates in their order."""
        return iter(candidates)

    def chosen(self, request: RoutingRequest, candidate: Candidate) -> None:
        """Keep nothing."""

    def forget(self, candidate_id: str) -> None:
        """Keep nothing."""
