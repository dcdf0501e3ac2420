"""Continuous batching: time, chunks, waiting, preemption, cache; without clock or loop."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sim.scheduler import Scheduler, Sequence
from harness.sim.settings import SimSettings


def scheduler(**changes: Any) -> Scheduler:
    """Return a scheduler with round numbers."""
    values: dict[str, Any] = {"decode_base_ms": 10, "decode_per_req_ms": 1, "prefill_tps": 1000, "block_size": 4, "kv_tokens": 400}
    return Scheduler(SimSettings(**{**values, **changes}))


def sequence(prompt: int, output: int, name: str = "p") -> Sequence:
    """Return a sequence whose prompt no other name shares."""
    return Sequence([f"{name}{place}".encode() for place in range(prompt)], [f"o{place}".encode() for place in range(output)])


def run(made: Scheduler, limit: int = 10_000) -> float:
    """Run until there is nothing to do; return the time it took."""
    now_s = 0.0
    for _ in range(limit):
        step = made.begin(now_s)
        if step is None:
            return now_s
        now_s += step.duration_s
        made.finish(step, now_s)
    raise AssertionError("it never ended")


def test_step_time_is_base_and_requests_and_prompt() -> None:
    """A prefill step costs its tokens, a decode step its requests, both the base."""
    made = scheduler()
    made.add(sequence(100, 3), 0.0)
    first = made.begin(0.0)
    assert first is not None
    assert first.duration_s == pytest.approx(0.010 + 100 / 1000)
    assert [item.produced for item in made.finish(first, 0.11)] == [1]
    second = made.begin(0.11)
    assert second is not None
    assert second.duration_s == pytest.approx(0.010 + 0.001)


def test_long_prompts_are_cut_into_chunks_beside_decodes() -> None:
    """A prompt beyond the budget takes several steps, and running requests get a token in each of them."""
    made = scheduler(max_batched_tokens=32)
    short, long = sequence(4, 10, "s"), sequence(100, 2, "l")
    made.add(short, 0.0)
    step = made.begin(0.0)
    assert step is not None
    made.finish(step, 0.0)
    made.add(long, 0.0)
    chunks = []
    while not long.produced:
        step = made.begin(0.0)
        assert step is not None
        assert step.prompt_tokens + len(step.decoding) <= 32
        assert short in step.decoding
        chunks.append(step.prompt_tokens)
        made.finish(step, 0.0)
    assert chunks == [31, 31, 31, 7]
    assert short.produced == 5


def test_requests_wait_for_a_slot_in_order() -> None:
    """No more than `max_running` run; the next one is admitted when one ends."""
    made = scheduler(max_running=2)
    items = [sequence(4, 2, name) for name in "abc"]
    for item in items:
        made.add(item, 0.0)
    step = made.begin(0.0)
    assert (len(made.running), len(made.waiting)) == (2, 1)
    assert step is not None
    made.finish(step, 0.0)
    run(made)
    assert [item.over for item in items] == [True] * 3
    assert items[2].admitted_s is not None
    assert items[2].admitted_s > 0 or items[2].first_token_s is not None
    assert made.counters.finished == 3


def test_a_prefix_seen_before_is_not_computed_again() -> None:
    """The second request with a prompt takes its whole blocks from the cache, but for the last token."""
    made = scheduler()
    first, second = sequence(41, 1), sequence(41, 1)
    made.add(first, 0.0)
    run(made)
    made.add(second, 0.0)
    step = made.begin(0.0)
    assert step is not None
    assert (second.cached, step.prompt_tokens) == (40, 1)
    made.finish(step, 0.0)
    assert (made.counters.prompt_tokens, made.counters.cached_tokens) == (82, 40)


def test_a_conversation_finds_its_own_answer_cached() -> None:
    """The next turn of a conversation finds prompt and answer of the turn before."""
    made = scheduler()
    first = sequence(20, 9)
    made.add(first, 0.0)
    run(made)
    turn = Sequence([*first.prompt, *first.output, b"more"], [b"x"])
    made.add(turn, 0.0)
    run(made)
    assert turn.cached == 28


def test_without_room_the_newest_is_preempted_and_computed_again() -> None:
    """When blocks run out the newest request gives its own back, waits, and still makes each token once."""
    made = scheduler(kv_tokens=48)
    first, second = sequence(12, 30, "a"), sequence(12, 20, "b")
    made.add(first, 0.0)
    made.add(second, 0.0)
    run(made)
    assert made.counters.preemptions >= 1
    assert second.preempted >= 1
    assert first.preempted == 0
    assert (first.produced, second.produced) == (30, 20)
    assert (made.pool.used, made.counters.generated_tokens) == (0, 50)


def test_abort_frees_wherever_it_is() -> None:
    """An aborted request is out at once, from the queue or the batch, also between begin and finish."""
    made = scheduler(max_running=1)
    running, waiting = sequence(8, 50, "a"), sequence(8, 5, "b")
    made.add(running, 0.0)
    made.add(waiting, 0.0)
    step = made.begin(0.0)
    assert step is not None
    made.abort(waiting)
    made.abort(running)
    made.abort(running)
    assert made.finish(step, 0.0) == []
    assert (len(made.running), len(made.waiting), made.pool.used, made.counters.aborted) == (0, 0, 0, 2)
    assert made.begin(0.0) is None


JOBS = st.lists(
    st.tuples(st.integers(1, 60), st.integers(1, 40), st.sampled_from("ab"), st.integers(0, 30), st.integers(0, 60) | st.none()),
    min_size=1,
    max_size=12,
)


@given(jobs=JOBS, budget=st.integers(1, 40), slots=st.integers(1, 4), blocks=st.integers(26, 40))
@settings(max_examples=200, deadline=None)
def test_every_request_ends_and_nothing_is_lost(
    jobs: list[tuple[int, int, str, int, int | None]], budget: int, slots: int, blocks: int
) -> None:
    """However requests come, leave and are preempted: each one left makes its tokens once and in order, limits hold, all is freed."""
    made = scheduler(max_batched_tokens=budget, max_running=slots, kv_tokens=blocks * 4)
    items = [(sequence(prompt, output, name), start, leave) for prompt, output, name, start, leave in jobs]
    seen: dict[int, list[int]] = {place: [] for place in range(len(items))}
    places = {item: place for place, (item, _, _) in enumerate(items)}
    for turn in range(5_000):
        for item, start, leave in items:
            if start == turn:
                made.add(item, float(turn))
            if leave is not None and start + leave == turn:
                made.abort(item)
        step = made.begin(float(turn))
        assert len(made.running) <= slots
        assert made.pool.used <= made.pool.capacity
        if step is None:
            if turn > 100 and not made.waiting:
                break
            continue
        assert 0 < step.prompt_tokens + len(step.decoding) <= budget
        for item in made.finish(step, float(turn)):
            seen[places[item]].append(item.produced - 1)
    assert not made.running
    assert not made.waiting
    for item, _, leave in items:
        made_tokens = seen[places[item]]
        assert made_tokens == list(range(len(made_tokens)))
        if leave is None:
            assert len(made_tokens) == len(item.output)
    assert made.pool.used == 0
