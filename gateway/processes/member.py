"""Member: what the leader asks of a process that serves; the Runtime itself in one process, `RemoteMember` over a link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.config.model import GatewayConfig
from gateway.workers.state import WorkerState

if TYPE_CHECKING:
    from gateway.telemetry.snapshot import Snapshot


class Member(Protocol):
    """A process that serves requests, as the leader sees it.

    A configuration comes in two phases. `prepare` builds all that the new version needs, changes nothing that serves, and
    raises `GatewayError` if it cannot; `commit` then switches over without waiting for anything that can fail; `abort`
    throws away what was prepared. The leader never has two versions prepared at once. Version numbers need not rise: when
    one member failed, the others hear `prepare` and `commit` of the last good version again. `abort` of a version that is
    not prepared does nothing.

    The first calls that a new member hears are `prepare`, `commit` and `states`; it is ready once they have returned.

    Example::

        class Recorder:
            async def prepare(self, version, config): self.next = (version, config)
            async def commit(self, version): self.now, self.next = self.next, None
            async def abort(self, version): self.next = None
            def states(self, states): self.workers = states
            async def snapshot(self): return Snapshot()
            async def drain(self): ...
    """

    async def prepare(self, version: int, config: GatewayConfig) -> None:
        """Build what a version needs, beside what serves now; raise `GatewayError` if that fails."""
        ...

    async def commit(self, version: int) -> None:
        """Switch to the prepared version; requests in flight end under the old one."""
        ...

    async def abort(self, version: int) -> None:
        """Forget the prepared version."""
        ...

    def states(self, states: tuple[WorkerState, ...]) -> None:
        """Hear all workers there are; replaces what was heard before. Returns at once, never raises."""
        ...

    async def snapshot(self) -> Snapshot:
        """Return the counts of this process."""
        ...

    async def drain(self) -> None:
        """Stop taking connections, return when the last request has ended or `server.drain_timeout_s` is over."""
        ...
