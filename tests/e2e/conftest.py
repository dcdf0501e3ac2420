"""Shows the logs of the processes of a test that failed."""

from __future__ import annotations

import pathlib
from collections.abc import Generator

import pytest

TAIL_LINES = 40


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        values = getattr(item, "funcargs", {}).values()
        folders = {folder for value in values if isinstance(folder := getattr(value, "folder", value), pathlib.Path)}
        for log in sorted({log for folder in folders if folder.is_dir() for log in folder.rglob("*.log")}):
            lines = log.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]
            if lines:
                report.sections.append((f"the end of {log.name} ({log.parent.name})", "\n".join(lines)))
    return report
