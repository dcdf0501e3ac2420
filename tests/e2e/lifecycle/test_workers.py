"""Workers that come, drain and leave while requests run on them, with several processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
from typing import Any

import pytest

from gateway.sdk import AsyncClient, SmgApiError, Unreachable
from harness.sim import running
from tests.support.gateway_process import gateway_process, until, until_holds
from tests.support.outcomes import CHAT, ask, body, client, keep_asking


async def test_a_removed_worker_ends_what_it_has_and_can_come_back(tmp_path: pathlib.Path) -> None:
    """It gets nothing new at once, in every process; its streams end whole; then it is gone, and may be added again."""
    async with running(decode_base_ms=15.0) as first, running(decode_base_ms=15.0) as second:
        config: dict[str, Any] = {"routing": {"policy": "round_robin"}, "workers": [{"url": first.url}, {"url": second.url}]}
        async with gateway_process(tmp_path, config, processes=2) as gateway, AsyncClient(gateway.url) as control:
            lasting = body(stream=True, max_tokens=120, ignore_eos=True)
            async with client() as http:
                streams = [asyncio.ensure_future(ask(http, gateway.url, lasting)) for _ in range(12)]
                await until_holds(lambda: first.state().running + second.state().running == 12)
                held = first.state().running
                assert held >= 4
                worker = await control.find_worker(first.url)
                await control.remove_worker(worker.id)
                assert (await control.worker(worker.id)).status == "draining"
                with pytest.raises(SmgApiError) as refused:
                    await control.add_worker(first.url)
                assert refused.value.status == 409
                before = first.state().paths[CHAT]
                for _ in range(10):
                    async with client() as new:
                        assert (await ask(new, gateway.url, body(max_tokens=1))).ok
                assert first.state().paths[CHAT] == before and first.state().running == held
                outcomes = await asyncio.gather(*streams)
                assert all(one.ok and one.events == 121 for one in outcomes), [one for one in outcomes if not one.ok]
            await until(control.workers, lambda found: [one.url for one in found.workers] == [second.url], 5.0)
            await until_holds(lambda: first.state().connections == 0, 2.0)
            added = await control.add_worker(first.url)
            assert (await control.wait_for_worker(added.worker_id, {"ready"}, 5.0)) is not None
            async with client() as http:
                assert all([(await ask(http, gateway.url, body(max_tokens=1))).ok for _ in range(10)])
            assert first.state().paths[CHAT] > before


async def test_deaths_in_the_middle_of_changes_leave_all_in_step(tmp_path: pathlib.Path) -> None:
    """Processes are killed while configurations are applied: those that survive and those that follow run the version in force."""
    async with running(decode_base_ms=2.0) as engine:
        config: dict[str, Any] = {"workers": [{"url": engine.url}]}
        async with gateway_process(tmp_path, config, processes=2) as gateway:
            stop = asyncio.Event()
            load = asyncio.ensure_future(keep_asking(gateway.url, 6, stop, max_tokens=10))
            refused = applied = 0
            for turn in range(24):
                text = gateway.text({**config, "timeouts": {"idle_s": 50 + turn}})
                if turn % 8 == 4:
                    os.kill(gateway.serving()[turn // 8 % 2].pid, signal.SIGKILL)
                with contextlib.suppress(Unreachable):  # the process that was asked may be the one that died
                    async with AsyncClient(gateway.url, timeout_s=15) as control:
                        try:
                            applied += (await control.apply_config(text)).applied
                        except SmgApiError as error:
                            assert error.status in (409, 503), error
                            refused += 1
                await asyncio.sleep(0.15)
            stop.set()
            outcomes = await load
            async with AsyncClient(gateway.url) as control:
                status = await until(control.status, lambda found: all(one.state == "ready" for one in found.processes), 15.0)
                assert {one.version for one in status.processes} == {status.config_version}
                assert sum(one.restarts for one in status.processes) == 3
                assert applied >= 12
                result = await control.apply_config(gateway.text({**config, "timeouts": {"idle_s": 99}}))
                assert result.applied
            broken = [one for one in outcomes if not one.ok]
            assert all(one.broken for one in broken) and len(broken) <= 3 * 6, broken[:3]
            assert len(outcomes) > 100
