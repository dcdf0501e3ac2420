"""A supervisor and its processes, all real: deaths, signals, configuration, and what clients see of it."""

import asyncio
import json
import os
import pathlib
import signal
import urllib.request
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.support.supervised import Supervised, supervised

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

CONFIG = """
server: {{port: 0, processes: {processes}, metrics_port: {metrics}, drain_timeout_s: {drain}}}
log: {{level: {level}}}
"""


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    def write(**settings: Any) -> pathlib.Path:
        path = tmp_path / "smg.yaml"
        path.write_text(CONFIG.format(**{"processes": 2, "metrics": "null", "drain": 30, "level": "info", **settings}))
        return path

    return write


def _processes(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [process for process in status["processes"] if process["index"] >= 0]


async def _gone(pids: list[int]) -> None:
    async with asyncio.timeout(20):
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            await asyncio.sleep(0.02)


async def test_every_process_serves_and_status_names_them(write: Callable[..., pathlib.Path]) -> None:
    """Ready is said when all serve; status has the supervisor and every process with its pid."""
    async with supervised(write(processes=3)) as running, running.each(3) as clients:
        seen = [await client.ask("who") for client in clients]
        assert [one["index"] for one in seen] == [0, 1, 2]
        assert {one["version"] for one in seen} == {1}
        status = await clients[0].ask("status")
        assert [process["pid"] for process in _processes(status)] == [one["pid"] for one in seen]
        assert {process["state"] for process in status["processes"]} == {"ready"}
        assert status["processes"][0]["pid"] == running.process.pid


async def test_a_worker_added_in_one_process_reaches_all(write: Callable[..., pathlib.Path]) -> None:
    """The leader tells every process of every change of the workers, also one that starts later."""
    async with supervised(write()) as running, running.each(2) as clients:
        await clients[0].ask("add http://127.0.0.1:9")
        async with asyncio.timeout(10):
            while await clients[1].ask("workers") != ["http://127.0.0.1:9"]:
                await asyncio.sleep(0.01)
        os.kill((await clients[1].ask("who"))["pid"], signal.SIGKILL)
        await running.until("status", lambda status: _processes(status)[1]["restarts"] == 1 and _processes(status)[1]["state"] == "ready")
        async with running.each(2) as fresh:
            assert await fresh[1].ask("workers") == ["http://127.0.0.1:9"]


async def test_a_killed_process_under_traffic_is_replaced_and_its_row_cleared(write: Callable[..., pathlib.Path]) -> None:
    """Its in-flight counts vanish, no new connection is refused meanwhile, and it is back soon."""
    async with supervised(write()) as running, running.each(2) as clients:
        victim = await clients[1].ask("who")
        await clients[0].send("hold")
        await clients[1].send("hold")
        assert await running.until("total", lambda total: total == 2) == 2

        failed = answered = 0
        done = asyncio.Event()

        async def traffic() -> None:
            nonlocal failed, answered
            while not done.is_set():
                try:
                    await running.ask("who")
                    answered += 1
                except (ConnectionError, TimeoutError):
                    failed += 1  # An open connection of the killed process, or one in its hands: at most one a client.
                await asyncio.sleep(0.001)

        clients_at_once = 8
        async with asyncio.TaskGroup() as tasks:
            for _ in range(clients_at_once):
                tasks.create_task(traffic())
            await asyncio.sleep(0.1)
            os.kill(victim["pid"], signal.SIGKILL)
            status = await running.until("status", lambda status: _processes(status)[1]["restarts"] == 1)
            assert await running.until("total", lambda total: total == 1) == 1
            status = await running.until("status", lambda status: _processes(status)[1]["state"] == "ready")
            done.set()
        assert failed <= clients_at_once
        assert answered > 100
        assert _processes(status)[1]["pid"] != victim["pid"]
        assert _processes(status)[1]["reason"] == "killed by SIGKILL"
        await clients[0].send("go")
        assert await clients[0].read() == {"index": 0}
        async with running.each(2) as fresh:
            assert (await fresh[1].ask("who"))["version"] == 1


async def test_a_process_that_does_not_answer_is_left_alone_and_then_replaced(write: Callable[..., pathlib.Path]) -> None:
    """New connections go to the others while it is silent and come back when it answers; one that stays silent is killed."""
    async with supervised(write(), "impatient") as running, running.each(2) as (witness, silent):
        victim = await silent.ask("who")

        async def until(holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            async with asyncio.timeout(20):
                while not holds(process := _processes(await witness.ask("status"))[1]):
                    await asyncio.sleep(0.02)
            return process

        os.kill(victim["pid"], signal.SIGSTOP)
        await until(lambda process: process["state"] == "hung")
        assert {(await running.ask("who"))["index"] for _ in range(30)} == {0}
        os.kill(victim["pid"], signal.SIGCONT)
        process = await until(lambda process: process["state"] == "ready")
        assert process["restarts"] == 0 and (await silent.ask("who"))["pid"] == victim["pid"]
        os.kill(victim["pid"], signal.SIGSTOP)
        process = await until(lambda process: process["restarts"] == 1 and process["state"] == "ready")
        assert process["reason"] == "killed by SIGKILL"
        async with running.each(2) as fresh:
            assert (await fresh[1].ask("who"))["version"] == 1
    assert "still does not answer" in running.log


async def test_sigterm_drains_and_ends_with_0(write: Callable[..., pathlib.Path]) -> None:
    """What is in flight ends well, new connections are refused, and the exit code is 0."""
    async with supervised(write()) as running, running.each(2) as clients:
        for client in clients:
            await client.send("hold")
        await running.until("total", lambda total: total == 2)
        running.signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while True:
                try:
                    await running.ask("who")
                except ConnectionError:
                    break
                await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)
        for client in clients:
            await client.send("go")
            await client.read()
            client.writer.close()
        assert await running.ended() == 0


async def test_a_second_signal_stops_at_once(write: Callable[..., pathlib.Path]) -> None:
    """Requests in flight are cut off then, whatever the drain's limit."""
    async with supervised(write()) as running, running.each(2) as clients:
        pids = [(await client.ask("who"))["pid"] for client in clients]
        await clients[0].send("hold")
        await running.until("total", lambda total: total == 1)
        running.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert running.process.returncode is None
        running.signal(signal.SIGINT)
        assert await running.ended() == 0
        await _gone(pids)


async def test_a_process_that_ignores_the_second_signal_is_killed(write: Callable[..., pathlib.Path]) -> None:
    """No process holds the gateway's end up."""
    async with supervised(write(), "stuck") as running, running.each(2) as clients:
        pids = [(await client.ask("who"))["pid"] for client in clients]
        running.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
        await _gone(pids)
    assert "did not end within 3 s and is killed" in running.log


async def test_processes_that_cannot_start_make_the_supervisor_give_up(write: Callable[..., pathlib.Path]) -> None:
    """It ends with 1, and says which process and how it ended."""
    async with supervised(write(), "crash") as running:
        assert await running.ended() == 1
    assert "the gateway gives up: process" in running.log
    assert "ended again and again before it was ready, the last time: exit code 3" in running.log


async def test_processes_drain_when_the_supervisor_is_killed(write: Callable[..., pathlib.Path]) -> None:
    """No process is left behind, and what was in flight still ends well."""
    async with supervised(write()) as running, running.each(2) as clients:
        pids = [(await client.ask("who"))["pid"] for client in clients]
        await clients[0].send("hold")
        await running.until("total", lambda total: total == 1)
        running.process.kill()
        clients[1].writer.close()
        await _gone([pids[1]])
        await clients[0].send("go")
        assert await clients[0].read() == {"index": 0}
        await _gone(pids)


async def test_a_process_that_lost_its_link_serves_on_until_it_is_replaced(write: Callable[..., pathlib.Path]) -> None:
    """It answers from what it last knew; the supervisor drains it and starts another."""
    async with supervised(write()) as running, running.each(2) as clients:
        await clients[1].ask("status")
        before = await clients[1].ask("who")
        assert await clients[1].ask("hang up") is True
        assert (await clients[1].ask("status"))["state"] == "leaderless"
        assert (await clients[1].ask("add http://127.0.0.1:9"))["error"] == "overloaded"
        assert (await clients[1].ask("who"))["pid"] == before["pid"]
        clients[1].writer.close()
        status = await running.until("status", lambda status: status["state"] == "serving" and _processes(status)[1]["state"] == "ready")
        assert _processes(status)[1]["pid"] != before["pid"] or (
            await running.until("status", lambda status: _processes(status)[1]["pid"] != before["pid"])
        )


async def test_sighup_brings_the_file_into_force_everywhere(write: Callable[..., pathlib.Path]) -> None:
    """Open connections live on while every process changes over; a broken file changes nothing and every mistake is logged."""
    async with supervised(write()) as running, running.each(2) as clients:
        await clients[0].send("hold")
        write(level="debug")
        running.signal(signal.SIGHUP)
        await running.until("who", lambda who: (who["version"], who["level"]) == (2, "debug"))
        assert (await clients[1].ask("who"))["level"] == "debug"
        await clients[0].send("go")
        assert await clients[0].read() == {"index": 0}

        running.config.write_text("log: {level: loud}\nrouting: {policy: best}\n")
        running.signal(signal.SIGHUP)
        status = await running.until("status", lambda status: status["last_error"])
        assert status["config_version"] == 2
        assert "log.level" in running.log
        assert "routing.policy" in running.log
        assert {(await client.ask("who"))["level"] for client in clients} == {"debug"}


async def _apply(running: Supervised, config: pathlib.Path) -> Any:
    return await running.ask(f"apply {json.dumps(config.read_text())}")


async def test_one_process_that_cannot_prepare_leaves_all_on_the_old_version(write: Callable[..., pathlib.Path]) -> None:
    """The error names the process and why; a version that all can run is applied afterwards."""
    async with supervised(write(), "refuse") as running, running.each(2) as clients:
        refused = await _apply(running, write(level="error"))
        assert refused["error"] == "config_invalid"
        assert "process 1 cannot run this configuration: it does not like the level error" in refused["message"]
        assert [(await client.ask("who"))["version"] for client in clients] == [1, 1]
        assert (await clients[0].ask("status"))["config_version"] == 1
        assert (await _apply(running, write(level="debug")))["version"] == 2
        assert [(await client.ask("who"))["level"] for client in clients] == ["debug", "debug"]


async def test_one_process_that_cannot_commit_brings_all_back(write: Callable[..., pathlib.Path]) -> None:
    """Also those that had switched already run the old version again."""
    async with supervised(write(), "commit") as running, running.each(2) as clients:
        refused = await _apply(running, write(level="warning"))
        assert refused["error"] == "internal"
        assert "process 1 could not switch" in refused["message"]
        assert [(await client.ask("who"))["level"] for client in clients] == ["info", "info"]
        assert [(await client.ask("who"))["version"] for client in clients] == [1, 1]


async def test_a_change_that_needs_a_restart_is_refused_by_name(write: Callable[..., pathlib.Path]) -> None:
    """The message names the keys; nothing changes."""
    async with supervised(write()) as running:
        refused = await _apply(running, write(processes=3, level="debug"))
        assert refused["error"] == "config_invalid"
        assert "only a restart brings server.processes into force" in refused["message"]
        assert (await running.ask("who"))["level"] == "info"


async def test_the_counts_of_a_killed_process_stay_in_the_metrics(write: Callable[..., pathlib.Path]) -> None:
    """The page adds up all processes and never goes backwards."""

    async with supervised(write(metrics=0)) as running, running.each(2) as clients:
        port = next(
            connection.laddr.port
            for connection in psutil.Process(running.process.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port != running.port
        )

        def read() -> dict[str, float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
                lines = [line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line and line[0] != "#"]
            return {name: float(value) for name, value in lines}

        name = next(name for name in await asyncio.to_thread(read) if name.startswith("smg_http_requests_total"))
        for client in clients:
            for _ in range(100):
                await client.ask("who")
        before = (await asyncio.to_thread(read))[name]
        assert before >= 202
        os.kill((await clients[1].ask("who"))["pid"], signal.SIGKILL)
        await running.until("status", lambda status: _processes(status)[1]["restarts"] == 1)
        after = await asyncio.to_thread(read)
        assert after[name] >= before
        assert after["smg_process_restarts_total"] == 1
        assert after["smg_config_version"] == 1
