"""What a simulated engine measures of itself, written as the engine writes it."""

from __future__ import annotations

from typing import Any

from harness.sim.driver import Driver
from harness.sim.settings import SimSettings


class Record:
    """Placeholder."""

    def __init__(self, settings: SimSettings, driver: Driver) -> None:
        self._settings = settings
        self._driver = driver

    @property
    def throughput(self) -> float:
        """Tokens a second of the last step."""
        counters = self._driver.scheduler.counters
        return counters.last_step_tokens / counters.last_step_s if counters.last_step_s else 0.0

    def request(self, method: str, path: str, size: int) -> None:
        """Count a request."""

    def answer(self, method: str, path: str, status: int, size: int) -> None:
        """Count an answer."""

    def exposition(self) -> str:
        """Return the text."""
        return ""

    def iteration_stats(self) -> list[dict[str, Any]]:
        """Return stats."""
        return []
