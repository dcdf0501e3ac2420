"""Settings that make sense."""

from __future__ import annotations

from typing import Any

import pytest

from harness.sim.serve import ports_from, several
from harness.sim.settings import SimSettings


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"flavour": "other"}, "unknown flavour"),
        ({"tasks": ("sing",)}, "unknown task"),
        ({"max_running": 0}, "max_running"),
        ({"prefill_tps": -1.0}, "prefill_tps"),
        ({"kv_tokens": 8}, "at least one block"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], says: str) -> None:
    """A setting that no engine could run with is refused by name."""
    with pytest.raises(ValueError, match=says):
        SimSettings(**wrong)


def test_the_key_is_not_shown() -> None:
    """The API key does not appear in the text of the settings."""
    assert "secret" not in repr(SimSettings(api_key="secret"))


def test_several_engines_differ_by_seed() -> None:
    """Engines of one process have seeds counting up; a crash takes the process down where there is one alone."""
    assert [(one.seed, one.crash_exits) for one in several(SimSettings(seed=5), 3)] == [(5, False), (6, False), (7, False)]
    assert several(SimSettings(), 1)[0].crash_exits


def test_ports_count_up_and_zero_is_free() -> None:
    """Ports are consecutive, zero means free ones, and there is no port above 65535."""
    assert ports_from(8000, 3) == [8000, 8001, 8002]
    assert ports_from(0, 2) == [0, 0]
    assert ports_from(65_535, 1) == [65_535]
    for first, count in ((65_535, 2), (-1, 1), (8000, 0)):
        with pytest.raises(ValueError, match=r"port|count"):
            ports_from(first, count)
