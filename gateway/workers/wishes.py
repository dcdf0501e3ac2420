"""Which workers there should be: what every source asks for, merged. Pure values.

Rules.

1. A worker is known by the identity of its URL. Where several sources ask for one, the configuration's word counts, then
   that of the discovery sources in their order, then the API's.
2. A source that stops asking for a worker passes it on to the next that asks for it; nothing is drained then.
3. A worker that was removed by hand stays away until a source asks for it anew, after not having asked for it, or until
   somebody adds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.config.model import WorkerConfig
from gateway.config.url import identity

CONFIG: Final = "config"
API: Final = "api"


class Wishes:
    """What every source asks for. One a fleet."""

    def __init__(self) -> None:
        self._by_source: dict[str, dict[str, WorkerConfig]] = {CONFIG: {}, API: {}}
        self._dismissed: set[str] = set()
        """Removed by hand, and still asked for by a source."""

    def __repr__(self) -> str:
        return f"<Wishes { ({source: len(wishes) for source, wishes in self._by_source.items()}) }>"

    def ask(self, source: str, specs: Iterable[WorkerConfig], *, anew: bool = False) -> None:
        """Take the whole list of a source. `anew`: also for those that were removed by hand."""
        wishes: dict[str, WorkerConfig] = {}
        for spec in specs:
            wishes.setdefault(identity(spec.url), spec)
        self._by_source[source] = wishes
        if anew:
            self._dismissed.difference_update(wishes)
        self._forget()

    def add(self, source: str, spec: WorkerConfig) -> None:
        """Take one more wish of a source, the API as a rule."""
        self._by_source.setdefault(source, {})[identity(spec.url)] = spec

    def withdraw(self, source: str) -> None:
        """Forget a source."""
        self._by_source.pop(source, None)
        self._forget()

    def dismiss(self, key: str) -> None:
        """Want a worker no more, whoever asks for it."""
        self._by_source[API].pop(key, None)
        self._dismissed.add(key)
        self._forget()

    def merged(self) -> Mapping[str, tuple[str, WorkerConfig]]:
        """Return identity -> (source, settings) of every worker that there should be."""
        found: dict[str, tuple[str, WorkerConfig]] = {}
        for source in (CONFIG, *(name for name in self._by_source if name not in (CONFIG, API)), API):
            for key, spec in self._by_source[source].items():
                if source == API or key not in self._dismissed:
                    found.setdefault(key, (source, spec))
        return found

    def _forget(self) -> None:
        asked = set[str]().union(*(wishes for source, wishes in self._by_source.items() if source != API))
        self._dismissed &= asked
