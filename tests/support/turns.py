"""A clock that tests turn by hand, and an event loop that runs only when told to."""

from __future__ import annotations

from collections.abc import Callable


class HandClock:
    """A monotonic clock; `clock()` reads it, `clock.now_s += 1` moves it."""

    def __init__(self, now_s: float = 600.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class HandLoop:
    """Collects `call_soon` callbacks; `run` makes turns until nothing is left."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None], /) -> object:
        self.due.append(callback)
        return None

    def run(self) -> None:
        while self.due:
            due, self.due = self.due, []
            for callback in due:
                callback()
