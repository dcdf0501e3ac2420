"""When a serving process is started again."""

from gateway.processes.restart import EARLY_DEATHS, FIRST_DELAY_S, MAX_DELAY_S, STEADY_S, RestartRule


def test_a_process_that_served_steadily_starts_again_at_once() -> None:
    """One death after a long life costs no delay."""
    assert RestartRule().died(STEADY_S) == 0.0


def test_the_delay_doubles_up_to_its_limit() -> None:
    """A process that keeps dying is started less and less often."""
    rule = RestartRule()
    delays = [rule.died(0.5) for _ in range(10)]
    assert delays[:3] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert delays[-1] == MAX_DELAY_S
    assert not rule.hopeless


def test_a_steady_life_forgets_the_deaths_before() -> None:
    """The delay begins anew after it served for a while."""
    rule = RestartRule()
    for _ in range(6):
        rule.died(0.0)
    rule.died(STEADY_S + 1)
    assert rule.died(0.0) == FIRST_DELAY_S


def test_early_deaths_in_a_row_are_hopeless() -> None:
    """Only deaths before it was ready count, and only in a row."""
    rule = RestartRule()
    for _ in range(EARLY_DEATHS - 1):
        rule.died(None)
    rule.died(0.1)
    for _ in range(EARLY_DEATHS - 1):
        rule.died(None)
    assert not rule.hopeless
    rule.died(None)
    assert rule.hopeless
