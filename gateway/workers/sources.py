"""Runs the discovery sources of a configuration, and hands their workers over when the configuration changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from gateway.config.model import Discovery, WorkerConfig
from gateway.workers import changes
from gateway.workers.discovery import Source, make

log = logging.getLogger(__name__)

HANDOVER_S: Final = 15.0
"""Time that the workers of sources which were replaced wait for the new sources to ask for them."""

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]], str], asyncio.Task[None]]
"""Runs something by name until it ends or the fleet does, and again after a fault of its own."""


class Sources:
    """The sources that run. One a fleet; its tasks are the fleet's."""

    def __init__(self, spawn: Spawn, heard: Callable[[str, list[WorkerConfig]], None], withdrawn: Callable[[list[str]], None]) -> None:
        """Construct without side effects.

        Args:
            spawn: runs a source.
            heard: takes the name of a source and the whole list of its workers.
            withdrawn: takes the names of sources that have no say any more.
        """
        self._spawn = spawn
        self._heard = heard
        self._withdrawn = withdrawn
        self._running: dict[str, _Running] = {}

    def __repr__(self) -> str:
        return f"<Sources {list(self._running)}>"

    def problems(self) -> dict[str, str]:
        """Return the sources by name, each with why it cannot look at the moment; empty where it can."""
        return {name: running.source.problem for name, running in self._running.items()}

    def apply(self, prepared: dict[str, tuple[Source, Discovery]]) -> None:
        """Run these sources and no others. One that changed keeps its workers until it has looked in its new way."""
        gone = [name for name in self._running if name not in prepared]
        fresh: list[_Running] = []
        for name in gone:
            self._running.pop(name).task.cancel()
        for name, (source, section) in prepared.items():
            running = self._running.get(name)
            if running is not None and running.section == section:
                continue
            if running is not None:
                running.task.cancel()
            fresh.append(self._start(name, source, section))
        if gone and fresh:
            self._spawn(lambda: self._hand_over(gone, fresh), "handing over of discovery")
        elif gone:
            self._withdrawn(gone)

    def _start(self, name: str, source: Source, section: Discovery) -> _Running:
        running = self._running[name] = _Running(source, section)

        def hear(specs: tuple[WorkerConfig, ...]) -> None:
            if self._running.get(name) is not running:
                return
            usable = [spec for spec in specs if not changes.is_grpc(spec)]
            if len(usable) != len(specs):
                log.error("discovery %s: %d workers left out: %s", name, len(specs) - len(usable), changes.NO_GRPC)
            running.heard.set()
            self._heard(name, usable)

        running.task = self._spawn(lambda: source.run(hear), f"discovery {name}")
        return running

    async def _hand_over(self, gone: list[str], fresh: list[_Running]) -> None:
        """Withdraw sources once those that came instead have said their workers, so that one that both ask for stays."""
        try:
            async with asyncio.timeout(HANDOVER_S):
                for running in fresh:
                    await running.heard.wait()
        except TimeoutError:
            pass
        self._withdrawn([name for name in gone if name not in self._running])


class _Running:
    """A source that runs."""

    def __init__(self, source: Source, section: Discovery) -> None:
        self.source = source
        self.section = section
        self.heard = asyncio.Event()
        """It has said its workers once."""
        self.task: asyncio.Task[None]


def prepare(discovery: tuple[Discovery, ...]) -> dict[str, tuple[Source, Discovery]]:
    """Make the sources of a configuration, by names that differ; nothing runs yet.

    Raises:
        ConfigError: a source cannot be made.
    """
    found: dict[str, tuple[Source, Discovery]] = {}
    for section in discovery:
        source = make(section)
        name, count = source.name, 1
        while name in found:
            count += 1
            name = f"{source.name}#{count}"
        source.name = name
        found[name] = (source, section)
    return found
