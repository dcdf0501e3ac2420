"""Workers behind a DNS name: a worker an address (A, AAAA), or a worker a service record (SRV).

A resolver that fails (no answer, SERVFAIL, refused) changes nothing. A name without records is believed at the second look
in a row: a service that is being replaced has none for a moment, and dead workers are found by their health anyway.

Of SRV records, the better priority is the higher tier (`priority` 50, then 49, ...) and a weight is a share of the traffic: the
heaviest has `cost` 1, one of half its weight 2. Keys of the template win over both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol, cast

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from gateway.config.model import DnsDiscovery, WorkerConfig
from gateway.workers.discovery.source import Hear, Voice, from_urls, template_of

TIMEOUT_S: Final = 2.0
"""Limit on one nameserver's answer."""
LIFETIME_S: Final = 5.0
"""Limit on a look, all nameservers and repetitions."""
MAX_RECORDS: Final = 4096
BEST_PRIORITY: Final = 50
DNS_PORT: Final = 53


class Service(Protocol):
    """An SRV record, as dnspython has it."""

    priority: int
    weight: int
    port: int
    target: object


class DnsSource:
    """The workers of one name."""

    def __init__(self, config: DnsDiscovery) -> None:
        """Construct without side effects.

        Raises:
            ConfigError: the template makes no worker.
        """
        port = "" if config.port is None else f":{config.port}"
        self.name = f"dns:{config.record}:{config.name}{port}"
        self._config = config
        self._template = template_of(config.worker)
        self._voice = Voice(self.name)

    @property
    def problem(self) -> str:
        """Why the last look failed."""
        return self._voice.problem

    async def run(self, hear: Hear) -> None:
        """Resolve the name every `interval_s`."""
        said: tuple[WorkerConfig, ...] | None = None
        empty_before = False
        while True:
            specs = await self._look()
            if specs is not None and (specs or empty_before or said is None) and specs != said:
                hear(specs)
                said = specs
            empty_before = specs is not None and not specs
            await asyncio.sleep(self._config.interval_s)

    async def _look(self) -> tuple[WorkerConfig, ...] | None:
        config = self._config
        try:
            resolver = _resolver(config.nameservers)
            answer = await resolver.resolve(
                config.name, config.record, lifetime=LIFETIME_S, search=not config.nameservers and not config.name.endswith(".")
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            self._voice.works()
            return ()
        except (dns.exception.DNSException, OSError) as error:
            self._voice.fails(f"{config.name} cannot be resolved: {_why(error)}")
            return None
        self._voice.works()
        records = list(answer)[:MAX_RECORDS]
        if config.record == "SRV":
            found = services(cast(list[Service], records), config.scheme, frozenset(config.worker))
        else:
            found = [(f"{config.scheme}://{_host(str(record))}:{config.port}", {}) for record in records]
        return from_urls(self._template, found, self.name)


def services(records: Iterable[Service], scheme: str, fixed: frozenset[str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the URL and the worker keys of every SRV record; `fixed` are keys that the template sets."""
    usable = [record for record in records if record.port and str(record.target).rstrip(".")]
    tiers = {priority: BEST_PRIORITY - rank for rank, priority in enumerate(sorted({record.priority for record in usable}))}
    heaviest = {priority: max(record.weight for record in usable if record.priority == priority) for priority in tiers}
    found: list[tuple[str, dict[str, Any]]] = []
    for record in usable:
        cost = min(1000.0, heaviest[record.priority] / max(record.weight, 1)) if heaviest[record.priority] else 1.0
        keys: dict[str, Any] = {"priority": max(0, tiers[record.priority]), "cost": max(1.0, cost)}
        target = str(record.target).rstrip(".")
        found.append((f"{scheme}://{_host(target)}:{record.port}", {key: keys[key] for key in keys if key not in fixed}))
    return found


def _resolver(nameservers: tuple[str, ...]) -> dns.asyncresolver.Resolver:
    if not nameservers:
        resolver = dns.asyncresolver.Resolver()
    else:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = [_nameserver(text) for text in nameservers]
    resolver.timeout = TIMEOUT_S
    return resolver


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    address, port = text, DNS_PORT
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = int(rest[1:]) if rest else DNS_PORT
    elif text.count(":") == 1:
        address, _, rest = text.partition(":")
        port = int(rest)
    return dns.nameserver.Do53Nameserver(address, port)


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _why(error: Exception) -> str:
    if isinstance(error, dns.resolver.NoNameservers):
        return "every nameserver refused or failed"
    if isinstance(error, dns.exception.Timeout):
        return "no nameserver answered in time"
    if isinstance(error, dns.resolver.NoResolverConfiguration):
        return "the system has no resolver"
    return type(error).__name__
