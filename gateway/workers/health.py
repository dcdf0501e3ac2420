"""When workers are checked, and what their checks change: one loop a worker, a bounded number of checks at once.

    pending           at once, then after 0.2 s growing to 2 s: an engine that comes up is used within two seconds
    ready             every `interval_s`, moved by the jitter; after a refused connection every 0.25 s until it is clear
    not_ready         every `interval_s`
    failed            every 30 s, or every `interval_s` where that is longer
    draining          never; the loop waits until nothing is in flight

Workers that serve, workers that are new and workers that do not answer have lanes of their own, and a first probe has a short
time limit: many dead ones, each waiting for its limit, delay neither the checks of those that live nor those that come.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from gateway.config.model import HealthConfig
from gateway.telemetry.clock import wall_s
from gateway.workers import probe, record
from gateway.workers.probe import Outcome
from gateway.workers.record import Life, Record
from gateway.workers.state import Status

log = logging.getLogger(__name__)

SERVING_LANE: Final = 32
"""Checks at once of workers that serve."""
NEW_LANE: Final = 16
"""First probes at once."""
OTHER_LANE: Final = 16
"""Checks at once of all others; 64 in all."""
FIRST_PROBE_S: Final = 1.0
"""Time limit of a worker's first probe; those after it have the configured one."""
START_S: Final = 0.2
START_GROWTH: Final = 1.5
MAX_START_S: Final = 2.0
FAILED_S: Final = 30.0
CONFIRM_S: Final = 0.25
"""Pause before a refused connection is tried again: three refusals eject a worker after half a second."""
REPORT_GAP_S: Final = 0.5
"""A report of the data plane leads to a check unless one began less than this ago."""
MODELS_S: Final = 60.0
"""How often a worker in good health is asked for its models again, for adapters that were loaded or unloaded."""
NO_MODELS_S: Final = 5.0
"""The same, while it has not named any."""
FULL_EVERY: Final = 6
"""One look in so many is at the full health route, where there is a cheaper one."""


def pause_s(life: Life, health: HealthConfig, *, refused: bool, draw: float) -> float:
    """Return the time until the next check.

    Args:
        life: after the last check.
        health: the settings of the worker.
        refused: the last check met a refused connection.
        draw: a random number from 0 to 1.
    """
    match life.status:
        case Status.PENDING:
            growth = START_GROWTH ** min(max(life.failures - 1, 0), 32)
            base_s = START_S if life.successes else min(MAX_START_S, START_S * growth)
        case Status.FAILED:
            base_s = max(FAILED_S, health.interval_s)
        case Status.READY if life.failures and refused:
            base_s = min(CONFIRM_S, health.interval_s)
        case _:
            base_s = health.interval_s
    return base_s * (1 + health.jitter * (2 * draw - 1))


class Watcher:
    """Checks workers, each by a loop that the fleet runs for it."""

    def __init__(
        self,
        clock: Callable[[], float],
        changed: Callable[[Record], None],
        slow_start_s: Callable[[], float],
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Construct without side effects.

        Args:
            clock: monotonic.
            changed: called after every change of a record that others should see.
            slow_start_s: the time over which a worker that came back is given its share.
            draw: gives random numbers from 0 to 1.
        """
        self._clock = clock
        self._changed = changed
        self._slow_start_s = slow_start_s
        self._draw = draw
        self._serving = asyncio.Semaphore(SERVING_LANE)
        self._new = asyncio.Semaphore(NEW_LANE)
        self._others = asyncio.Semaphore(OTHER_LANE)

    def report(self, one: Record) -> None:
        """Hear that a request met a refused connection: check at once, if the last check is a while ago."""
        if one.life.status is Status.READY and one.health.enabled and self._clock() - one.checked_s >= REPORT_GAP_S:
            one.wake.set()

    async def turn(self, one: Record) -> None:
        """Check a worker once, then wait until its next check is due or it is woken."""
        one.wake.clear()
        spec = one.spec
        async with self._lane(one):
            one.checked_s = self._clock()
            outcome = await self._check(one)
        if one.spec is spec:
            self.heard(one, outcome)
        # Otherwise its settings changed meanwhile, and woke it: the answer was to the old ones.
        delay_s = self._unchecked_pause_s(one) if not one.health.enabled else pause_s(
            one.life, one.health, refused=outcome.refused, draw=self._draw()
        )  # fmt: skip
        await sleep(one.wake, delay_s)

    def heard(self, one: Record, outcome: Outcome) -> None:
        """Take over what a check said."""
        before, now_s = one.life, self._clock()
        if before.status is Status.DRAINING:
            return
        if outcome.found is not None:
            one.learn(outcome.found, now_s + (MODELS_S if outcome.found.models else NO_MODELS_S))
            self._changed(one)
        if not one.health.enabled:
            one.life = record.unchecked(before, now_s)
        elif outcome.ok:
            one.life = record.passed(before, now_s, one.health, self._slow_start_s())
        else:
            one.life = record.failed(before, now_s, one.health, outcome.reason)
        if one.life is not before:
            self.moved(one, before)

    def moved(self, one: Record, before: Life) -> None:
        """Tell a change of life."""
        after = one.life
        if after.status is not before.status:
            one.changed_s = wall_s()
            worse = after.status in (Status.NOT_READY, Status.FAILED)
            log.log(
                logging.WARNING if worse else logging.INFO,
                "worker %s: %s -> %s%s", one.spec.url, before.status, after.status, f" ({after.reason})" if after.reason else "",
            )  # fmt: skip
        elif after.status is Status.PENDING and after.failures and after.reason != before.reason:
            log.info("worker %s: not up yet (%s)", one.spec.url, after.reason)
        if (after.status, after.reason, after.recovered) != (before.status, before.reason, before.recovered):
            one.changed()
            self._changed(one)

    def _lane(self, one: Record) -> asyncio.Semaphore:
        if one.life.status is Status.READY:
            return self._serving
        return self._others if one.life.failures or one.joined else self._new

    async def _check(self, one: Record) -> Outcome:
        serving = one.life.status is Status.READY
        if not one.joined or not serving:
            health = one.health
            if not (one.joined or one.life.failures):
                health = health.model_copy(update={"timeout_s": min(health.timeout_s, FIRST_PROBE_S)})
            return await probe.join(one.spec, health)
        if not one.health.enabled:
            await self._models(one)
            return Outcome(True)
        sure = one.life.failures == 0 and one.looks < FULL_EVERY - 1
        one.looks = one.looks + 1 if sure else 0
        outcome = await probe.look(one.spec, one.health, one.cheap_path if sure else one.full_path, one.below_500)
        if outcome.ok and self._clock() >= one.models_due_s:
            await self._models(one)
        return outcome

    async def _models(self, one: Record) -> None:
        """Ask for the models again; a worker that names none keeps those it had."""
        spec = one.spec
        listed = await probe.list_models(spec, one.health)
        if one.spec is not spec:
            return
        one.models_due_s = self._clock() + (MODELS_S if listed or one.listed else NO_MODELS_S)
        if not listed or listed == one.listed:
            return
        log.info("worker %s: models are now %s", spec.url, ", ".join(model.name for model in listed))
        one.listed = listed
        one.changed()
        self._changed(one)

    def _unchecked_pause_s(self, one: Record) -> float:
        """A worker whose health is not checked is still asked what it serves."""
        if not one.joined:
            return max(one.health.interval_s, MAX_START_S)
        return max(CONFIRM_S, one.models_due_s - self._clock())


async def sleep(wake: asyncio.Event, delay_s: float) -> None:
    """Wait for a time, or until woken."""
    try:
        async with asyncio.timeout(delay_s):
            await wake.wait()
    except TimeoutError:
        pass
