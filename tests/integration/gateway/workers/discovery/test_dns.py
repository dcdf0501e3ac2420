"""DNS discovery against a real nameserver on loopback."""

from __future__ import annotations

import asyncio
from typing import Any

import dns.rcode

from gateway.config.model import DnsDiscovery
from gateway.workers.discovery import make
from tests.support.discovery import listening
from tests.support.dns_server import DnsServer, dns_server

NAME = "engines.test."


def config(server: DnsServer, **more: Any) -> DnsDiscovery:
    return DnsDiscovery(kind="dns", **{"name": "engines.test", "interval_s": 0.05, "nameservers": (server.address,), **more})


async def test_addresses_are_workers() -> None:
    """An A record is a worker at the configured port; the list follows the records, and is said only when it changes."""
    async with dns_server() as server:
        server.records[NAME, "A"] = ["10.0.0.2", "10.0.0.1"]
        async with listening(make(config(server, port=8000))) as ear:
            await ear.until("http://10.0.0.1:8000", "http://10.0.0.2:8000")
            server.records[NAME, "A"] = ["10.0.0.1", "10.0.0.2"]
            queries = server.queries
            while server.queries < queries + 3:
                await asyncio.sleep(0.01)
            assert len(ear.said) == 1
            server.records[NAME, "A"] = ["10.0.0.3"]
            await ear.until("http://10.0.0.3:8000")


async def test_addresses_of_ipv6_and_the_template() -> None:
    """AAAA records make bracketed URLs; every worker has the keys of the template."""
    async with dns_server() as server:
        server.records[NAME, "AAAA"] = ["fd00::1"]
        source = make(config(server, record="AAAA", port=1, scheme="https", worker={"cost": 2, "api_key": "k"}))
        async with listening(source) as ear:
            await ear.until("https://[fd00::1]:1")
            spec = ear.said[0][0]
            assert spec.cost == 2.0
            assert spec.api_key is not None


async def test_service_records() -> None:
    """SRV records carry port, tier and share."""
    async with dns_server() as server:
        server.records["_http._tcp.engines.test.", "SRV"] = ["10 100 8000 a.test.", "10 50 8001 b.test.", "20 1 8002 c.test."]
        async with listening(make(config(server, name="_http._tcp.engines.test", record="SRV"))) as ear:
            await ear.until("http://a.test:8000", "http://b.test:8001", "http://c.test:8002")
            assert [(spec.priority, spec.cost) for spec in ear.said[0]] == [(50, 1.0), (50, 2.0), (49, 1.0)]


async def test_a_failing_resolver_keeps_the_last_list() -> None:
    """SERVFAIL and REFUSED change nothing, are said, and are over when the resolver works again."""
    async with dns_server() as server:
        server.records[NAME, "A"] = ["10.0.0.1"]
        async with listening(make(config(server, port=1))) as ear:
            await ear.until("http://10.0.0.1:1")
            for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED):
                server.rcode = rcode
                await ear.until_problem("engines.test cannot be resolved: every nameserver refused or failed")
                server.rcode = None
                await ear.until_problem("")
            assert len(ear.said) == 1


async def test_a_silent_resolver_keeps_the_last_list() -> None:
    """No answer within the time limit is a failure of the resolver, not of the workers."""
    async with dns_server() as server:
        server.records[NAME, "A"] = ["10.0.0.1"]
        async with listening(make(config(server, port=1))) as ear:
            await ear.until("http://10.0.0.1:1")
            server.silent = True
            await ear.until_problem("no nameserver answered in time", timeout_s=15.0)
            server.silent = False
            await ear.until_problem("", timeout_s=15.0)
            assert len(ear.said) == 1


async def test_a_name_without_records_is_believed_at_the_second_look() -> None:
    """One empty answer between two full ones drains nobody; two in a row mean that there are none."""
    async with dns_server() as server:
        server.records[NAME, "A"] = ["10.0.0.1"]
        async with listening(make(config(server, port=1, interval_s=0.1))) as ear:
            await ear.until("http://10.0.0.1:1")
            for gone in ("NXDOMAIN", "no answer"):
                server.records = {} if gone == "NXDOMAIN" else {(NAME, "TXT"): ["x"]}
                queries = server.queries
                while server.queries == queries:
                    await asyncio.sleep(0.001)
                server.records = {(NAME, "A"): ["10.0.0.1"]}
                while server.queries < queries + 3:
                    await asyncio.sleep(0.01)
                assert len(ear.said) == 1, gone
            server.records = {}
            await ear.until()


async def test_a_name_without_records_at_the_start_is_no_workers() -> None:
    """The gateway starts with none, and knows it."""
    async with dns_server() as server, listening(make(config(server, port=1))) as ear:
        await ear.until()
        assert ear.source.problem == ""
