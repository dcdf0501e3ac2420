"""Turns a model name into a ranked plan: pools of workers, their tiers, and the policy of each.

Rules.

1. A model is known while some worker serves it, whatever that worker's status, or while the configuration names it. An
   unknown model is 404; a known one without an available worker is 503.
2. A worker whose models nobody knows serves every name that no other worker claims.
3. A request that names no model goes to the only model there is; where there are several it must name one.
4. Within a pool the workers of the highest `priority` that has an available one come first, each tier ranked by the policy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gateway.config.model import ModelConfig, PolicyName, RoutingConfig
from gateway.routing.candidate import Policy, RoutingRequest
from gateway.routing.policies import make
from gateway.telemetry.cells import ModelCells
from gateway.workers.state import ModelInfo, Status
from gateway.workers.worker import Worker

ANY = ""
"""Name of the pool of workers whose models are not known."""

FIRST_BYTE_SAMPLES = 256
"""Times to the first byte that a pool remembers for hedging."""
FIRST_BYTE_FRESH = 32
"""New samples after which the quantile is drawn anew."""


class Pool:
    """The workers of one model and how they are ranked. Made and updated by `Router`; never closed."""

    __slots__ = ("_dirty", "_new_samples", "_next_sample", "_quantile_s", "_samples", "_tiers", "cells", "members", "name", "policy")

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.members: tuple[Worker, ...] = ()
        """All workers that serve the model, available or not."""
        self.cells: dict[tuple[str, bool], ModelCells] = {}
        """(endpoint, streaming) -> counters of this model."""
        self._dirty = True
        self._tiers: tuple[tuple[Worker, ...], ...] = ()
        self._samples: list[float] = []
        self._next_sample = 0
        self._new_samples = 0
        self._quantile_s = 0.0

    def __repr__(self) -> str:
        return f"<Pool {self.name!r} {self.policy.name} {len(self.members)} workers, {sum(map(len, self.tiers))} available>"

    @property
    def tiers(self) -> tuple[tuple[Worker, ...], ...]:
        """Available workers by falling priority; the same objects until something changed."""
        if self._dirty:
            self._dirty = False
            tiers: dict[int, list[Worker]] = {}
            for worker in self.members:
                if worker.ready and worker.breaker.available:
                    tiers.setdefault(worker.state.priority, []).append(worker)
            new = tuple(tuple(tiers[priority]) for priority in sorted(tiers, reverse=True))
            # A policy keeps what it derived from a tuple: an equal one keeps its identity.
            self._tiers = tuple(next((old for old in self._tiers if old == tier), tier) for tier in new)
        return self._tiers

    def plan(self, request: RoutingRequest) -> Iterator[Worker]:
        """Rank the available workers for a request, best first, each once; empty where none is available."""
        tiers = self.tiers if self._dirty else self._tiers
        if len(tiers) == 1:
            return self.policy.rank(request, tiers[0])  # type: ignore[return-value]
        return self._plan_tiers(request, tiers)

    def _plan_tiers(self, request: RoutingRequest, tiers: tuple[tuple[Worker, ...], ...]) -> Iterator[Worker]:
        for tier in tiers:
            yield from self.policy.rank(request, tier)  # type: ignore[misc]

    def changed(self) -> None:
        """Hear that a worker's availability or priority may have changed."""
        self._dirty = True

    def observe_first_byte(self, seconds: float) -> None:
        """Remember a time to the first byte."""
        if len(self._samples) < FIRST_BYTE_SAMPLES:
            self._samples.append(seconds)
        else:
            self._samples[self._next_sample] = seconds
            self._next_sample = (self._next_sample + 1) % FIRST_BYTE_SAMPLES
        self._new_samples += 1

    def first_byte_quantile_s(self, quantile: float) -> float | None:
        """The quantile of recent times to the first byte; None while too few are known."""
        if self._new_samples >= FIRST_BYTE_FRESH:
            self._new_samples = 0
            ordered = sorted(self._samples)
            self._quantile_s = ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]
        return self._quantile_s or None


@dataclass(frozen=True, slots=True)
class Route:
    """Where a model name leads."""

    pool: Pool
    rewrite: str | None = None
    """The name that the workers know, where the client used an alias of it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as `/v1/models` shows it."""

    name: str
    context_length: int | None
    parent: str | None
    engine: str
    alias_of: str | None = None


class Router:
    """All pools of a process. `refresh` after every change of the registry's workers; `configure` for new settings."""

    def __init__(
        self,
        workers: Callable[[], Iterable[Worker]],
        routing: RoutingConfig,
        models: tuple[ModelConfig, ...],
        clock: Callable[[], float],
    ) -> None:
        self._workers = workers
        self._routing = routing
        self._models = {model.name: model for model in models}
        self._clock = clock
        self._pools: dict[str, Pool] = {}
        self._routes: dict[str, Route] = {}
        self._membership: dict[str, frozenset[str]] = {}
        self._only: Route | None = None
        self._starting = False

    def __repr__(self) -> str:
        return f"<Router {list(self._pools.values())!r}>"

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Every pool there is."""
        return tuple(self._pools.values())

    @property
    def starting(self) -> bool:
        """Some worker has not told its models yet, so that an unknown name may still become known."""
        return self._starting

    def route(self, model: str) -> Route | None:
        """Return where a model name leads; for an empty name the only pool there is; None where nothing fits."""
        found = self._routes.get(model)
        if found is not None:
            return found
        return self._only if not model else self._routes.get(ANY)

    def configure(self, routing: RoutingConfig, models: tuple[ModelConfig, ...]) -> None:
        """Use new settings: a pool whose policy or whose parameters changed starts with a fresh one."""
        fresh = routing != self._routing
        self._routing = routing
        self._models = {model.name: model for model in models}
        for pool in self._pools.values():
            name = self._policy_of(pool.name)
            if fresh or pool.policy.name != name:
                pool.policy = self._new_policy(name)
        self.refresh()

    def refresh(self) -> None:
        """Match the registry's workers."""
        members: dict[str, list[Worker]] = {name: [] for name in self._models}
        self._starting = False
        for worker in self._workers():
            models = worker.state.models
            if models:
                for info in models:
                    members.setdefault(info.name, []).append(worker)
            elif worker.state.status is Status.READY:
                members.setdefault(ANY, []).append(worker)
            else:
                self._starting = True
        for name in [known for known in self._pools if known not in members]:
            del self._pools[name]
            self._membership.pop(name, None)
        for name, workers in members.items():
            pool = self._pools.get(name)
            if pool is None:
                pool = self._pools[name] = Pool(name, self._new_policy(self._policy_of(name)))
            pool.members = tuple(workers)
            now = frozenset(worker.id for worker in workers)
            for gone in self._membership.get(name, frozenset()) - now:
                pool.policy.forget(gone)
            self._membership[name] = now
            pool.changed()
        routes = {name: Route(pool) for name, pool in self._pools.items()}
        for model in self._models.values():
            for alias in model.aliases:
                routes.setdefault(alias, Route(self._pools[model.name], model.name if model.rewrite_alias else None))
        self._routes = routes
        self._only = self._only_route()

    def listed(self) -> list[Listed]:
        """The models that some ready worker serves, and their aliases, by name."""
        found: dict[str, Listed] = {}
        for pool in self._pools.values():
            for worker in pool.members:
                info = _info(worker, pool.name)
                if worker.ready and info is not None and pool.name not in found:
                    found[pool.name] = Listed(pool.name, info.context_length, info.parent, str(worker.state.engine))
        for model in self._models.values():
            base = found.get(model.name)
            for alias in model.aliases if base is not None else ():
                assert base is not None
                found.setdefault(alias, Listed(alias, base.context_length, base.parent, base.engine, model.name))
        return sorted(found.values(), key=lambda one: one.name)

    def _only_route(self) -> Route | None:
        """Where a request without a model goes: adapters do not count, since their base model is meant."""
        bases = [
            name
            for name, pool in self._pools.items()
            if not any((info := _info(worker, name)) is not None and info.parent is not None for worker in pool.members)
        ]
        return self._routes[bases[0]] if len(bases) == 1 else None

    def _policy_of(self, model: str) -> PolicyName:
        configured = self._models.get(model)
        return (configured.policy if configured is not None else None) or self._routing.policy

    def _new_policy(self, name: PolicyName) -> Policy:
        return make(name, self._routing, self._clock, random.Random())


def _info(worker: Worker, name: str) -> ModelInfo | None:
    for info in worker.state.models:
        if info.name == name:
            return info
    return None
