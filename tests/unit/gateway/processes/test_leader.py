"""The leader over a real fleet without health checks, so that nothing here opens a socket."""

import asyncio
import pathlib
from collections.abc import AsyncIterator

import pytest

from gateway.config.load import ConfigSource
from gateway.config.model import GatewayConfig, WorkerConfig
from gateway.errors import Code, ConfigError, GatewayError
from gateway.processes.leader import Leader
from gateway.shared.layout import COLUMNS
from gateway.shared.table import SharedTable
from gateway.telemetry.cells import ProcessCells
from gateway.telemetry.snapshot import ProcessReading, Snapshot, take
from tests.support.member import RecordingMember

TEXT = """
health: {{enabled: false}}
log: {{level: {level}}}
workers: [{{url: "{url}"}}]
"""


def _text(level: str = "info", url: str = "http://127.0.0.1:1") -> str:
    return TEXT.format(level=level, url=url)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "smg.yaml"
    path.write_text(_text())
    return path


@pytest.fixture
async def leader(path: pathlib.Path) -> AsyncIterator[Leader]:
    source = ConfigSource(str(path))
    table = SharedTable(1, COLUMNS)
    async with Leader(source.load(), source, table) as leader:
        yield leader
    table.close()


async def test_a_new_member_gets_configuration_and_workers_at_once(leader: Leader) -> None:
    """Prepare, commit and states come before attach returns."""
    member = RecordingMember()
    await leader.attach("a", member)
    assert member.calls == ["prepare 1", "commit 1"]
    assert [state.url for state in member.workers] == ["http://127.0.0.1:1"]


async def test_every_change_of_the_workers_reaches_every_member(leader: Leader) -> None:
    """Adding, patching and draining are heard by all, until they are detached."""
    members = [RecordingMember(), RecordingMember()]
    for name, member in zip("ab", members, strict=True):
        await leader.attach(name, member)
    added = await leader.add_worker(WorkerConfig(url="http://127.0.0.1:2"))
    await leader.patch_worker(added.id, {"cost": 3.0})
    assert [[state.cost for state in member.workers] for member in members] == [[1.0, 3.0]] * 2
    leader.detach("b")
    await leader.drain_worker(added.id)
    assert [str(member.workers[1].status) for member in members] == ["draining", "ready"]


async def test_a_member_that_cannot_run_the_configuration_is_not_attached(leader: Leader) -> None:
    """The error is the member's own; a later change does not ask it."""
    member = RecordingMember()
    member.fail_prepare = ConfigError("no such certificate")
    with pytest.raises(ConfigError, match="no such certificate"):
        await leader.attach("a", member)
    await leader.apply_config(_text("debug"), dry_run=False)
    assert member.calls == ["prepare 1"]


async def test_a_dry_run_says_the_difference_and_changes_nothing(leader: Leader) -> None:
    """Also what needs a restart is told, not refused."""
    member = RecordingMember()
    await leader.attach("a", member)
    result = await leader.apply_config(_text("debug") + "server: {port: 31000}\n", dry_run=True)
    assert [(change.path, change.before, change.after) for change in result.changes] == [
        ("server.port", 30000, 31000),
        ("log.level", "info", "debug"),
    ]
    assert (result.applied, result.version, result.needs_restart) == (False, 1, ("server.port",))
    assert member.version == 1


async def test_a_change_is_applied_everywhere_and_can_be_rolled_back(leader: Leader) -> None:
    """Members, workers and the view of the configuration move together, forth and back."""
    member = RecordingMember()
    await leader.attach("a", member)
    result = await leader.apply_config(_text("debug", "http://127.0.0.1:2"), dry_run=False)
    assert (result.applied, result.version) == (True, 2)
    assert member.config is not None
    assert member.config.log.level == "debug"
    assert {state.url: str(state.status) for state in await leader.workers()} == {
        "http://127.0.0.1:1": "draining",
        "http://127.0.0.1:2": "ready",
    }
    back = await leader.rollback()
    assert (back.applied, back.version) == (True, 3)
    assert member.config.log.level == "info"
    view = await leader.config()
    assert (view.version, view.source, view.config["log"]["level"]) == (3, "rollback to 1", "info")
    with pytest.raises(GatewayError, match="no version before 3"):
        await leader.rollback()


async def test_nothing_to_change_makes_no_version(leader: Leader) -> None:
    """The same configuration again is a success that does nothing."""
    result = await leader.apply_config(_text(), dry_run=False)
    assert (result.applied, result.version, result.changes) == (False, 1, ())


async def test_a_change_that_needs_a_restart_is_refused_whole(leader: Leader) -> None:
    """Every such key is named, and the rest is not applied either."""
    with pytest.raises(ConfigError, match=r"only a restart brings server\.port into force") as caught:
        await leader.apply_config(_text("debug") + "server: {port: 31000}\n", dry_run=False)
    assert caught.value.problems == ("server.port: 30000 -> 31000 needs a restart",)
    assert leader.current.config.log.level == "info"
    assert (await leader.status()).last_error.startswith("only a restart")


async def test_a_fleet_that_refuses_brings_the_members_back(leader: Leader) -> None:
    """A worker that cannot be used leaves members and workers on the old version."""
    member = RecordingMember()
    await leader.attach("a", member)
    with pytest.raises(GatewayError):
        await leader.apply_config(_text("debug", "grpc://127.0.0.1:2"), dry_run=False)
    assert member.config == leader.current.config
    assert member.version == 1
    assert [state.url for state in await leader.workers()] == ["http://127.0.0.1:1"]


async def test_a_second_change_meanwhile_is_refused_and_a_reload_waits(leader: Leader, path: pathlib.Path) -> None:
    """Changes never overlap; the reload runs after the change before it."""
    member = RecordingMember()
    await leader.attach("a", member)
    member.gate = asyncio.Event()
    path.write_text(_text("warning"))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(leader.apply_config(_text("debug"), dry_run=False))
        while "prepare 2" not in member.calls:
            await asyncio.sleep(0.001)
        reload = tasks.create_task(leader.reload())
        for second in (leader.apply_config(_text("error"), dry_run=False), leader.rollback()):
            with pytest.raises(GatewayError) as caught:
                await second
            assert caught.value.code is Code.CONFLICT
        member.gate.set()
    assert (first.result().version, reload.result()) == (2, True)
    assert (leader.current.number, leader.current.source, leader.current.config.log.level) == (3, "reload", "warning")


async def test_a_member_that_joins_during_a_change_gets_the_new_version(leader: Leader) -> None:
    """It waits for the end of the change rather than missing it."""
    old, new = RecordingMember(), RecordingMember()
    await leader.attach("a", old)
    old.gate = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(leader.apply_config(_text("debug"), dry_run=False))
        while "prepare 2" not in old.calls:
            await asyncio.sleep(0.001)
        tasks.create_task(leader.attach("b", new))
        await asyncio.sleep(0)
        old.gate.set()
    assert new.calls == ["prepare 2", "commit 2"]


async def test_a_change_whose_caller_leaves_is_finished(leader: Leader) -> None:
    """A client that goes away in the middle does not leave half a change behind."""
    member = RecordingMember()
    await leader.attach("a", member)
    member.gate = asyncio.Event()
    caller = asyncio.ensure_future(leader.apply_config(_text("debug"), dry_run=False))
    while "prepare 2" not in member.calls:
        await asyncio.sleep(0.001)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    member.gate.set()
    async with asyncio.timeout(5):
        while leader.current.number != 2:
            await asyncio.sleep(0.001)
    assert member.version == 2


async def test_a_broken_file_keeps_the_version_and_logs_every_mistake(
    leader: Leader, path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload says false; status says why; the next good reload clears it."""
    path.write_text("log: {level: loud}\nrouting: {policy: best}\n")
    assert await leader.reload() is False
    assert "smg.yaml:1: log.level" in caplog.text
    assert "smg.yaml:2: routing.policy" in caplog.text
    assert "2 mistakes" in (await leader.status()).last_error
    path.write_text(_text("debug"))
    assert await leader.reload() is True
    status = await leader.status()
    assert (status.last_error, status.config_version, status.config_source) == ("", 2, "reload")


async def test_a_member_that_cannot_be_brought_back_is_restarted(path: pathlib.Path) -> None:
    """The owner hears its name; the others are back on the version before."""
    restarted: list[str] = []
    source = ConfigSource(str(path))
    table = SharedTable(2, COLUMNS)
    async with Leader(source.load(), source, table, processes=lambda: (), restart=restarted.append) as leader:
        good, bad = RecordingMember(), RecordingMember()
        await leader.attach("good", good)
        await leader.attach("bad", bad)
        bad.fail_commit = GatewayError(Code.INTERNAL, "it is broken")
        with pytest.raises(GatewayError, match="bad could not switch to this configuration: it is broken"):
            await leader.apply_config(_text("debug"), dry_run=False)
        assert restarted == ["bad"]
        assert good.version == 1
        assert leader.current.number == 1
    table.close()


async def test_secrets_are_masked_in_the_view(leader: Leader) -> None:
    """The key of a worker is in the configuration and not in what is shown of it."""
    text = _text() + "auth: {keys: [{id: ops, sha256: " + "a" * 64 + ", roles: [admin]}]}\n"
    text = text.replace('"}]', '", api_key: s3cret-value}]', 1)
    result = await leader.apply_config(text, dry_run=False)
    config: GatewayConfig = leader.current.config
    assert config.workers[0].api_key is not None
    assert config.workers[0].api_key.get_secret_value() == "s3cret-value"
    assert "s3cret" not in repr((await leader.config(), result))
    assert "a" * 64 not in repr((await leader.config(), result))


def _snapshot(index: int, requests: int) -> Snapshot:
    cells = ProcessCells()
    cells.endpoint("/v1/models").requests = requests
    return take(cells, (), process=ProcessReading(index=index, pid=100 + index, started_s=1.0))


async def test_metrics_add_up_members_and_keep_the_counts_of_those_that_ended(leader: Leader) -> None:
    """The page is that of the whole gateway; a member that does not answer counts as it last did."""
    first, second = RecordingMember(), RecordingMember()
    first.snapshots, second.snapshots = [_snapshot(0, 3)], [_snapshot(1, 4)]
    await leader.attach("a", first)
    await leader.attach("b", second)

    async def requests() -> list[str]:
        page = (await leader.metrics()).decode()
        return [line.rsplit(" ", 1)[1] for line in page.splitlines() if line.startswith("smg_http_requests_total{")]

    assert await requests() == ["7"]
    second.snapshots = []
    assert await requests() == ["7"]
    leader.detach("b")
    first.snapshots = [_snapshot(0, 10)]
    assert await requests() == ["14"]


async def test_status_counts_workers_and_names_this_process(leader: Leader) -> None:
    """A gateway of one process is one process in its status."""
    await leader.attach("a", RecordingMember())
    status = await leader.status()
    assert (status.state, status.workers) == ("serving", {"ready": 1})
    assert [(process.index, process.state) for process in status.processes] == [(0, "ready")]
