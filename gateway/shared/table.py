"""A table of 64-bit counters in shared memory: one row a process, so that nobody needs a lock.

A process writes only its own row and reads the sum over all rows. A reader may see a neighbour's counter a moment late;
nothing here needs more than that. A row whose process died is cleared by the supervisor before it is given away again.
"""

from __future__ import annotations

import mmap
import os

ITEM_BYTES = 8


class SharedTable:
    """`rows` x `columns` signed 64-bit counters; created by the supervisor, inherited by its processes through `fd`."""

    def __init__(self, rows: int, columns: int, *, row: int = 0, fd: int | None = None) -> None:
        self.rows = rows
        self.columns = columns
        self.index = row
        size = rows * columns * ITEM_BYTES
        if fd is None:
            self.fd = os.memfd_create("smg-shared", os.MFD_CLOEXEC)
            os.ftruncate(self.fd, size)
        else:
            self.fd = fd
        self._map = mmap.mmap(self.fd, size)
        self._cells = memoryview(self._map).cast("q")
        self.own = self._cells[row * columns : (row + 1) * columns]
        """This process's row, indexed by column."""

    def total(self, column: int) -> int:
        """Sum of a column over all processes."""
        if self.rows == 1:
            return self.own[column]
        return sum(self._cells[column :: self.columns])

    def others(self, column: int) -> int:
        """Sum of a column over all other processes."""
        return self.total(column) - self.own[column]

    def clear_row(self, row: int) -> None:
        """Set a row to zero, before its index is given to a new process."""
        start = row * self.columns
        for column in range(start, start + self.columns):
            self._cells[column] = 0

    def close(self) -> None:
        """Release the memory and the descriptor."""
        self.own.release()
        self._cells.release()
        self._map.close()
        os.close(self.fd)
