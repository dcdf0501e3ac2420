"""When a serving process that ended is started again, and when there is no sense in it. Pure: told times, opens nothing."""

from __future__ import annotations

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 10.0
STEADY_S = 10.0
"""A process that served this long is started again at once, as if it had never failed."""
EARLY_DEATHS = 5
"""Starts in a row that end before the process is ready, after which it cannot be expected to start."""


class RestartRule:
    """Restarts of one process: the delay doubles while it keeps dying, and is forgotten once it serves steadily."""

    def __init__(self) -> None:
        self._deaths = 0
        self._early = 0

    def __repr__(self) -> str:
        return f"<RestartRule after {self._deaths} deaths, {self._early} before ready>"

    @property
    def hopeless(self) -> bool:
        """Whether it died too often before it was ready."""
        return self._early >= EARLY_DEATHS

    def died(self, served_s: float | None) -> float:
        """Take note of an end; return the seconds to wait before the next start.

        Args:
            served_s: how long it was ready; None if it never was.
        """
        if served_s is None:
            self._early += 1
        else:
            self._early = 0
            if served_s >= STEADY_S:
                self._deaths = 0
                return 0.0
        self._deaths += 1
        return min(FIRST_DELAY_S * 2.0 ** (self._deaths - 1), MAX_DELAY_S)
