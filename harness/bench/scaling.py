"""Do more processes serve more? Measured so that the answer is the gateway's, also on two cores.

A load generator and upstreams need cores too: on a machine with two, a gateway with two processes is starved by its own
load, and its throughput says little. So each serving process may use the same share of a core, small enough that all of
them, the generator and the upstreams fit the machine together (quota.py), and the gateway is the only limit. The same load
then goes to a gateway with one process and to one with several, in turns; the factor is the ratio of their throughput.

Where processes cannot be limited, the factor is that of requests a CPU second of the busiest process: what throughput would
be if each had a core of its own. Both are told; the second does not see what processes do to each other beyond CPU time.
"""

from __future__ import annotations

import contextlib
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from gateway.sdk import Client
from harness.bench import arena
from harness.bench.cases import CASES, Case
from harness.bench.contest import Watcher
from harness.bench.contestants import Ground, ours
from harness.bench.generator import Generator, LoadFailed, choose
from harness.bench.proc import cpu_s
from harness.bench.quota import Groups, NoQuota, find_groups, limited
from harness.bench.report import Machine, this_machine, today
from harness.fleet.child import Child
from harness.fleet.ports import HOST, free_ports

CASE = "chat64"
SHARE_OF_MACHINE = 0.25
"""What the serving processes may use together: the load needs less than they do, so that half the machine stays idle."""
MAX_SHARE = 0.5
LIMITED_AT = 0.9
"""A process that used this much of its share was limited by it."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway with so many processes: medians over the rounds."""

    processes: int
    rps: float
    requests_per_cpu_s: float
    """Requests by the CPU seconds of the busiest process."""
    cpu: list[float]
    """CPU of each serving process, in cores."""
    cpu_of_load: float
    """CPU of the load generator and the upstreams, in cores."""
    errors: int


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """What several processes serve, beside one."""

    date: str
    machine: Machine
    generator: str
    rounds: int
    seconds: float
    share: float | None
    """Share of a core that each serving process could use; None where it was not limited."""
    one: Side
    several: Side
    factor: float
    """Throughput of several by that of one, where `share` is given; else `factor_by_cpu`."""
    factor_by_cpu: float
    gateway_was_limit: bool
    """Every serving process used up its share, so that the factor is the gateway's."""
    notices: list[str]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one side."""

    requests: int
    errors: int
    seconds: float
    cpu_s: list[float]
    """Of each serving process."""
    load_cpu_s: float


@dataclass(frozen=True, slots=True)
class _Running:
    """A gateway that is measured."""

    port: int
    pids: list[int]
    samples: list[Sample]


def groups_here() -> Groups:
    """Where this process may make control groups.

    Raises:
        NoQuota: nowhere.
    """
    try:
        return find_groups(pathlib.Path("/proc/self/mounts").read_text(), pathlib.Path("/proc/self/cgroup").read_text())
    except OSError as error:
        raise NoQuota(f"this system does not tell of its control groups: {error.strerror}") from error


def measure_scaling(processes: int, rounds: int, seconds: float, watch: Watcher, find: Callable[[], Groups] = groups_here) -> Scaling:
    """Measure a gateway of one process and one of `processes`, limited by control groups where `find` finds some.

    Raises:
        ChildFailed: the upstreams or a gateway do not start.
        LoadFailed: the load generator does not work.
    """
    generator = choose(seconds)
    machine = this_machine()
    share: float | None = share_of(machine.cores, processes)
    notices: list[str] = []
    with arena.tidy_end(), contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smgctl-bench-")))
        watch.say("starting the upstreams")
        ups = stack.enter_context(arena.upstreams(folder))
        quotas = stack.enter_context(contextlib.ExitStack())  # left after the gateways, which are in them
        sides = [_start(count, folder, [url for url, _ in ups], watch, stack) for count in (1, processes)]
        try:
            groups = find()
            for side in sides:
                quotas.enter_context(limited(side.pids, share or 0.0, groups))
        except NoQuota as reason:
            quotas.close()
            share = None
            notices.append(f"the gateway's processes could not be limited ({reason}); the factor is that of requests a CPU second")
        watch.begin(rounds * len(sides))
        for number in range(1, rounds + 1):
            for side in sides:
                watch.say(f"round {number} of {rounds}: {len(side.pids)} process{'es' if len(side.pids) > 1 else ''}")
                side.samples.append(_sample(side, CASES[CASE], seconds, generator, folder, [child.pid for _, child in ups]))
                watch.step(f"{len(side.pids)}: {side.samples[-1].requests / side.samples[-1].seconds:.0f} requests/s")
    one, several = (side_of(side.samples) for side in sides)
    by_cpu = several.requests_per_cpu_s / one.requests_per_cpu_s
    return Scaling(
        date=today(),
        machine=machine,
        generator=generator.name,
        rounds=rounds,
        seconds=seconds,
        share=share,
        one=one,
        several=several,
        factor=by_cpu if share is None else several.rps / one.rps,
        factor_by_cpu=by_cpu,
        gateway_was_limit=share is not None and min(*one.cpu, *several.cpu) >= LIMITED_AT * share,
        notices=notices,
    )


def share_of(cores: int, processes: int) -> float:
    """The share of a core for each of so many serving processes."""
    return min(MAX_SHARE, SHARE_OF_MACHINE * cores / processes)


def side_of(samples: Sequence[Sample]) -> Side:
    """Sum up the rounds of one side."""
    return Side(
        processes=len(samples[0].cpu_s),
        rps=statistics.median(one.requests / one.seconds for one in samples),
        requests_per_cpu_s=statistics.median(one.requests / max(one.cpu_s) for one in samples),
        cpu=[statistics.median(one.cpu_s[at] / one.seconds for one in samples) for at in range(len(samples[0].cpu_s))],
        cpu_of_load=statistics.median(one.load_cpu_s / one.seconds for one in samples),
        errors=sum(one.errors for one in samples),
    )


def _start(processes: int, folder: pathlib.Path, urls: Sequence[str], watch: Watcher, stack: contextlib.ExitStack) -> _Running:
    watch.say(f"starting a gateway with {processes} process{'es' if processes > 1 else ''}")
    port, spare_port = free_ports(2)
    place = folder / str(processes)
    place.mkdir()
    child = stack.enter_context(arena.contestant(ours(), Ground(place, tuple(urls), port, spare_port, processes)))
    return _Running(port, serving_pids(child, port), [])


def serving_pids(child: Child, port: int) -> list[int]:
    """The processes of a gateway that serve, without its supervisor."""
    with Client(f"http://{HOST}:{port}") as client:
        return [one.pid for one in client.status().processes if one.index >= 0] or [child.pid]


def _sample(side: _Running, case: Case, seconds: float, generator: Generator, folder: pathlib.Path, upstreams: list[int]) -> Sample:
    before = [cpu_s(pid) for pid in (*side.pids, *upstreams)]
    seen, generator_s = generator.load(case, side.port, seconds, folder=folder)
    used = [cpu_s(pid) - was for pid, was in zip((*side.pids, *upstreams), before, strict=True)]
    serving, behind = used[: len(side.pids)], used[len(side.pids) :]
    if not seen.requests or not max(serving):
        raise LoadFailed(f"no request ended within {seconds:g} s, {seen.errors} errors")
    return Sample(requests=seen.requests, errors=seen.errors, seconds=seen.seconds, cpu_s=serving, load_cpu_s=generator_s + sum(behind))
