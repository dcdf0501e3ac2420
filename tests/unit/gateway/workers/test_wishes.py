"""Who asks for which worker, and whose word counts."""

from __future__ import annotations

from gateway.config.model import WorkerConfig
from gateway.workers.wishes import API, CONFIG, Wishes


def spec(name: str, cost: float = 1.0) -> WorkerConfig:
    return WorkerConfig(url=f"http://{name}:80", cost=cost)


def key(name: str) -> str:
    return f"http://{name}:80"


def owners(wishes: Wishes) -> dict[str, str]:
    return {where.removeprefix("http://").removesuffix(":80"): source for where, (source, _) in wishes.merged().items()}


def test_the_configuration_wins_over_discovery_and_that_over_the_api() -> None:
    """One worker of one URL, whoever asks for it, with the settings of the first in line."""
    wishes = Wishes()
    wishes.add(API, spec("a", 3))
    wishes.ask("file:x", [spec("a", 2), spec("b", 2)])
    wishes.ask(CONFIG, [spec("a", 1)])
    assert owners(wishes) == {"a": CONFIG, "b": "file:x"}
    assert wishes.merged()[key("a")][1].cost == 1


def test_a_worker_passes_on_to_the_next_that_asks_for_it() -> None:
    """A source that stops asking takes a worker away only where nobody else asks."""
    wishes = Wishes()
    wishes.ask(CONFIG, [spec("a"), spec("b")])
    wishes.ask("dns:x", [spec("a")])
    wishes.ask(CONFIG, [])
    assert owners(wishes) == {"a": "dns:x"}
    wishes.withdraw("dns:x")
    assert owners(wishes) == {}


def test_a_removed_worker_stays_away_until_it_is_asked_for_anew() -> None:
    """A source that goes on listing it does not bring it back; one that had dropped it, a new configuration, or a POST does."""
    wishes = Wishes()
    wishes.ask("dns:x", [spec("a"), spec("b")])
    wishes.dismiss(key("a"))
    wishes.ask("dns:x", [spec("a"), spec("b")])
    assert owners(wishes) == {"b": "dns:x"}
    wishes.add(API, spec("a"))
    assert owners(wishes) == {"b": "dns:x", "a": API}
    wishes.dismiss(key("a"))
    assert owners(wishes) == {"b": "dns:x"}
    wishes.ask("dns:x", [spec("b")])
    wishes.ask("dns:x", [spec("a"), spec("b")])
    assert owners(wishes) == {"a": "dns:x", "b": "dns:x"}
    wishes.ask(CONFIG, [spec("c")])
    wishes.dismiss(key("c"))
    assert "c" not in owners(wishes)
    wishes.ask(CONFIG, [spec("c")], anew=True)
    assert owners(wishes)["c"] == CONFIG


def test_urls_that_mean_the_same_worker_are_one() -> None:
    """A default port, a trailing slash or capitals in the host make no second worker."""
    wishes = Wishes()
    wishes.ask(CONFIG, [WorkerConfig(url="http://A/"), WorkerConfig(url="http://a:80"), WorkerConfig(url="http://a")])
    assert list(wishes.merged()) == [key("a")]


def test_a_removed_worker_of_the_api_alone_leaves_nothing_behind() -> None:
    """Removing and adding by hand can be repeated for ever without growing."""
    wishes = Wishes()
    for _ in range(3):
        wishes.add(API, spec("a"))
        wishes.dismiss(key("a"))
    assert not wishes.merged()
    assert not wishes._dismissed
