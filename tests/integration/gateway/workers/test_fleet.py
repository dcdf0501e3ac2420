"""The fleet with real connections: workers join, die, come back, flap, drain and leave."""

from __future__ import annotations

import asyncio

import pytest
import trustme

from gateway.config.model import Engine, HealthConfig, UpstreamConfig, WorkerConfig
from gateway.errors import ClientError, Code, ConfigError
from gateway.workers.state import ModelInfo, Status
from harness.sim import running
from tests.support.fleet import QUICK, Script, configured, listing, scripted, watched

SLOW = HealthConfig(interval_s=60, timeout_s=1, failure_threshold=3)
"""So slow that nothing but what a test causes leads to a check."""


@pytest.mark.parametrize(
    ("flavour", "engine", "version", "context"),
    [
        ("vllm", Engine.VLLM, "0.32.0", 4096),
        ("sglang", Engine.SGLANG, "0.5.23", 4096),
        ("trtllm", Engine.TRTLLM, "1.2.1", None),
    ],
)
async def test_an_engine_joins_with_what_it_is(flavour: str, engine: Engine, version: str, context: int | None) -> None:
    """A worker is ready at once, with its engine, its version, its models and their context length."""
    async with running(flavour=flavour, model="base", loras=("lora",), max_model_len=4096) as sim, watched(configured(sim.url)) as one:
        await one.until_status(sim.url, "ready", timeout_s=1.0)
        state = one.at(sim.url)
        assert state is not None
        assert (state.engine, state.version, state.source, state.recovered) == (engine, version, "config", False)
        lora = "base" if flavour != "trtllm" else None
        assert state.models == (
            ModelInfo(name="base", context_length=context),
            ModelInfo(name="lora", context_length=context, parent=lora),
        )
        assert one.statuses(sim.url) == ["pending", "ready"]


async def test_sglang_is_seldom_made_to_generate() -> None:
    """Most looks at a healthy SGLang are at `/v1/loads`; its `/health`, which costs a token, is asked every few."""
    async with running(flavour="sglang") as sim, watched(configured(sim.url)) as one:
        await one.until_status(sim.url, "ready")
        while sim.state().paths.get("/v1/loads", 0) < 12:
            await asyncio.sleep(0.02)
        paths = sim.state().paths
        assert 2 <= paths["/health"] <= 4
        sim.faults(kind="unhealthy")
        await one.until_status(sim.url, "not_ready")
        sim.clear_faults()
        await one.until_status(sim.url, "ready")


async def test_a_worker_over_tls_with_a_key() -> None:
    """Checks use the worker's own authority and key; a wrong key is said to the operator and the worker gets nothing."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    with (
        authority.cert_pem.tempfile() as ca_file,
        leaf.private_key_pem.tempfile() as key_file,
        leaf.cert_chain_pems[0].tempfile() as cert_file,
    ):
        async with running(flavour="vllm", api_key="k", tls_cert=cert_file, tls_key=key_file) as sim:
            url = f"https://localhost:{sim.port}"
            good = WorkerConfig(url=url, api_key="k", ca_file=ca_file)
            async with watched(configured()) as one:
                await one.fleet.add_worker(WorkerConfig(url=url, api_key="wrong", ca_file=ca_file))
                await one.until(lambda: "401" in (getattr(one.at(url), "reason", "")))
                state = one.at(url)
                assert state is not None
                assert state.status is Status.PENDING
                assert "refuses the api_key" in state.reason
                await one.fleet.replace_worker(state.id, good)
                await one.until_status(url, "ready")
            async with watched(configured()) as one:
                await one.fleet.add_worker(WorkerConfig(url=url, api_key="k"))
                await one.until(lambda: "certificate" in getattr(one.at(url), "reason", ""))


async def test_a_worker_that_dies_is_ejected_and_comes_back_slowly() -> None:
    """ready -> not_ready -> ready with `recovered`, which goes away once the slow start is over."""
    config = configured(upstream=UpstreamConfig(slow_start_s=0.3))
    async with running(flavour="vllm") as sim, watched(config) as one:
        await one.fleet.add_worker(WorkerConfig(url=sim.url))
        await one.until_status(sim.url, "ready")
        sim.crash()
        await one.until_status(sim.url, "not_ready")
        state = one.at(sim.url)
        assert state is not None
        assert state.models
        assert "refuses connections" in state.reason
        await sim.restart()
        await one.until_status(sim.url, "ready")
        assert one.at(sim.url).recovered  # type: ignore[union-attr]
        await one.until(lambda: not one.at(sim.url).recovered)  # type: ignore[union-attr]
        assert one.statuses(sim.url) == ["pending", "ready", "not_ready", "ready"]


async def test_a_report_of_the_data_plane_ejects_a_dead_worker_fast() -> None:
    """With checks a minute apart, a refused connection that a request met takes the worker out within a second or so."""
    async with running(flavour="vllm") as sim, watched(configured(sim.url, health=SLOW)) as one:
        await one.until_status(sim.url, "ready")
        state = one.at(sim.url)
        assert state is not None
        sim.crash()
        await asyncio.sleep(0.5)  # a check began less than this ago: reports are not taken up before
        for _ in range(1000):
            one.fleet.report_failure(state.id)
        one.fleet.report_failure("nobody")
        await one.until_status(sim.url, "not_ready", timeout_s=2.0)


async def test_reports_about_a_living_worker_change_nothing_and_cost_little() -> None:
    """A storm of reports leads to one check in half a second, not to one each."""
    async with scripted(models=listing("m"), health=(200, {})) as server, watched(configured(server.url, health=SLOW)) as one:
        await one.until_status(server.url, "ready")
        state = one.at(server.url)
        assert state is not None
        begin = server.paths()["/health"]
        for _ in range(110):
            one.fleet.report_failure(state.id)
            await asyncio.sleep(0.01)
        assert 1 <= server.paths()["/health"] - begin <= 3
        assert one.statuses(server.url) == ["pending", "ready"]


async def test_a_flapping_worker_stays_while_it_does_not_fail_twice_in_a_row() -> None:
    """One failed check between good ones takes nobody out of service."""
    async with scripted(models=listing("m"), health=(200, {})) as server, watched(configured(server.url)) as one:
        await one.until_status(server.url, "ready")
        for _ in range(6):
            count = server.paths()["/health"]
            server.answers["/health"] = (503, {})
            while server.paths()["/health"] == count:
                await asyncio.sleep(0.001)
            server.answers["/health"] = (200, {})
            while server.paths()["/health"] < count + 3:
                await asyncio.sleep(0.001)
        assert one.statuses(server.url) == ["pending", "ready"]
        assert any("1 of 2 checks failed: /health answered 503" in state.reason for states in one.history for state in states)
        server.answers["/health"] = (503, {})
        await one.until_status(server.url, "not_ready")


async def test_a_worker_that_starts_late_is_used_soon_and_one_that_never_came_has_failed() -> None:
    """Pending lasts as long as `startup_timeout_s` allows; a failed worker that is replaced in its settings is asked at once."""
    server = Script()
    await server.start()
    await server.stop()
    server.answers = {"/v1/models": listing("m"), "/health": (200, {})}
    health = HealthConfig(interval_s=0.05, startup_timeout_s=0.5)
    async with watched(configured(server.url, health=health)) as one:
        await one.until_status(server.url, "failed")
        state = one.at(server.url)
        assert state is not None
        assert state.reason.startswith("not up within 0.5 s: the worker refuses connections")
        await server.start()
        await one.fleet.replace_worker(state.id, WorkerConfig(url=server.url, priority=3))
        await one.until_status(server.url, "ready")
        await server.stop()
    async with watched(configured(server.url)) as one:
        await asyncio.sleep(0.3)
        assert one.status(server.url) == "pending"
        await server.start()
        await one.until_status(server.url, "ready", timeout_s=2.0)
        await server.stop()


async def test_models_that_are_loaded_later_appear() -> None:
    """A serving worker is asked for its models again from time to time, and whenever it comes back; the last known ones stay meanwhile."""
    async with scripted(models=listing("a"), health=(200, {})) as server, watched(configured(server.url)) as one:
        await one.until_status(server.url, "ready")
        server.answers["/v1/models"] = listing("a", "adapter")
        record = one.fleet._records[one.states[0].id]
        record.models_due_s = 0.0
        await one.until(lambda: len(one.states[0].models) == 2)
        for odd in ((500, {}), (200, {"data": []}), (200, []), (200, b"{"), (200, {"data": "x"})):
            server.answers["/v1/models"] = odd
            asked = server.paths()["/v1/models"]
            record.models_due_s = 0.0
            while server.paths()["/v1/models"] == asked:
                await asyncio.sleep(0.005)
        assert [model.name for model in one.states[0].models] == ["a", "adapter"]
        server.answers["/health"] = (500, {})
        await one.until_status(server.url, "not_ready")
        server.answers |= {"/v1/models": listing("b"), "/health": (200, {})}
        await one.until_status(server.url, "ready")
        assert [model.name for model in one.states[0].models] == ["b"]


async def test_a_drained_worker_leaves_when_its_requests_have_ended() -> None:
    """Removal is published as draining at once, waits for what is in flight, and frees the slot only then."""
    async with running(flavour="vllm") as sim, running(flavour="vllm") as other, watched(configured(sim.url)) as one:
        await one.until_status(sim.url, "ready")
        state = one.states[0]
        one.in_flight[state.slot] = 2
        answer = await one.fleet.remove_worker(state.id)
        assert answer.status is Status.DRAINING
        assert one.status(sim.url) == "draining"
        assert (await one.fleet.remove_worker(state.id)).status is Status.DRAINING
        with pytest.raises(ClientError) as caught:
            await one.fleet.add_worker(WorkerConfig(url=sim.url))
        assert caught.value.code is Code.CONFLICT
        with pytest.raises(ClientError) as caught:
            await one.fleet.replace_worker(state.id, WorkerConfig(url=sim.url))
        assert caught.value.code is Code.CONFLICT
        added = await one.fleet.add_worker(WorkerConfig(url=other.url))
        assert added.slot != state.slot
        await asyncio.sleep(0.6)
        assert one.status(sim.url) == "draining"
        one.in_flight[state.slot] = 0
        await one.until_status(sim.url, "")
        with pytest.raises(ClientError) as caught:
            await one.fleet.remove_worker(state.id)
        assert caught.value.code is Code.NOT_FOUND


async def test_a_drain_ends_with_its_time() -> None:
    """Requests that outlive `drain_timeout_s` do not keep a worker for ever, and its slot is not given away under them."""
    async with running(flavour="vllm") as sim, watched(configured(sim.url, drain_timeout_s=0.4)) as one:
        await one.until_status(sim.url, "ready")
        state = one.states[0]
        one.in_flight[state.slot] = 1
        await one.fleet.remove_worker(state.id)
        await one.until_status(sim.url, "", timeout_s=2.0)
        again = await one.fleet.add_worker(WorkerConfig(url=sim.url))
        assert again.id == state.id
        assert again.slot != state.slot


async def test_a_worker_drained_by_hand_stays_until_it_is_called_back() -> None:
    """Drain keeps it in the list with nothing in flight; replacing it puts it back in service."""
    async with running(flavour="vllm") as sim, watched(configured(sim.url)) as one:
        await one.until_status(sim.url, "ready")
        state = await one.fleet.drain_worker(one.states[0].id)
        await asyncio.sleep(0.6)
        assert (await one.fleet.worker(state.id)).status is Status.DRAINING
        await one.fleet.apply(configured(sim.url))
        assert one.status(sim.url) == "draining"
        await one.fleet.replace_worker(state.id, WorkerConfig(url=sim.url))
        await one.until_status(sim.url, "ready")
        assert one.statuses(sim.url) == ["pending", "ready", "draining", "pending", "ready"]


async def test_what_is_asked_by_hand_is_checked() -> None:
    """Duplicates are a conflict however the URL is written; grpc and another URL are refused; unknown ids are not found."""
    async with running(flavour="vllm") as sim, watched(configured(sim.url)) as one:
        url = sim.url.replace("127.0.0.1", "127.0.0.1") + "/"
        for spec, code in (
            (WorkerConfig(url=url), Code.CONFLICT),
            (WorkerConfig(url="grpc://127.0.0.1:1"), Code.UNSUPPORTED_FEATURE),
            (WorkerConfig(url="127.0.0.1:1"), Code.INVALID_REQUEST),
        ):
            with pytest.raises(ClientError) as caught:
                await one.fleet.add_worker(spec)
            assert caught.value.code is code
        with pytest.raises(ClientError) as caught:
            await one.fleet.replace_worker(one.states[0].id, WorkerConfig(url="http://127.0.0.1:1"))
        assert caught.value.code is Code.INVALID_REQUEST
        for call in (one.fleet.worker("x"), one.fleet.drain_worker("x"), one.fleet.remove_worker("x"), one.fleet.patch_worker("x", {})):
            with pytest.raises(ClientError) as caught:
                await call
            assert caught.value.code is Code.NOT_FOUND


async def test_a_patch_is_published_at_once_and_the_worker_goes_on() -> None:
    """Priority, cost and labels change in place: same id, same slot, ready all along."""
    async with running(flavour="vllm") as sim, watched(configured(sim.url)) as one:
        await one.until_status(sim.url, "ready")
        before = one.states[0]
        await one.fleet.patch_worker(before.id, {"priority": 1, "cost": 2.5, "labels": {"a": "b"}, "health": {"interval_s": 0.1}})
        after = one.states[0]
        assert (after.priority, after.cost, after.labels) == (1, 2.5, {"a": "b"})
        assert (after.id, after.slot, after.status) == (before.id, before.slot, Status.READY)
        await asyncio.sleep(0.3)
        assert one.statuses(sim.url) == ["pending", "ready"]


async def test_a_new_configuration_is_followed() -> None:
    """Workers that vanish from it drain and leave, new ones come, changed ones are patched, those of the API stay; ids last."""
    async with running(flavour="vllm") as a, running(flavour="vllm") as b, running(flavour="vllm") as c:
        async with watched(configured(a.url, b.url)) as one:
            await one.until(lambda: all(state.status is Status.READY for state in one.states))
            ids = {state.url: state.id for state in one.states}
            api = await one.fleet.add_worker(WorkerConfig(url=c.url))
            new = configured(health=HealthConfig(interval_s=0.02)).model_copy(update={"workers": (WorkerConfig(url=b.url, cost=4.0),)})
            await one.fleet.apply(new)
            assert one.status(a.url) == "draining"
            assert one.at(b.url).cost == 4.0  # type: ignore[union-attr]
            await one.until_status(a.url, "")
            assert one.statuses(b.url) == ["pending", "ready"]
            await one.fleet.apply(configured(a.url))
            await one.until_status(a.url, "ready")
            assert (await one.fleet.worker(api.id)).source == "api"
            with pytest.raises(ConfigError, match="grpc workers are not served"):
                await one.fleet.apply(configured("grpc://127.0.0.1:1"))
            assert one.status(a.url) == "ready"
            assert one.at(a.url).id == ids[a.url]  # type: ignore[union-attr]
        async with watched(configured(a.url)) as again:
            assert again.states[0].id == ids[a.url]


async def test_a_worker_that_was_removed_stays_away_until_the_configuration_is_applied_again() -> None:
    """Removal by hand is not undone by the source that still lists the worker."""
    async with running(flavour="vllm") as a, running(flavour="vllm") as b, watched(configured(a.url, b.url)) as one:
        await one.until_status(a.url, "ready")
        await one.fleet.remove_worker(one.at(a.url).id)  # type: ignore[union-attr]
        await one.until_status(a.url, "")
        await one.fleet.add_worker(WorkerConfig(url="http://127.0.0.1:9"))
        assert one.status(a.url) == ""
        await one.fleet.apply(configured(a.url, b.url))
        await one.until_status(a.url, "ready")


async def test_unchecked_workers_are_ready_and_still_say_what_they_serve() -> None:
    """With health checks off a worker is used at once, whatever it answers; its models are known once it tells them."""
    off = HealthConfig(enabled=False, timeout_s=0.5, interval_s=0.05)
    async with running(flavour="vllm", model="m") as sim, watched(configured(sim.url, "http://127.0.0.1:9", health=off)) as one:
        assert [str(state.status) for state in one.states] == ["ready", "ready"]
        await one.until(lambda: [model.name for model in one.at(sim.url).models] == ["m"])  # type: ignore[union-attr]
        sim.crash()
        await asyncio.sleep(0.2)
        assert one.statuses(sim.url) == ["ready"]


async def test_many_dead_workers_do_not_delay_the_checks_of_a_living_one() -> None:
    """A hundred workers that accept and never answer, each until its time limit, leave the pace of the others alone."""
    async with scripted() as silent, scripted(models=listing("m"), health=(200, {})) as alive:
        silent.answers["*"] = None
        urls = [f"{silent.url}/{index}" for index in range(100)]
        async with watched(configured(alive.url, *urls, health=QUICK.model_copy(update={"timeout_s": 5.0}))) as one:
            await one.until_status(alive.url, "ready", timeout_s=1.0)
            begin = alive.paths()["/health"]
            await asyncio.sleep(1.0)
            assert alive.paths()["/health"] - begin >= 8
            # At most 32 probes of two questions each were out at once.
            assert silent.most <= 64
            while sum(state.reason != "waits for its first answer" for state in one.states) < 60:
                await asyncio.sleep(0.01)
            async with scripted(models=listing("m"), health=(200, {})) as late:
                await one.fleet.add_worker(WorkerConfig(url=late.url))
                await one.until_status(late.url, "ready", timeout_s=4.0)


async def test_changes_of_many_workers_are_published_together() -> None:
    """Two hundred workers that become ready at once are a handful of messages, not two hundred."""
    async with scripted(**{"*": None}) as server:
        server.answers = {
            f"/{index}{path}": answer for index in range(200) for path, answer in (("/v1/models", listing("m")), ("/health", (200, {})))
        }
        async with watched(configured(*(f"{server.url}/{index}" for index in range(200)), health=SLOW)) as one:
            await one.until(lambda: all(state.status is Status.READY for state in one.states))
            assert len(one.history) < 60
