"""The configuration of a gateway that serves: changed under load, refused as a whole, reloaded, taken back."""

from __future__ import annotations

import asyncio
import copy
import pathlib
import signal
from typing import Any

import pytest

from gateway.sdk import AsyncClient, SmgApiError
from harness.sim import running
from tests.support.gateway_process import gateway_process, until, until_holds
from tests.support.outcomes import ask, body, client, keep_asking
from tests.support.subcommand import smgctl

BASE: dict[str, Any] = {"routing": {"policy": "round_robin"}, "health": {"interval_s": 1.0}}


@pytest.mark.parametrize("processes", [1, 2])
async def test_changes_under_load_touch_no_request(tmp_path: pathlib.Path, processes: int) -> None:
    """A new configuration every 200 ms, of everything that can change: no request fails, no stream is cut, every process follows."""
    async with running(decode_base_ms=10.0) as first, running(decode_base_ms=10.0) as second, running(decode_base_ms=10.0) as third:
        workers = [{"url": first.url}, {"url": second.url}]
        async with (
            gateway_process(tmp_path, {**BASE, "workers": workers}, processes=processes) as gateway,
            AsyncClient(gateway.url) as control,
            client() as http,
        ):
            begun = (await control.config()).version
            long = [
                asyncio.ensure_future(ask(http, gateway.url, body(f"{n}", stream=True, max_tokens=350, ignore_eos=True))) for n in range(6)
            ]
            stop = asyncio.Event()
            load = asyncio.ensure_future(keep_asking(gateway.url, 8, stop))
            variants: list[dict[str, Any]] = [
                {"routing": {"policy": "least_load"}, "retry": {"max_attempts": 2}},
                {"workers": [*workers, {"url": third.url, "cost": 2.0}], "breaker": {"window_s": 20.0}},
                {"workers": [{"url": first.url, "priority": 60}, {"url": third.url}], "timeouts": {"idle_s": 30}},
                {"admission": {"max_concurrent_requests": 100, "tenant_limit": {"requests_per_minute": 100_000}}},
                {"upstream": {"keep_alive_s": 1.0}, "log": {"level": "warning", "access": True}},
                {"workers": [{"url": first.url, "max_connections": 200}, {"url": second.url}], "hedge": {"enabled": True}},
                {},
            ]
            applied = 0
            for turn in range(15):
                config = {**BASE, "workers": workers, **variants[turn % len(variants)]}
                result = await control.apply_config(gateway.text(config))
                assert result.applied and result.changes
                applied += 1
                await asyncio.sleep(0.2)
            stop.set()
            outcomes = [*await load, *await asyncio.gather(*long)]
            assert all(one.ok for one in outcomes), [one for one in outcomes if not one.ok][:3]
            assert all(one.events == 351 for one in outcomes[-6:]) and len(outcomes) > 60
            assert (await control.config()).version == begun + applied
            status = await control.status()
            assert {one.version for one in status.processes} == {begun + applied} and sum(one.restarts for one in status.processes) == 0


async def test_a_mistake_changes_nothing(tmp_path: pathlib.Path) -> None:
    """An unknown key, a file that cannot be read, an environment variable that is not there: each is named, and refused as a whole."""
    async with running() as engine:
        good = {**BASE, "workers": [{"url": engine.url}]}
        async with (
            gateway_process(tmp_path, good, processes=2) as gateway,
            AsyncClient(gateway.url) as control,
            client() as http,
        ):
            before = await control.config()
            unreadable = str(tmp_path / "missing.pem")
            mistakes: list[tuple[dict[str, Any], str]] = [
                ({"retries": {"max_attempts": 2}}, "retries"),
                ({"retry": {"max_attempts": 2, "maximum": 3}}, "retry.maximum"),
                ({"workers": [{"url": "https://127.0.0.1:1", "ca_file": unreadable}]}, "ca_file"),
                ({"server": {"tls": {"cert_file": unreadable, "key_file": unreadable}}}, "cert_file"),
                ({"workers": [{"url": engine.url, "api_key_env": "SMG_TEST_NOT_THERE"}]}, "SMG_TEST_NOT_THERE"),
                ({"timeouts": {"idle_s": -1}}, "timeouts.idle_s"),
                ({"server": {"port": 1}}, "server.port"),
            ]
            for wrong, named in mistakes:
                # The timeout beside the mistake would be in force if a configuration were taken in part.
                config = copy.deepcopy({**good, "timeouts": {"total_s": 77}, **wrong})
                with pytest.raises(SmgApiError) as refused:
                    await control.apply_config(gateway.text(config))
                assert (refused.value.status, refused.value.code) == (400, "config_invalid"), wrong
                assert named in str(refused.value) + str(getattr(refused.value, "problems", "")), (wrong, refused.value)
                assert await control.config() == before
                assert (await ask(http, gateway.url, body())).ok
            file = tmp_path / "wrong.yaml"
            file.write_text(gateway.text({**good, "retries": {}}))
            code, printed = await smgctl(gateway.url, "config", "apply", str(file))
            assert code == 2 and "retries" in printed, printed
            workers = await control.workers()
            assert [one.url for one in workers.workers] == [engine.url]


@pytest.mark.parametrize("processes", [1, 2])
async def test_sighup_rollback_and_dry_run(tmp_path: pathlib.Path, processes: int) -> None:
    """SIGHUP reads the file again and survives a broken one; a dry run only shows the difference; a rollback brings back."""
    async with running() as engine:
        config: dict[str, Any] = {**BASE, "workers": [{"url": engine.url}]}
        async with (
            gateway_process(tmp_path, config, processes=processes) as gateway,
            AsyncClient(gateway.url) as control,
            client() as http,
        ):
            begun = (await control.config()).version
            gateway.write({**config, "timeouts": {"idle_s": 33}})
            gateway.child.signal(signal.SIGHUP)
            view = await until(control.config, lambda view: view.version == begun + 1, 5.0)
            assert view.config["timeouts"]["idle_s"] == 33

            gateway.file.write_text("workers: [\n  oh: no")
            gateway.child.signal(signal.SIGHUP)
            status = await until(control.status, lambda status: status.last_error, 5.0)
            assert status.config_version == begun + 1
            await until_holds(lambda: f"stays at version {begun + 1}" in gateway.log, 2.0)
            assert (await gateway.metrics())["smg_config_last_apply_successful"] == 0
            assert (await ask(http, gateway.url, body())).ok

            file = tmp_path / "new.yaml"
            file.write_text(gateway.text({**config, "timeouts": {"idle_s": 44}, "routing": {"policy": "random"}}))
            code, printed = await smgctl(gateway.url, "config", "apply", str(file), "--dry-run")
            assert code == 0 and "timeouts.idle_s" in printed and "33" in printed and "44" in printed and "routing.policy" in printed
            assert (await control.config()).version == begun + 1
            code, printed = await smgctl(gateway.url, "config", "apply", str(file))
            assert code == 0, printed
            view = await control.config()
            assert view.version == begun + 2 and view.config["routing"]["policy"] == "random"
            assert (await gateway.metrics())["smg_config_last_apply_successful"] == 1

            code, printed = await smgctl(gateway.url, "config", "rollback")
            assert code == 0, printed
            view = await control.config()
            assert view.version == begun + 3 and view.config["routing"]["policy"] == "round_robin"
            assert view.config["timeouts"]["idle_s"] == 33
            assert (await ask(http, gateway.url, body())).ok
