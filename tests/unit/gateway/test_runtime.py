"""The runtime: two phases of configuration, a clock that nothing stops, and an end that closes everything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest

from gateway.admission.keyring import Identity
from gateway.config.model import GatewayConfig
from gateway.errors import ConfigError, GatewayError
from gateway.runtime import TICK_S, Runtime
from gateway.workers.breaker import BreakerState
from tests.support.exchange import ANSWER, Rig, state

KEY = {"auth": {"keys": [{"id": "k", "sha256": sha256(b"secret").hexdigest()}]}}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with Rig(2) as one:
        yield one


def config(**sections: Any) -> GatewayConfig:
    return GatewayConfig.model_validate({"routing": {"policy": "passthrough"}, **sections})


# -- configuration ----------------------------------------------------------------------------------------------------


async def test_a_version_is_prepared_then_committed(rig: Rig) -> None:
    """Between the two phases everything serves as before; after the second everything is new, and listeners have heard."""
    rt = rig.rt
    heard: list[GatewayConfig] = []
    rt.on_configure.append(heard.append)
    new = config(**KEY, retry={"max_attempts": 1}, models=[{"name": "m", "aliases": ["x"]}], server={"request_id_headers": ["x-mine"]})
    await rt.prepare(7, new)
    assert rt.version == 0 and isinstance(rt.keyring.identify(None, None), Identity) and not heard
    assert rt.router.route("x") is None and b"x-mine" not in rt.header_kinds
    await rt.commit(7)
    assert (rt.version, rt.config) == (7, new) and heard == [new]
    assert not isinstance(rt.keyring.identify(None, None), Identity)
    assert rt.router.route("x") is not None and b"x-mine" in rt.header_kinds and not rt.hands_credentials_on
    assert repr(rt) == "<Runtime version=7 2 workers>"


async def test_a_refused_version_changes_nothing(rig: Rig) -> None:
    """A check that fails in the first phase leaves the runtime as it was, and the version cannot be committed."""
    rt = rig.rt

    def refuse(_: GatewayConfig) -> None:
        raise ConfigError("no")

    rt.on_prepare.append(refuse)
    with pytest.raises(ConfigError):
        await rt.prepare(2, config(**KEY))
    with pytest.raises(GatewayError):
        await rt.commit(2)
    assert rt.version == 0 and isinstance(rt.keyring.identify(None, None), Identity)


async def test_only_the_prepared_version_is_committed(rig: Rig) -> None:
    """Another version than the prepared one is refused, so that all go back; the prepared one can be committed still, once."""
    rt = rig.rt
    await rt.prepare(2, config(**KEY))
    with pytest.raises(GatewayError, match="never prepared"):
        await rt.commit(3)
    assert rt.version == 0
    await rt.commit(2)
    assert rt.version == 2
    with pytest.raises(GatewayError, match="never prepared"):
        await rt.commit(2)


async def test_an_aborted_version_is_forgotten(rig: Rig) -> None:
    """After `abort` nothing is left to commit, and what was made for it is closed; so is that of a version prepared over."""
    rt = rig.rt
    await rt.prepare(2, config(log={"access": True}))
    await rt.abort(2)
    with pytest.raises(GatewayError):
        await rt.commit(2)
    assert rt.version == 0 and rt.access_log is None
    await rt.prepare(3, config(log={"access": True}))
    await rt.prepare(4, config())
    with pytest.raises(GatewayError):
        await rt.commit(3)
    assert rt.version == 0
    await rt.commit(4)
    assert rt.version == 4 and rt.access_log is None


async def test_the_access_log_lives_as_long_as_its_settings(rig: Rig) -> None:
    """It is kept over versions that do not touch it, replaced with new settings, and closed when it is switched off."""
    rt = rig.rt
    await rt.prepare(1, config(log={"access": True}))
    await rt.commit(1)
    first = rt.access_log
    assert first is not None
    await rt.prepare(2, config(log={"access": True}, retry={"max_attempts": 2}))
    await rt.commit(2)
    assert rt.access_log is first
    await rt.prepare(3, config(log={"access": True, "json_lines": True}))
    await rt.abort(3)
    assert rt.access_log is first
    await rt.prepare(4, config(log={"access": True, "json_lines": True}))
    await rt.commit(4)
    assert rt.access_log is not None and rt.access_log is not first
    await rt.prepare(5, config())
    await rt.commit(5)
    assert rt.access_log is None


async def test_requests_in_flight_outlive_a_version(rig: Rig) -> None:
    """A request that began under one version ends well under the next."""
    _, client = rig.ask()
    rig.rt.on_configure.append(rig.driver.configure)
    await rig.rt.prepare(2, config(**KEY, admission={"max_concurrent_requests": 1}))
    await rig.rt.commit(2)
    rig.call.refuse()
    rig.advance(1)
    rig.call.answer(200, ANSWER)
    assert client.status == 200
    rig.advance()
    rig.check_idle()


# -- time -------------------------------------------------------------------------------------------------------------


async def test_ticks_survive_each_other(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A tick that fails is logged, and keeps neither the others nor the clock from going on."""
    rt = rig.rt
    seen: list[str] = []

    def fails(now_s: float) -> None:
        raise RuntimeError("boom")

    rt.on_tick += [fails, lambda now_s: seen.append("tick")]
    rt.on_sweep += [fails, lambda now_s: seen.append("sweep")]
    caplog.set_level(logging.CRITICAL + 1, "gateway.runtime")
    async with rt:
        breaker = rig.workers[0].breaker
        for _ in range(5):
            breaker.failure()
        assert breaker.state is BreakerState.OPEN
        rig.advance(20 + TICK_S)
        assert breaker.state is BreakerState.HALF_OPEN, "breakers are moved on"
        assert seen.count("tick") in (200, 201) and seen.count("sweep") == 20
    count = len(seen)
    rig.advance(10)
    assert len(seen) == count, "the clock stops with the runtime"


async def test_the_real_clock_ticks() -> None:
    """On a real event loop the ticks come by themselves."""
    with Rig(0) as rig:
        loop = asyncio.get_running_loop()
        rt = Runtime(rig.config, rig.table, loop, ())
        ticked = asyncio.Event()
        rt.on_tick.append(lambda now_s: ticked.set())
        async with rt, asyncio.timeout(5):
            await ticked.wait()


# -- ends -------------------------------------------------------------------------------------------------------------


async def test_leaving_closes_everything(rig: Rig) -> None:
    """Workers' pools, waiting requests and the log are closed on the way out, also of a version that was only prepared."""
    rt = rig.rt
    async with rt:
        await rt.prepare(1, config(log={"access": True}, admission={"max_concurrent_requests": 1}))
        await rt.commit(1)
        rig.ask()
        _, waits = rig.ask()
        await rt.prepare(2, config(log={"access": True, "json_lines": True}))
    assert waits.status == 503 and waits.headers["x-smg-error-code"] == "draining"
    rig.advance(10)
    assert rig.clients[0].status in (502, 503) and all(pool.closed for pool in rig.pools.values())


async def test_a_drain_settles_first(rig: Rig) -> None:
    """Draining is told at once, then the listeners are asked to end."""
    told: list[bool] = []

    async def drained() -> None:
        told.append(rig.rt.draining)

    rig.rt.on_drain = drained
    await rig.rt.drain()
    assert told == [True] and "draining" in repr(rig.rt)


async def test_the_snapshot(rig: Rig) -> None:
    """It tells what is in flight, and what each worker is and has."""
    rig.tell([state(0), state(1, models=("a", "b"))])
    rig.ask()
    found = await rig.rt.snapshot()
    assert found.in_flight == 1
    one, two = sorted(found.workers, key=lambda worker: worker.id)
    assert (one.id, one.in_flight, one.url) == ("w0", 1, "http://w0:8000") and two.in_flight == 0
    rig.driver.close()
