"""Policies in front of simulated engines, in virtual time: batching, chunked prefill and prefix caches, without a socket.

`python -m tests.support.simulated_fleet` prints the table of docs/how-to/choose-a-policy.md.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.config.model import PolicyName, RoutingConfig
from gateway.routing.policies import POLICIES, make
from harness.sim.scheduler import Scheduler, Sequence, Step
from harness.sim.settings import SimSettings
from tests.support.candidates import Ask

ENGINE = SimSettings(kv_tokens=65_536, prefill_tps=10_000, decode_base_ms=8, decode_per_req_ms=0.2)
OUTPUT_TOKENS = 48
TOKEN_BYTES = 4


class Engine:
    """A candidate with a simulated engine behind it."""

    def __init__(self, number: int) -> None:
        self.id = f"w{number}"
        self.url = f"http://10.0.0.{number}:8000"
        self.cost = self.effective_cost = 1.0
        self.load = 0
        self.scheduler = Scheduler(ENGINE)
        self.stepping = False


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    requests_per_s: float
    hit_rate: float
    """Prompt tokens that the engines' prefix caches gave."""
    ttft_p50_s: float
    ttft_p99_s: float
    largest_share: float


def unique(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """Prompts of 750 tokens that have nothing in common. Yields session key and prompt, as all of these do."""
    while True:
        yield rng.randbytes(8), rng.randbytes(3000)


def hot(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """One system prompt of 1500 tokens before every question of 100."""
    head = rng.randbytes(6000)
    while True:
        yield rng.randbytes(8), head + rng.randbytes(400)


def documents(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """Questions about 300 documents of 2000 tokens, some asked about much more often than others (Zipf)."""
    texts = [rng.randbytes(8000) for _ in range(300)]
    weights = [1 / (at + 1) for at in range(300)]
    while True:
        yield rng.randbytes(8), rng.choices(texts, weights)[0] + rng.randbytes(300)


def talks(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """120 conversations that begin with 1000 tokens and grow by 200 a turn, up to 7500."""
    texts = [rng.randbytes(4000) for _ in range(120)]
    keys = [rng.randbytes(8) for _ in range(120)]
    while True:
        at = rng.randrange(120)
        yield keys[at], texts[at]
        texts[at] = texts[at] + rng.randbytes(800) if len(texts[at]) < 30_000 else rng.randbytes(4000)


WORKLOADS = {"unique": unique, "hot": hot, "documents": documents, "talks": talks}


def run(policy_name: PolicyName, workload: str, *, workers: int, clients: int, requests: int, **settings: object) -> Result:
    """Send requests, so many in flight at any time, and measure."""
    engines = tuple(Engine(number) for number in range(workers))
    now = 0.0
    policy = make(policy_name, RoutingConfig.model_validate(settings), lambda: now, random.Random(1))
    rng = random.Random(7)
    prompts = WORKLOADS[workload](rng)
    steps: list[tuple[float, int, Engine, Step]] = []
    served = dict.fromkeys(engines, 0)
    ttft_s: list[float] = []
    made = sent = 0

    def begin(engine: Engine) -> None:
        nonlocal made
        step = None if engine.stepping else engine.scheduler.begin(now)
        if step is not None:
            engine.stepping = True
            made += 1
            heapq.heappush(steps, (now + step.duration_s, made, engine, step))

    def send() -> None:
        nonlocal sent
        key, prompt = next(prompts)
        ask = Ask(prompt, {b"x-smg-routing-key": key})
        engine = next(policy.rank(ask, engines))
        policy.chosen(ask, engine)
        engine.load += 1
        served[engine] += 1
        sent += 1
        tokens = [prompt[at : at + TOKEN_BYTES] for at in range(0, len(prompt), TOKEN_BYTES)]
        engine.scheduler.add(Sequence(tokens, [b"x"] * (1 + int(rng.expovariate(1 / OUTPUT_TOKENS)))), now)
        begin(engine)

    for _ in range(clients):
        send()
    while steps:
        now, _, engine, step = heapq.heappop(steps)
        engine.stepping = False
        for sequence in engine.scheduler.finish(step, now):
            if sequence.produced == 1:
                ttft_s.append(now - sequence.arrived_s)
            if sequence.over:
                engine.load -= 1
                if sent < requests:
                    send()
        begin(engine)
    counters = [engine.scheduler.counters for engine in engines]
    ttft_s.sort()
    return Result(
        requests / now,
        sum(one.cached_tokens for one in counters) / sum(one.prompt_tokens for one in counters),
        ttft_s[len(ttft_s) // 2],
        ttft_s[len(ttft_s) * 99 // 100],
        max(served.values()) / requests,
    )


def main() -> None:
    """Print requests a second, hit rate and median time to the first token of every policy and workload as Markdown."""
    print("| policy | " + " | ".join(WORKLOADS) + " |")
    print("|---|" + "---|" * len(WORKLOADS))
    for name in POLICIES:
        results = [run(name, workload, workers=4, clients=48, requests=1200) for workload in WORKLOADS]
        cells = [f"{r.requests_per_s:.0f}/s, {r.hit_rate:.0%}, {r.ttft_p50_s * 1e3:.0f} ms" for r in results]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
