"""What SRV records mean for tiers and costs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.config.model import DnsDiscovery, WorkerConfig
from gateway.errors import ConfigError
from gateway.workers.discovery.dns import DnsSource, _nameserver, services
from gateway.workers.discovery.source import from_urls


@dataclass
class Record:
    priority: int
    weight: int
    port: int
    target: str


def test_priorities_are_tiers_and_weights_are_shares() -> None:
    """The better priority is the higher tier; half the weight costs twice as much; each tier has its own scale."""
    found = services(
        [Record(10, 100, 1, "a."), Record(10, 50, 2, "b."), Record(20, 5, 3, "c."), Record(30, 0, 4, "d.")], "http", frozenset()
    )
    assert found == [
        ("http://a:1", {"priority": 50, "cost": 1.0}),
        ("http://b:2", {"priority": 50, "cost": 2.0}),
        ("http://c:3", {"priority": 49, "cost": 1.0}),
        ("http://d:4", {"priority": 48, "cost": 1.0}),
    ]


def test_a_weight_of_nothing_among_others_costs_most_and_stays_in_bounds() -> None:
    """RFC 2782 gives weight 0 a very small chance; a cost has a limit."""
    found = services([Record(0, 65_535, 1, "a."), Record(0, 0, 2, "b.")], "http", frozenset())
    assert [keys["cost"] for _, keys in found] == [1.0, 1000.0]


def test_keys_of_the_template_win() -> None:
    """Whoever sets a cost for all gets it for all."""
    assert services([Record(0, 1, 1, "a.")], "https", frozenset({"cost"})) == [("https://a:1", {"priority": 50})]


def test_records_that_offer_nothing_are_passed_over() -> None:
    """A target of `.` says that the service is not there (RFC 2782)."""
    assert services([Record(0, 1, 1, "."), Record(0, 1, 0, "a.")], "http", frozenset()) == []


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [("10.0.0.1", "10.0.0.1", 53), ("10.0.0.1:5353", "10.0.0.1", 5353), ("[::1]:54", "::1", 54), ("::1", "::1", 53), ("[::1]", "::1", 53)],
)
def test_nameservers(text: str, address: str, port: int) -> None:
    """An address, or an address and a port."""
    assert str(_nameserver(text)) == f"Do53:{address}@{port}"


def test_a_wrong_template_is_a_configuration_error() -> None:
    """Said when the source is made, not when the first worker is found."""
    with pytest.raises(ConfigError, match="unknown key; did you mean `cost`"):
        DnsSource(DnsDiscovery(kind="dns", name="x", port=1, worker={"cots": 1}))


def test_workers_of_a_source_are_in_order_and_without_doubles() -> None:
    """The same records in another order are the same list; labels add to the template's."""
    template = WorkerConfig(url="http://template:1", labels={"a": "b"}, cost=3)
    found = [("http://b:1", {"labels": {"pod": "p"}}), ("http://a:1", {}), ("http://b:1", {}), ("nonsense", {})]
    specs = from_urls(template, found, "test")
    assert [(spec.url, spec.cost, spec.labels) for spec in specs] == [
        ("http://a:1", 3.0, {"a": "b"}),
        ("http://b:1", 3.0, {"a": "b"}),
    ]
