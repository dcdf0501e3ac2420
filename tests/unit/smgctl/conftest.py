"""The command line without a socket: a control plane in memory, no `SMG_*` variable, a terminal of 80 columns."""

import os

import pytest

from tests.support.cli import Smgctl
from tests.support.control_plane import ControlPlane


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SMG_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture
def smgctl() -> Smgctl:
    return Smgctl()


@pytest.fixture
def plane(smgctl: Smgctl) -> ControlPlane:
    return smgctl.plane
