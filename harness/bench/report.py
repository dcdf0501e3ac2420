"""What a comparison found, as values: measurements of rounds become rows with medians and ratios, rows become a table."""

from __future__ import annotations

import os
import pathlib
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one contestant."""

    case: str
    name: str
    requests: int
    errors: int
    cpu_us: float | None
    """CPU microseconds a request, of all processes of the contestant; None where no request ended."""
    rps: float
    p50_ms: float | None
    p99_ms: float | None
    resident_bytes: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One contestant in one case: medians over the rounds, most memory, all errors."""

    case: str
    name: str
    cpu_us: float | None
    cpu_us_rounds: list[float]
    """Each round, so that noise shows."""
    times: dict[str, float | None]
    """Its CPU a request divided by that of others."""
    rps: float
    p50_ms: float | None
    p99_ms: float | None
    resident_mb: float
    """Resident memory of all its processes; what they share counts in each."""
    requests: int
    errors: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    cpu: str
    cores: int
    system: str
    python: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A whole comparison."""

    date: str
    machine: Machine
    generator: str
    placement: str
    processes: int
    rounds: int
    seconds: float
    versions: dict[str, str]
    rows: list[Row]
    notices: list[str]
    """What was left out, and why."""

    def errors_of(self, name: str) -> int:
        """Errors of one contestant over all cases."""
        return sum(row.errors for row in self.rows if row.name == name)


def median(values: Sequence[float | None]) -> float | None:
    """The median of those that are there; None where there is none."""
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None


def ratio(one: float | None, other: float | None) -> float | None:
    """How many times `other` is `one`; None where that cannot be said."""
    return one / other if one is not None and other else None


def rows_of(measured: Sequence[Measurement], against: Sequence[str]) -> list[Row]:
    """Put the rounds of each case and contestant together, in the order in which they were first measured."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for one in measured:
        groups.setdefault((one.case, one.name), []).append(one)
    cpu = {key: median([one.cpu_us for one in group]) for key, group in groups.items()}
    return [
        Row(
            case=case,
            name=name,
            cpu_us=cpu[case, name],
            cpu_us_rounds=[one.cpu_us for one in group if one.cpu_us is not None],
            times={other: ratio(cpu[case, name], cpu.get((case, other))) for other in against},
            rps=statistics.median(one.rps for one in group),
            p50_ms=median([one.p50_ms for one in group]),
            p99_ms=median([one.p99_ms for one in group]),
            resident_mb=max(one.resident_bytes for one in group) / 1e6,
            requests=sum(one.requests for one in group),
            errors=sum(one.errors for one in group),
        )
        for (case, name), group in groups.items()
    ]


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The columns and cells for a reader; a ratio has a column where somebody to compare with took part."""
    present = [name for name in (comparison.rows[0].times if comparison.rows else ()) if any(row.name == name for row in comparison.rows)]
    columns = ["case", "gateway", "cpu us", *(f"x {name}" for name in present), "req/s", "p50 ms", "p99 ms", "MB", "errors"]
    rows = [
        [
            row.case,
            row.name,
            shown(row.cpu_us, 1),
            *(shown(row.times[name], 2) for name in present),
            shown(row.rps, 0),
            shown(row.p50_ms, 2),
            shown(row.p99_ms, 2),
            shown(row.resident_mb, 0),
            str(row.errors),
        ]
        for row in comparison.rows
    ]
    return columns, rows


def shown(value: float | None, digits: int) -> str:
    """Write a number; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(comparison: Comparison, command: str) -> str:
    """Write the table for a README, with the date, the machine and the command."""
    columns, rows = table(comparison)
    where = comparison.machine
    versions = ", ".join(f"{name} {version}".rstrip() for name, version in comparison.versions.items())
    rounds = f"{comparison.rounds} round{'s' if comparison.rounds > 1 else ''} of {comparison.seconds:g} s"
    machine = f"{where.cpu}, {where.cores} cores, {where.system}, Python {where.python}"
    lines = [
        f"Measured on {comparison.date} with `{command}`: {rounds}, medians.",
        f"Machine: {machine}; {comparison.placement}; load by {comparison.generator}.",
        f"Versions: {versions}.",
        "",
        "| " + " | ".join(columns) + " |",
        "|---|---|" + "--:|" * (len(columns) - 2),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def this_machine() -> Machine:
    """Describe the machine without naming it."""
    return Machine(
        cpu=cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
    )


def cpu_model(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """The processor's name."""
    try:
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def today() -> str:
    """The date, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")
