"""A serving process without a gateway in it: a line protocol over the inherited socket, a member that can be told to fail.

Run by a supervisor: `python -m tests.support.serving_child MODE --member ...`. A client sends a line and gets one back:

- `who`: index, pid, configuration version and log level, as JSON.
- `hold`: counts as in flight in slot 7 until the client sends another line.
- `total`: the in-flight requests of slot 7 over all processes.
- `status`, `config`: as the leader says. `apply TEXT`: applies a YAML text (as a JSON string); the error, if any.
- `add URL`: adds a worker. `workers`: the URLs that this process has heard of.
- `hang up`: closes the link and goes on serving.

Modes: `serve`; `crash` before joining; `refuse` lets process 1 refuse the log level `error` in `prepare`, and `commit` lets it
fail to commit `warning`; `stuck` ignores SIGTERM; `silent` never says that it is ready; `impatient` is `serve` under a supervisor that soon
notices who does not answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import msgspec
import uvloop

from gateway.config.model import GatewayConfig, WorkerConfig
from gateway.errors import Code, ConfigError, GatewayError
from gateway.processes.remote import RemoteLeader
from gateway.processes.spawn import MemberArguments, connect_member
from gateway.telemetry.cells import ProcessCells
from gateway.telemetry.snapshot import ProcessReading, Snapshot, take
from gateway.workers.state import WorkerState

SLOT = 7


class Serving:
    def __init__(self, mode: str, arguments: MemberArguments) -> None:
        self.mode = mode
        self.index = arguments.index
        self.table, self.link, self.listener = connect_member(arguments)
        self.leader = RemoteLeader(self.link, self)
        self.version = 0
        self.config: GatewayConfig | None = None
        self.states_heard: tuple[WorkerState, ...] = ()
        self.cells = ProcessCells()
        self.connections = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.terms = 0
        self.draining = asyncio.Event()
        self.stopping = asyncio.Event()
        self._prepared: tuple[int, GatewayConfig] | None = None

    async def prepare(self, version: int, config: GatewayConfig) -> None:
        if self.mode == "refuse" and self.index == 1 and config.log.level == "error":
            raise ConfigError("it does not like the level error", ("log.level: error",))
        self._prepared = version, config

    async def commit(self, version: int) -> None:
        assert self._prepared is not None
        if self.mode == "commit" and self.index == 1 and self._prepared[1].log.level == "warning":
            raise GatewayError(Code.INTERNAL, "it cannot switch")
        self.version, self.config = self._prepared

    async def abort(self, version: int) -> None:
        self._prepared = None

    def states(self, states: tuple[WorkerState, ...]) -> None:
        self.states_heard = states

    async def snapshot(self) -> Snapshot:
        return take(self.cells, (), process=ProcessReading(index=self.index, pid=os.getpid(), started_s=1.0))

    async def drain(self) -> None:
        self.draining.set()
        await self.idle.wait()

    async def answer(self, line: str, reader: asyncio.StreamReader) -> object:
        word, _, rest = line.partition(" ")
        match word:
            case "who":
                level = None if self.config is None else self.config.log.level
                return {"index": self.index, "pid": os.getpid(), "version": self.version, "level": level}
            case "hold":
                self.table.own[SLOT] += 1
                try:
                    await reader.readline()
                finally:
                    self.table.own[SLOT] -= 1
                return {"index": self.index}
            case "total":
                return self.table.total(SLOT)
            case "workers":
                return [state.url for state in self.states_heard]
            case "status":
                return await self.leader.status()
            case "config":
                return await self.leader.config()
            case "apply":
                return await self.leader.apply_config(json.loads(rest), dry_run=False)
            case "add":
                return (await self.leader.add_worker(WorkerConfig(url=rest))).id
            case "hang":
                self.link.close("told to")
                return True
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.idle.clear()
        try:
            while line := (await reader.readline()).decode().strip():
                try:
                    value = await self.answer(line, reader)
                except GatewayError as error:
                    value = {"error": str(error.code), "message": error.message}
                self.cells.endpoint("/line").requests += 1
                writer.write(msgspec.json.encode(value) + b"\n")
                await writer.drain()
                if self.draining.is_set():
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.connections -= 1
            if not self.connections:
                self.idle.set()

    def on_term(self) -> None:
        self.terms += 1
        if self.mode == "stuck":
            return
        self.draining.set()
        if self.terms > 1:
            self.stopping.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.on_term)
        async with self.link:
            await self.leader.join()
            server = await asyncio.start_server(self.serve, sock=self.listener)
            if self.mode != "silent":
                await self.leader.ready()
            await self.draining.wait()
            server.close()
            idle, stopping = loop.create_task(self.idle.wait()), loop.create_task(self.stopping.wait())
            await asyncio.wait((idle, stopping), return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
            stopping.cancel()


async def main() -> None:
    mode, *argv = sys.argv[1:]
    if mode == "crash":
        sys.exit(3)
    await Serving(mode, MemberArguments.from_argv(argv)).run()


if __name__ == "__main__":
    uvloop.run(main())
