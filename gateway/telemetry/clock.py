"""The wall clock, for timestamps that people and other machines read; durations come from the monotonic clock."""

from __future__ import annotations

import time


def wall_s() -> float:
    """Return Unix time in seconds."""
    return time.time()
