"""Slots of the shared table."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.workers.slots import Slots


def test_a_slot_that_was_given_back_comes_last() -> None:
    """A freed slot rests as long as others are free."""
    slots = Slots(lambda slot: 0, 3)
    first = slots.take()
    assert first == 0
    slots.give(0)
    assert [slots.take(), slots.take(), slots.take(), slots.take()] == [1, 2, 0, None]


def test_a_slot_with_requests_in_flight_is_passed_over() -> None:
    """What outlived the drain of the last worker is no load of the next."""
    busy = {0: 2, 1: 0}
    slots = Slots(lambda slot: busy[slot], 2)
    assert [slots.take(), slots.take()] == [1, None]
    busy[0] = 0
    assert slots.take() == 0


@given(st.lists(st.booleans(), max_size=200))
def test_no_two_have_the_same_slot(takes: list[bool]) -> None:
    """In any order of taking and giving back, a slot has one owner."""
    slots = Slots(lambda slot: 0, 8)
    held: list[int] = []
    for take in takes:
        if take:
            slot = slots.take()
            assert (slot is None) is (len(held) == 8)
            if slot is not None:
                assert slot not in held
                held.append(slot)
        elif held:
            slots.give(held.pop(0))
