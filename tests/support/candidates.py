"""Workers and requests as policies see them: loads in a real shared table, as those of the real `Worker` are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager

from gateway.shared.table import SharedTable


class TableWorker:
    """A candidate whose load is a cell of a shared table."""

    __slots__ = ("_table", "cost", "effective_cost", "id", "slot", "url")

    def __init__(self, table: SharedTable, slot: int, cost: float = 1.0) -> None:
        self.id = f"w{slot}"
        self.url = f"http://10.0.{slot >> 8}.{slot & 255}:8000"
        self.cost = cost
        self.effective_cost = cost
        self.slot = slot
        self._table = table

    def __repr__(self) -> str:
        return f"<TableWorker {self.id} load={self.load} cost={self.effective_cost}>"

    @property
    def load(self) -> int:
        return self._table.total(self.slot)

    @load.setter
    def load(self, value: int) -> None:
        self._table.own[self.slot] = value


class Ask:
    """A request: a prompt and headers."""

    __slots__ = ("headers", "prompt")

    def __init__(self, prompt: bytes = b"", headers: Mapping[bytes, bytes] | None = None) -> None:
        self.prompt = prompt
        self.headers = dict(headers or {})

    def header(self, name: bytes) -> bytes | None:
        return self.headers.get(name)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextmanager
def fleet(count: int, costs: Mapping[int, float] | None = None, rows: int = 1):
    """A tuple of workers over one table."""
    table = SharedTable(rows, max(count, 1))
    try:
        yield tuple(TableWorker(table, slot, (costs or {}).get(slot, 1.0)) for slot in range(count))
    finally:
        table.close()
