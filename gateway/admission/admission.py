"""Admission: may this request run now, later, or not at all. Tenant limits first, then a place among those that run.

`enter` answers at once with a ticket, a refusal, or a wait that ends in one of the two. Nothing is held by a request that
was refused or that left: its reservation has been given back.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.admission.keyring import Identity
from gateway.admission.limits import TenantLimits
from gateway.admission.queue import Queue, Soon, Ticket, Waiting
from gateway.config.model import AdmissionConfig, PriorityClass
from gateway.errors import GatewayError
from gateway.shared.layout import CONCURRENCY
from gateway.shared.table import SharedTable
from gateway.telemetry.cells import ProcessCells

__all__ = ["Admission", "Ticket", "Waiting"]


class Admission:
    """The admission of one process. Made by the runtime, which calls `tick` about four times a second and `close` at the end.

    `clock` must be one that all processes of the gateway read alike (the monotonic clock of the machine).
    """

    def __init__(
        self,
        config: AdmissionConfig,
        table: SharedTable,
        clock: Callable[[], float],
        loop: Soon,
        cells: ProcessCells | None = None,
    ) -> None:
        cells = cells if cells is not None else ProcessCells()
        self._own = table.own
        self.limits = TenantLimits(config, table, clock, cells)
        self.queue = Queue(config, table, clock, loop, cells)
        self._open = not (self.limits.active or self.queue.limited)

    def __repr__(self) -> str:
        return f"<Admission {self.queue!r} {self.limits!r}>"

    def enter(
        self,
        identity: Identity,
        priority: PriorityClass,
        estimated_tokens: int,
        ready: Callable[[Ticket | GatewayError], None],
    ) -> Ticket | GatewayError | Waiting:
        """Let a request in, refuse it, or have it wait; `ready` is called later, and only after a `Waiting`."""
        if self._open:
            self._own[CONCURRENCY] += 1
            return Ticket(self.queue, None)
        reservation = None
        if self.limits.active:
            reserved = self.limits.reserve(identity.tenant, estimated_tokens)
            if isinstance(reserved, GatewayError):
                return reserved
            reservation = reserved
        outcome = self.queue.join(priority, reservation, ready)
        if reservation is not None and isinstance(outcome, GatewayError):
            reservation.cancel()
        return outcome

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Use new limits from the next request on; nobody who runs or waits is turned away by it."""
        self.limits.reconfigure(config)
        self.queue.reconfigure(config)
        self._open = not (self.limits.active or self.queue.limited)

    def tick(self, now_s: float) -> None:
        """Time out waits and take places that other processes freed."""
        self.queue.tick(now_s)

    def close(self) -> None:
        """Refuse everybody who waits."""
        self.queue.close()
