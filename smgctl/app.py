"""The root of `smgctl`: mounts commands and groups, and maps errors to exit codes.

0 ok, 1 a check failed or the gateway refused, 2 usage or configuration, 3 no gateway answered; 70 is a defect of `smgctl`.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

import typer

from smgctl import bench, config, serve, sim, status, worker
from smgctl.context import ExitCode, SmgContext
from smgctl.options import examples
from smgctl.output import Output

if TYPE_CHECKING:
    from gateway.sdk.errors import SmgApiError

DEFECT = 70
"""EX_SOFTWARE of sysexits.h."""

_CONFIGURATION_CODES = frozenset({"config_invalid", "unauthenticated", "forbidden"})
"""Error codes of the gateway that mean: what you gave me is wrong."""

app = typer.Typer(
    name="smgctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "smgctl serve --worker-url http://127.0.0.1:8000   start a gateway before one engine",
        "smgctl worker list   see the workers of a running gateway",
        "smgctl config check smg.yaml   find every mistake in a configuration",
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        Output().line(f"smgctl {version('smgctl')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Run and operate an inference gateway for fleets of LLM engines."""


app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("status", epilog=status.EPILOG)(status.status)
app.command("bench", epilog=bench.EPILOG)(bench.bench)
app.add_typer(worker.app)
app.add_typer(config.app)
app.add_typer(sim.app)


def run(args: Sequence[str], context: SmgContext | None = None) -> int:
    """Run one command.

    Returns:
        The exit code.
    """
    context = context if context is not None else SmgContext()
    try:
        typer.main.get_command(app).main(args=list(args), prog_name="smgctl", obj=context)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            return ExitCode.OK  # whoever read our output has enough of it
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        return explain(error, context.out)
    return ExitCode.OK


def explain(error: Exception, out: Output) -> int:
    """Say what went wrong, and return the exit code for it."""
    from gateway.errors import ConfigError
    from gateway.sdk.errors import SmgApiError, Unreachable

    match error:
        case ConfigError(problems=problems) if problems:
            _name_problems(problems, out)
            return ExitCode.USAGE
        case ConfigError(message=message):
            out.error(message)
            return ExitCode.USAGE
        case Unreachable():
            out.error(f"cannot reach the gateway at {error.url}: {error.reason}")
            out.hint("start one with `smgctl serve`, or name another with --url or SMG_URL")
            return ExitCode.UNREACHABLE
        case SmgApiError():
            return _explain_refusal(error, out)
    out.problem("".join(traceback.format_exception(error)).rstrip())
    out.error("this is a defect of smgctl; please report it with the lines above")
    return DEFECT


def _explain_refusal(error: SmgApiError, out: Output) -> int:
    if error.problems:
        _name_problems(error.problems, out)
    else:
        out.error(f"{error.message} ({error.code})")
    if error.status == 401:  # a 403 says itself which key, or which address, it takes
        out.hint("give a key with --api-key or SMG_API_KEY")
    usage = error.code in _CONFIGURATION_CODES or error.status in (401, 403)
    return ExitCode.USAGE if usage else ExitCode.CHECK_FAILED


def _name_problems(problems: Sequence[str], out: Output) -> None:
    for problem in problems:
        out.problem(problem)
    out.error("1 mistake in the configuration" if len(problems) == 1 else f"{len(problems)} mistakes in the configuration")
