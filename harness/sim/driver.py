"""Runs the scheduler on an event loop, by timers: no task, one timer an engine.

Life: created by `SimEngine`, fed by `submit`, stopped by `close`. While frozen no step ends, as in a process that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from harness.sim.job import Answer, Job
from harness.sim.scheduler import Scheduler, Sequence, Step
from harness.sim.settings import SimSettings

MIN_SLEEP_S = 0.0005
"""Shorter steps are not slept one by one but owed, since a timer of the loop is no finer."""
MAX_OWED_S = 0.02
"""A loop that comes late makes up for at most this; beyond it the engine is simply slower."""


class Driver:
    """The clockwork of one engine."""

    def __init__(self, settings: SimSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.scheduler = Scheduler(settings)
        self.frozen = False
        self.observers: list[Callable[[Job], None]] = []
        """Called with every job that ended well, for metrics."""
        self.on_emission: Callable[[Sequence, float], None] | None = None
        """Called for every token with its sequence and the time since the token before."""
        self.on_step: Callable[[int], None] | None = None
        """Called after every step with the tokens that went through it."""
        self._loop = loop
        self._owners: dict[Sequence, tuple[Job, Answer]] = {}
        self._timer: asyncio.Handle | None = None
        self._step: Step | None = None
        self._due_s = 0.0
        self._closed = False

    @property
    def jobs(self) -> int:
        """Jobs in flight, batch and queue together."""
        return len({id(job) for job, _ in self._owners.values()})

    def submit(self, job: Job) -> None:
        """Queue all answers of a job; its callbacks are called from the loop."""
        now_s = self._loop.time()
        job.left = len(job.answers)
        job.started_s = now_s
        for answer in job.answers:
            self._owners[answer.sequence] = (job, answer)
            self.scheduler.add(answer.sequence, now_s)
        if self._step is None:
            self._due_s = now_s
        self._kick()

    def abort(self, job: Job) -> None:
        """Free what a job holds; its callbacks are not called any more."""
        if job.over:
            return
        job.over = True
        for answer in job.answers:
            if self._owners.pop(answer.sequence, None) is not None:
                self.scheduler.abort(answer.sequence)

    def freeze(self) -> None:
        """Stop making tokens."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on where `freeze` stopped."""
        self.frozen = False
        if self._step is not None and self._timer is None:
            self._timer = self._loop.call_soon(self._finish)
        self._kick()

    def close(self) -> None:
        """Stop for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _kick(self) -> None:
        if self._step is not None or self._closed or self.frozen:
            return
        now_s = self._loop.time()
        self._step = self.scheduler.begin(now_s)
        if self._step is None:
            return
        self._due_s = max(self._due_s, now_s - MAX_OWED_S) + self._step.duration_s
        if self._due_s - now_s < MIN_SLEEP_S:
            self._timer = self._loop.call_soon(self._finish)
        else:
            self._timer = self._loop.call_at(self._due_s, self._finish)

    def _finish(self) -> None:
        self._timer = None
        step = self._step
        if self.frozen or step is None:
            return
        self._step = None
        now_s = self._loop.time()
        if self.on_step is not None:
            self.on_step(step.prompt_tokens + len(step.decoding))
        for sequence in self.scheduler.finish(step, now_s):
            owner = self._owners.get(sequence)
            if owner is None:
                continue
            job, answer = owner
            if self.on_emission is not None:
                self.on_emission(sequence, now_s - sequence.last_token_s if sequence.produced > 1 else 0.0)
            sequence.last_token_s = now_s
            if sequence.over:
                del self._owners[sequence]
                job.left -= 1
                if job.left == 0:
                    job.over = True
            if job.on_token is not None:
                job.on_token(answer, sequence.produced - 1)
            if job.left == 0:
                for observer in self.observers:
                    observer(job)
                if job.on_over is not None:
                    job.on_over()
        self._kick()
