"""Runs a source of workers and waits for what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config.model import WorkerConfig
from gateway.workers.discovery import Source


class Ear:
    """What a source has said, newest last."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.said: list[tuple[WorkerConfig, ...]] = []
        self._news = asyncio.Event()

    def hear(self, specs: tuple[WorkerConfig, ...]) -> None:
        """Take a list."""
        self.said.append(specs)
        self._news.set()

    @property
    def urls(self) -> list[str] | None:
        """The URLs of the newest list; None before the first."""
        return [spec.url for spec in self.said[-1]] if self.said else None

    async def until(self, *urls: str, timeout_s: float = 10.0) -> None:
        """Wait until these are the workers."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.urls != list(urls):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s:g} s: {list(urls)}; now {self.urls}, {self.source.problem}") from None

    async def until_problem(self, part: str, timeout_s: float = 10.0) -> None:
        """Wait until the source says a problem; an empty one means that it has none."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (part in self.source.problem if part else self.source.problem == ""):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s:g} s: {part!r}; now {self.source.problem!r}") from None


@asynccontextmanager
async def listening(source: Source) -> AsyncIterator[Ear]:
    """Run a source."""
    ear = Ear(source)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run(ear.hear))
        yield ear
        task.cancel()
