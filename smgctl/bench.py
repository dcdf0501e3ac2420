"""`smgctl bench`: what this gateway costs a request beside others, and what more processes bring."""

from __future__ import annotations

import pathlib
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from smgctl.context import ExitCode, SmgContext
from smgctl.options import Json, examples

if TYPE_CHECKING:
    from harness.bench import Comparison, Scaling

EPILOG = examples(
    "smgctl bench",
    "smgctl bench --install-peers --rounds 3 --seconds 5",
    "smgctl bench --only chat64 --against nginx --json",
    "smgctl bench --scaling --processes 2",
)
CACHE = pathlib.Path("~/.cache/smgctl/bench")
MIN_SECONDS = 0.2
MAX_SECONDS = 600.0
WHAT, HOW = "What is compared", "What is printed"


def complete_case(incomplete: str) -> list[str]:
    """Complete the name of a case."""
    from harness.bench.cases import CASES

    return [name for name in CASES if name.startswith(incomplete)]


def bench(
    ctx: typer.Context,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds of each contestant in each case.")] = 3,
    seconds: Annotated[float, typer.Option(min=MIN_SECONDS, max=MAX_SECONDS, help="Length of a round; 3 s at least for streams.")] = 5.0,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="CASES", help="chat1, chat64, stream64: with commas between them.", autocompletion=complete_case, rich_help_panel=WHAT
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="nginx, smg, vllm-router: with commas between them; all unless given, '' is none.", rich_help_panel=WHAT
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Serving processes: 1 unless given, 2 with --scaling.", rich_help_panel=WHAT)
    ] = None,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="Measure instead what --processes serve beside one process.", rich_help_panel=WHAT)
    ] = False,
    install: Annotated[
        bool,
        typer.Option(
            "--install-peers", help="First install smg and vllm-router from the package index, into the cache.", rich_help_panel=WHAT
        ),
    ] = False,
    cache: Annotated[pathlib.Path, typer.Option(metavar="DIR", help="Where the peers are installed.", rich_help_panel=WHAT)] = CACHE,
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table for a README.", rich_help_panel=HOW)] = False,
    save: Annotated[
        pathlib.Path | None, typer.Option(metavar="FILE", help="Also write what was found to a file, as JSON.", rich_help_panel=HOW)
    ] = None,
) -> None:
    """Compare this gateway with others on this machine: CPU a request, throughput, latency, memory.

    All stand before the same two cheap upstreams and take turns, round by round.
    The load comes from wrk where it is installed; gateways that are not installed are left out.
    Linux only. The exit code is 1 where this gateway made errors.
    """
    context: SmgContext = ctx.obj
    try:
        from harness.bench import Plan, compare, measure_scaling
    except ImportError as error:
        context.abort(f"smgctl bench does not run on this system: {error}", ExitCode.USAGE)
    from harness.bench.cases import CASES
    from harness.bench.contestants import AGAINST, InstallFailed, install_peers
    from harness.bench.generator import LoadFailed
    from harness.fleet.child import ChildFailed

    if as_json and markdown:
        context.abort("--json and --markdown exclude each other", ExitCode.USAGE)
    if scaling and (only is not None or against is not None or markdown or install):
        context.abort("--scaling measures this gateway alone, in the case chat64", ExitCode.USAGE)
    if scaling and processes == 1:
        context.abort("--scaling needs --processes 2 or more", ExitCode.USAGE)
    plan = Plan(
        cases=_chosen(context, "--only", only, tuple(CASES), may_be_empty=False),
        against=_chosen(context, "--against", against, AGAINST, may_be_empty=True),
        rounds=rounds,
        seconds=seconds,
        processes=processes or (2 if scaling else 1),
        cache=cache.expanduser(),
    )
    result: Comparison | Scaling
    try:
        with context.out.progress() as progress:
            if install:
                progress.say("installing the peers")
                install_peers(plan.against, plan.cache)
            result = measure_scaling(plan.processes, rounds, seconds, progress) if scaling else compare(plan, progress)
    except (ChildFailed, LoadFailed, InstallFailed) as failed:
        context.abort(str(failed), ExitCode.CHECK_FAILED)
    if save is not None:
        _save(context, result, save)
    if as_json:
        context.out.json(result)
    else:
        _show(context, result, command_of(plan) if markdown else None)
    raise typer.Exit(ExitCode.CHECK_FAILED if _errors(result) else ExitCode.OK)


def _chosen(context: SmgContext, option: str, given: str | None, known: tuple[str, ...], *, may_be_empty: bool) -> tuple[str, ...]:
    if given is None:
        return known
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if unknown := [name for name in names if name not in known]:
        context.abort(f"{option}: {unknown[0]!r} is none of {', '.join(known)}", ExitCode.USAGE)
    if not names and not may_be_empty:
        context.abort(f"{option} names none of {', '.join(known)}", ExitCode.USAGE)
    return names


def _save(context: SmgContext, result: Comparison | Scaling, file: pathlib.Path) -> None:
    import msgspec

    try:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    except OSError as error:
        context.abort(f"cannot write {file}: {error.strerror}", ExitCode.USAGE)


def _show(context: SmgContext, result: Comparison | Scaling, command: str | None) -> None:
    from harness.bench import report
    from harness.bench.report import Comparison

    out = context.out
    for notice in result.notices:
        out.hint(notice)
    if not isinstance(result, Comparison):
        show_scaling(context, result)
    elif command is not None:
        out.text(report.markdown(result, command) + "\n")
    else:
        columns, rows = report.table(result)
        out.table([column.upper() for column in columns], rows)


def show_scaling(context: SmgContext, result: Scaling) -> None:
    """Write what several processes serve beside one."""
    out = context.out
    out.table(
        ["PROCESSES", "REQ/S", "CORES OF EACH", "REQ/CPU S OF THE BUSIEST", "CORES OF LOAD", "ERRORS"],
        [
            (
                side.processes,
                f"{side.rps:.0f}",
                " ".join(f"{cores:.2f}" for cores in side.cpu),
                f"{side.requests_per_cpu_s:.0f}",
                f"{side.cpu_of_load:.2f}",
                str(side.errors),
            )
            for side in (result.one, result.several)
        ],
    )
    out.line("")
    limit = "not limited" if result.share is None else f"{result.share:.2f} of a core each"
    out.fields(
        {
            "factor": f"{result.factor:.2f}",
            "factor by cpu": f"{result.factor_by_cpu:.2f}",
            "serving processes": limit,
            "gateway was the limit": result.gateway_was_limit,
        }
    )
    if result.share is not None and not result.gateway_was_limit:
        out.hint("the gateway did not use up its share: something else was the limit, and the factor says less than the truth")


def command_of(plan: object) -> str:
    """Write the command that measures a plan again."""
    from harness.bench import Plan
    from harness.bench.cases import CASES
    from harness.bench.contestants import AGAINST

    assert isinstance(plan, Plan)
    words = ["smgctl", "bench", "--rounds", str(plan.rounds), "--seconds", f"{plan.seconds:g}"]
    words += ["--only", ",".join(plan.cases)] if plan.cases != tuple(CASES) else []
    words += ["--against", ",".join(plan.against)] if plan.against != AGAINST else []
    words += ["--processes", str(plan.processes)] if plan.processes != 1 else []
    return shlex.join([*words, "--markdown"])


def _errors(result: Comparison | Scaling) -> int:
    from harness.bench.contestants import OURS
    from harness.bench.report import Comparison

    return result.errors_of(OURS) if isinstance(result, Comparison) else result.one.errors + result.several.errors
