"""The policies, each a file: a request and its candidates in, a ranking out. `make` builds one by its name."""

from __future__ import annotations

from collections.abc import Callable
from random import Random as Generator

from gateway.config.model import PolicyName, RoutingConfig
from gateway.routing.candidate import Policy
from gateway.routing.policies.bucket import Bucket
from gateway.routing.policies.cache_aware import CacheAware
from gateway.routing.policies.consistent_hashing import ConsistentHashing
from gateway.routing.policies.least_load import LeastLoad
from gateway.routing.policies.passthrough import Passthrough
from gateway.routing.policies.power_of_two import PowerOfTwo
from gateway.routing.policies.prefix_hash import PrefixHash
from gateway.routing.policies.random import Random
from gateway.routing.policies.round_robin import RoundRobin
from gateway.routing.policies.sticky import Sticky

__all__ = ["POLICIES", "make"]

Clock = Callable[[], float]

POLICIES: dict[PolicyName, Callable[[RoutingConfig, Clock, Generator], Policy]] = {
    "round_robin": lambda config, clock, rng: RoundRobin(clock, rng),
    "random": lambda config, clock, rng: Random(clock, rng),
    "power_of_two": lambda config, clock, rng: PowerOfTwo(rng),
    "least_load": lambda config, clock, rng: LeastLoad(rng),
    "cache_aware": lambda config, clock, rng: CacheAware(config, rng),
    "prefix_hash": PrefixHash,
    "consistent_hashing": ConsistentHashing,
    "bucket": Bucket,
    "sticky": Sticky,
    "passthrough": lambda config, clock, rng: Passthrough(),
}
"""Name -> how to build it. A new policy is a file, a line here, and a name in `PolicyName`."""


def make(name: PolicyName, config: RoutingConfig, clock: Clock, rng: Generator) -> Policy:
    """Build a policy for one pool of one process."""
    return POLICIES[name](config, clock, rng)
