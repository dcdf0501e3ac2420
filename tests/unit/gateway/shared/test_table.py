"""The shared table: rows are written alone and read together."""

from __future__ import annotations

import os

import pytest

from gateway.shared.table import SharedTable


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 64])
def test_total_is_the_sum_over_all_rows(rows: int) -> None:
    """`total` adds one column over every row and no other column, whatever the number of rows."""
    first = SharedTable(rows, 10)
    members = [SharedTable(rows, 10, row=row, fd=os.dup(first.fd)) for row in range(rows)]
    for row, member in enumerate(members):
        member.own[3] = 10 ** (row % 8)
        member.own[4] = 7
    expected = sum(10 ** (row % 8) for row in range(rows))
    assert [member.total(3) for member in members] == [expected] * rows
    assert first.total(4) == 7 * rows
    assert first.total(0) == first.total(9) == 0
    assert members[-1].others(3) == expected - members[-1].own[3]
    for member in (*members, first):
        member.close()


def test_counters_are_signed() -> None:
    """A row may be below zero for a while: what one process adds another may take away."""
    one = SharedTable(2, 4)
    other = SharedTable(2, 4, row=1, fd=os.dup(one.fd))
    one.own[0] = 5
    other.own[0] = -3
    assert one.total(0) == other.total(0) == 2
    assert one.at(1, 0) == -3
    other.close()
    one.close()


def test_a_cleared_row_counts_no_more() -> None:
    """Clearing the row of a process that died takes its share out of every total, and nobody else's."""
    supervisor = SharedTable(3, 5)
    members = [SharedTable(3, 5, row=row, fd=os.dup(supervisor.fd)) for row in range(3)]
    for member in members:
        for column in range(5):
            member.own[column] = column + 1
    supervisor.clear_row(1)
    assert [supervisor.total(column) for column in range(5)] == [2, 4, 6, 8, 10]
    assert [members[1].own[column] for column in range(5)] == [0] * 5
    for member in (*members, supervisor):
        member.close()


@pytest.mark.parametrize("rows", [1, 2, 4, 8])
def test_close_ends_every_reader(rows: int) -> None:
    """The table closes although somebody kept `total`, and reading it then is an error, not old memory."""
    table = SharedTable(rows, 4)
    kept = table.total
    fd = table.fd
    assert kept(0) == 0
    table.close()
    with pytest.raises(ValueError):
        kept(0)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_column_that_does_not_exist_is_an_error() -> None:
    """Reading past the last column never returns a neighbour's counter."""
    for rows in (1, 2, 4):
        table = SharedTable(rows, 4)
        with pytest.raises(IndexError):
            table.total(4)
        table.close()
