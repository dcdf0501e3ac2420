"""cache_aware: follows the prefix, gives way to load, never spirals."""

from __future__ import annotations

import random
from itertools import count

import pytest

from gateway.config.model import RoutingConfig
from gateway.routing.policies.cache_aware import CacheAware
from tests.support.candidates import Ask, fleet
from tests.support.closed_loop import closed_loop


def build(seed: int = 1, **settings: object) -> CacheAware:
    return CacheAware(RoutingConfig.model_validate(settings), random.Random(seed))


def send(policy: CacheAware, workers: tuple, prompt: bytes) -> str:
    ask = Ask(prompt)
    worker = next(policy.rank(ask, workers))
    policy.chosen(ask, worker)
    return worker.id


def messages(*texts: bytes) -> bytes:
    return b"[" + b",".join(b'{"role":"user","content":"' + text + b'"}' for text in texts) + b"]"


def test_conversations_stay_with_their_worker() -> None:
    """Each next turn of a conversation goes where the turns before went."""
    policy = build()
    rng = random.Random(2)
    with fleet(4) as workers:
        talks = [[rng.randbytes(300).hex().encode()] for _ in range(20)]
        homes = [send(policy, workers, messages(*talk)) for talk in talks]
        assert len({*homes}) == 4
        for _ in range(5):
            for talk in talks:
                talk.append(rng.randbytes(80).hex().encode())
            assert [send(policy, workers, messages(*talk)) for talk in talks] == homes


def test_a_short_match_is_not_followed() -> None:
    """Prompts that share less than `cache_threshold` of their length are spread by load."""
    policy = build(cache_threshold=0.5)
    head = messages(b"shared" * 40)[:-2]
    rng = random.Random(2)
    with fleet(8) as workers:
        assert len({send(policy, workers, head + rng.randbytes(2000)) for _ in range(60)}) == 8


def test_the_longest_match_decides() -> None:
    """Of two workers that share a beginning with the prompt, the one that shares more of it is taken, though it has more to do."""
    policy = build()
    rng = random.Random(2)
    short, long = rng.randbytes(1280), rng.randbytes(1280)
    with fleet(3) as workers:
        policy.chosen(Ask(short + rng.randbytes(640)), workers[0])
        policy.chosen(Ask(short + long), workers[1])
        workers[1].load = 5
        assert send(policy, workers, short + long + rng.randbytes(640)) == "w1"


def test_of_several_holders_the_least_loaded_is_taken() -> None:
    """Requests of a prefix that several workers hold spread over them by load."""
    policy = build()
    prompt = messages(b"p" * 2000)
    with fleet(4) as workers:
        for worker in workers[:3]:
            policy.chosen(Ask(prompt), worker)
        workers[0].load, workers[1].load, workers[2].load = 3, 1, 2
        assert send(policy, workers, prompt) == "w1"


@pytest.mark.parametrize(("load", "expected"), [(16, "w0"), (17, "w1")])
def test_an_imbalanced_holder_is_passed_over(load: int, expected: str) -> None:
    """Above the thresholds the least loaded worker takes the request, and holds the prefix from then on."""
    policy = build()
    prompt = messages(b"p" * 2000)
    with fleet(2) as workers:
        policy.chosen(Ask(prompt), workers[0])
        workers[0].load = load
        assert send(policy, workers, prompt) == expected
        workers[0].load = 1
        assert send(policy, workers, prompt) == expected


def test_an_absent_holder_is_no_answer_and_comes_back() -> None:
    """While the holder is not among the candidates another one is taken; then both hold the prefix."""
    policy = build()
    prompt = messages(b"p" * 2000)
    with fleet(3) as workers:
        policy.chosen(Ask(prompt), workers[0])
        other = send(policy, workers[1:], prompt)
        assert other != "w0"
        assert {send(policy, workers, prompt) for _ in range(40)} == {"w0", other}


def test_a_forgotten_worker_holds_nothing_even_if_it_comes_again() -> None:
    """A worker that left and came back under its id has an empty cache, and is not followed for what it once held."""
    policy = build()
    rng = random.Random(2)
    prompts = [messages(rng.randbytes(500).hex().encode()) for _ in range(30)]
    with fleet(2) as workers:
        for prompt in prompts:
            policy.chosen(Ask(prompt), workers[0])
        policy.forget("w0")
        taken = [next(policy.rank(Ask(prompt), workers)).id for prompt in prompts]
        assert {*taken} == {"w0", "w1"}, "spread by chance, as nobody holds them"


def test_short_prompts_have_affinity_too() -> None:
    """A prompt below one page is matched as a whole."""
    policy = build()
    with fleet(4) as workers:
        home = send(policy, workers, messages(b"hi"))
        assert {send(policy, workers, messages(b"hi")) for _ in range(20)} == {home}


@pytest.mark.parametrize("clients", [32, 64, 200])
@pytest.mark.parametrize("count_", [2, 4, 8])
def test_one_hot_prefix_does_not_pull_all_onto_one_worker(clients: int, count_: int) -> None:
    """Every request has the same long system prompt: all workers come to hold it, and loads differ by no more than allowed."""
    policy = build()
    rng = random.Random(2)
    head = rng.randbytes(4096).hex().encode()
    asks = (Ask(messages(head, rng.randbytes(100).hex().encode())) for _ in count())
    with fleet(count_) as workers:
        outcome = closed_loop(policy, workers, asks, clients=clients, requests=4000, prefix_of=lambda ask: head)
        assert max(outcome.share(worker) for worker in workers) < 1.3 / count_
        assert max(outcome.peak.values()) <= max(clients / count_ * 1.5, clients / count_ + 2) + 16
        assert outcome.warm >= 4000 - count_


def test_a_hot_prefix_leaves_a_slow_holder() -> None:
    """A holder that answers ten times slower does not keep the prefix's requests."""
    policy = build()
    head = random.Random(2).randbytes(4096).hex().encode()
    asks = (Ask(messages(head, b"%d" % at * 30)) for at in count())
    with fleet(4) as workers:
        policy.chosen(next(asks), workers[0])
        slow = workers[0]
        outcome = closed_loop(policy, workers, asks, clients=48, requests=4000, service_s=lambda w: 10.0 if w is slow else 1.0)
        assert outcome.share(slow) < 0.1


def test_many_conversations_keep_their_caches_under_load() -> None:
    """Two hundred conversations, forty requests in flight on four workers: most turns find their cache, and shares are even."""
    policy = build()
    rng = random.Random(2)
    talks = [[rng.randbytes(400).hex().encode()] for _ in range(200)]
    current: dict[bytes, bytes] = {}

    def turns():
        while True:
            talk = rng.choice(talks)
            prompt = messages(*talk)
            current[prompt] = talk[0]
            yield Ask(prompt)
            if len(talk) < 12:
                talk.append(rng.randbytes(100).hex().encode())

    with fleet(4) as workers:
        outcome = closed_loop(policy, workers, turns(), clients=40, requests=6000, prefix_of=lambda ask: current[ask.prompt])
        assert outcome.warm / 6000 > 0.9
        assert all(outcome.share(worker) == pytest.approx(0.25, abs=0.06) for worker in workers)
