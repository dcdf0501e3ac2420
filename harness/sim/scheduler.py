"""Continuous batching, sans-IO: requests and the time go in, steps and tokens come out.

A step takes every running request one token further and uses what is left of its token budget for prompts, oldest first, cut
into chunks (vLLM V1's and SGLang's scheme). A request is admitted when a slot and KV blocks for its prompt are there; when
blocks run out in decode, the newest request is preempted and computed again later. Step time, in seconds, is

    base + per_request * decoding + prompt_tokens / prefill_tps

The driver calls `begin(now)` -> `Step`, waits `step.duration_s`, then calls `finish(step, now)` -> the tokens made. The tokens
of a request are known beforehand; the scheduler decides when they come, never what they are.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from harness.sim.kvcache import BlockPool, chain
from harness.sim.settings import SimSettings


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer being made. Created by the caller; `Scheduler` alone changes the fields below `salt`."""

    prompt: list[bytes]
    output: list[bytes]
    """The tokens that will be made, at least one."""
    salt: str = ""
    """Keeps the caches of adapters apart."""
    hashes: list[int] = field(default_factory=list)
    held: int = 0
    """Leading blocks held by hash."""
    private: int = 0
    """Blocks held that no hash names yet."""
    computed: int = 0
    """Tokens of `prompt + output` whose KV is there."""
    cached: int = 0
    """Prompt tokens that the prefix cache gave."""
    cacheable: int = 0
    """Prompt tokens in whole blocks."""
    produced: int = 0
    preempted: int = 0
    """Times that its blocks were taken from it."""
    target: int = 0
    """Tokens to compute before the next one is made: the prompt, or all so far after a preemption."""
    running: bool = False
    over: bool = False
    arrived_s: float = 0.0
    admitted_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float = 0.0


@dataclass(slots=True)
class Step:
    """One forward pass: how long it takes and what it computes."""

    duration_s: float
    decoding: list[Sequence]
    prefilling: list[tuple[Sequence, int]]
    prompt_tokens: int


@dataclass(slots=True)
class Counters:
    """Totals since the start, for metrics."""

    steps: int = 0
    prompt_tokens: int = 0
    """Prompt tokens of admitted requests."""
    cached_tokens: int = 0
    """Those of them that the prefix cache gave."""
    computed_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    aborted: int = 0
    finished: int = 0
    busy_s: float = 0.0
    """Time of all steps together."""
    last_step_s: float = 0.0
    last_step_tokens: int = 0
    """Tokens that the last step gave."""


class Scheduler:
    """The batch of one engine. Not thread-safe; one driver owns it."""

    def __init__(self, settings: SimSettings) -> None:
        self._settings = settings
        self.pool = BlockPool(settings.kv_tokens // settings.block_size)
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.counters = Counters()

    def __repr__(self) -> str:
        return f"<Scheduler [{len(self.running)} running, {len(self.waiting)} waiting, {self.pool!r}]>"

    def fits(self, sequence_tokens: int) -> bool:
        """Tell whether a sequence of this many tokens could ever run."""
        return -(-sequence_tokens // self._settings.block_size) <= self.pool.capacity

    def add(self, sequence: Sequence, now_s: float) -> None:
        """Queue a sequence."""
        sequence.arrived_s = now_s
        sequence.target = len(sequence.prompt)
        sequence.hashes = chain(sequence.prompt, self._settings.block_size, sequence.salt)
        sequence.cacheable = len(sequence.hashes) * self._settings.block_size
        self.waiting.append(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Take a sequence out at once, wherever it is; its blocks are free. Does nothing to one that is over."""
        if sequence.over:
            return
        sequence.over = True
        self.counters.aborted += 1
        if sequence.running:
            self.running.remove(sequence)
            self._free(sequence)
        else:
            self.waiting.remove(sequence)

    def begin(self, now_s: float) -> Step | None:
        """Plan the next step, or None when there is nothing to do."""
        settings = self._settings
        budget = settings.max_batched_tokens
        decoding: list[Sequence] = []
        prefilling: list[tuple[Sequence, int]] = []
        for sequence in tuple(self.running):
            if not sequence.running or budget <= 0:
                continue
            missing = sequence.target - sequence.computed
            if missing > 0:
                chunk = min(missing, budget)
                prefilling.append((sequence, chunk))
                budget -= chunk
            elif self._grow(sequence):
                decoding.append(sequence)
                budget -= 1
        decoding = [sequence for sequence in decoding if sequence.running]
        prefilling = [(sequence, chunk) for sequence, chunk in prefilling if sequence.running]
        while self.waiting and budget > 0 and len(self.running) < settings.max_running and self._admit(self.waiting[0], now_s):
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            chunk = min(sequence.target - sequence.computed, budget)
            prefilling.append((sequence, chunk))
            budget -= chunk
        if not decoding and not prefilling:
            return None
        prompt_tokens = sum(chunk for _, chunk in prefilling)
        duration_s = (settings.decode_base_ms + settings.decode_per_req_ms * len(decoding)) / 1000.0
        if settings.prefill_tps:
            duration_s += prompt_tokens / settings.prefill_tps
        return Step(duration_s, decoding, prefilling, prompt_tokens)

    def finish(self, step: Step, now_s: float) -> list[Sequence]:
        """End a step: return the sequences that got a token (its place is `produced - 1`); a done one is `over`."""
        counters = self.counters
        counters.steps += 1
        counters.last_step_s = step.duration_s
        counters.busy_s += step.duration_s
        counters.computed_tokens += step.prompt_tokens + len(step.decoding)
        emitted: list[Sequence] = []
        for sequence, chunk in step.prefilling:
            if sequence.over or not sequence.running:
                continue
            sequence.computed += chunk
            self._publish(sequence)
            if sequence.computed >= sequence.target:
                emitted.append(sequence)
        for sequence in step.decoding:
            if not sequence.over and sequence.running:
                sequence.computed += 1
                emitted.append(sequence)
        for sequence in emitted:
            sequence.produced += 1
            if sequence.first_token_s is None:
                sequence.first_token_s = now_s
            counters.generated_tokens += 1
            if sequence.produced >= len(sequence.output):
                self._complete(sequence)
        counters.last_step_tokens = len(emitted)
        return emitted

    def _admit(self, sequence: Sequence, now_s: float) -> bool:
        size = self._settings.block_size
        usable = sequence.hashes[: (sequence.target - 1) // size]
        matched = self.pool.match(usable)
        hit = usable[:matched]
        self.pool.take(hit)
        needed = -(-(sequence.target + 1) // size) - matched
        if not self.pool.allocate(needed):
            self.pool.release(hit, 0)
            return False
        sequence.held, sequence.private, sequence.computed = matched, needed, matched * size
        sequence.running = True
        if sequence.admitted_s is None:
            sequence.admitted_s = now_s
            sequence.cached = matched * size
            self.counters.prompt_tokens += len(sequence.prompt)
            self.counters.cached_tokens += sequence.cached
        return True

    def _grow(self, sequence: Sequence) -> bool:
        """Make room for one more token, preempting the newest others; False when the sequence itself had to go."""
        needed = -(-(sequence.computed + 2) // self._settings.block_size) - sequence.held - sequence.private
        if needed <= 0:
            return True
        while not self.pool.allocate(needed):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        sequence.private += needed
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._free(sequence)
        sequence.computed = 0
        tokens = sequence.prompt + sequence.output[: sequence.produced]
        sequence.target = len(tokens)
        sequence.hashes = chain(tokens, self._settings.block_size, sequence.salt)
        sequence.preempted += 1
        self.waiting.appendleft(sequence)
        self.counters.preemptions += 1

    def _publish(self, sequence: Sequence) -> None:
        full = min(sequence.computed // self._settings.block_size, len(sequence.hashes))
        while sequence.held < full:
            self.pool.publish(sequence.hashes[sequence.held])
            sequence.held += 1
            sequence.private -= 1

    def _complete(self, sequence: Sequence) -> None:
        sequence.over = True
        self.running.remove(sequence)
        sequence.hashes = chain(sequence.prompt + sequence.output[:-1], self._settings.block_size, sequence.salt)
        self._publish(sequence)
        self._free(sequence)
        self.counters.finished += 1

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.hashes[: sequence.held], sequence.private)
        sequence.held = sequence.private = 0
        sequence.running = False
