"""The page about simulated engines names every fault, every field of a fault, and every option of both commands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer

from harness.sim.__main__ import parser
from harness.sim.app import App
from harness.sim.driver import Driver
from harness.sim.engine import SimEngine
from harness.sim.faults import Fault, Kind
from harness.sim.settings import FLAVOURS, SimSettings
from smgctl.sim import app

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "simulated-engines.md").read_text()


def cli_options() -> set[str]:
    """Return the options of `smgctl sim engine`."""
    group = typer.main.get_group(app)
    return {option for parameter in group.commands["engine"].params for option in parameter.opts} - {"--help"}


def test_every_fault_is_documented() -> None:
    """Each kind has a row of the table, each field is named."""
    assert {kind for kind in Kind if f"| `{kind.value}` |" not in PAGE} == set()
    assert {
        field for field in Fault.__struct_fields__ if field != "kind" and f"`{field}`" not in PAGE.replace("Retry-After: ", "`")
    } == set()


def test_both_commands_have_the_same_options_and_all_are_documented() -> None:
    """`python -m harness.sim` takes what `smgctl sim engine` takes, and the page has it all."""
    module = {option for action in parser()._actions for option in action.option_strings} - {"-h", "--help"}
    assert module == cli_options()
    assert {option for option in module if f"`{option}`" not in PAGE} == set()


def test_every_route_is_documented() -> None:
    """Each route of a flavour is in the table of routes."""
    for flavour in FLAVOURS:
        engine = SimEngine(SimSettings(flavour=flavour))
        loop = asyncio.new_event_loop()
        routes = App(engine.settings, Driver(engine.settings, loop), engine).paths
        loop.close()
        undocumented = {"/model_info", "/server_info", "/flush_cache", "/perf_metrics", "/kv_cache_events"}
        assert {path for path in routes - undocumented if f"`{path}`" not in PAGE} == set()
