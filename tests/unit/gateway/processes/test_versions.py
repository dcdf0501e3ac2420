"""Versions of the configuration."""

import pytest

from gateway.config.model import GatewayConfig, LogConfig
from gateway.errors import Code, GatewayError
from gateway.processes.versions import History

LEVELS = ("debug", "info", "warning", "error")


def _config(number: int) -> GatewayConfig:
    return GatewayConfig(log=LogConfig(level=LEVELS[number]))  # type: ignore[arg-type]


def _history(count: int) -> History:
    history = History(_config(0), 0.0)
    for number in range(1, count):
        history.advance(history.following(_config(number), "api", float(number)))
    return history


def test_numbers_rise_with_every_version() -> None:
    """The first is 1; each that comes into force is one more."""
    history = _history(3)
    assert (history.current.number, history.current.config) == (3, _config(2))


def test_a_version_is_not_in_force_before_it_advances() -> None:
    """Asking for the next version changes nothing."""
    history = _history(1)
    assert history.following(_config(1), "api", 1.0).number == 2
    assert history.current.number == 1


def test_rollbacks_go_further_and_further_back() -> None:
    """A second rollback goes to the version before, not forth again; numbers still rise."""
    history = _history(3)
    seen = []
    for _ in range(2):
        history.advance(history.backward(9.0))
        seen.append((history.current.number, history.current.source, history.current.config))
    assert seen == [(4, "rollback to 2", _config(1)), (5, "rollback to 1", _config(0))]
    with pytest.raises(GatewayError) as caught:
        history.backward(9.0)
    assert caught.value.code is Code.CONFLICT


def test_a_change_after_a_rollback_goes_back_to_the_rolled_back_version() -> None:
    """The version before the newest is the one it was made on."""
    history = _history(3)
    history.advance(history.backward(5.0))
    history.advance(history.following(_config(3), "api", 6.0))
    assert history.backward(7.0).config == _config(1)


def test_only_the_last_versions_are_kept() -> None:
    """A rollback beyond what is kept says so."""
    history = History(_config(0), 0.0, kept=2)
    for number in (1, 2, 3):
        history.advance(history.following(_config(number), "api", 0.0))
    assert len(history) == 2
    history.advance(history.backward(0.0))
    with pytest.raises(GatewayError, match="no longer kept"):
        history.backward(0.0)
