"""Configurations are read as if nobody had set a `SMG_*` variable, and from texts that tests write."""

import os
from collections.abc import Callable

import pytest

from gateway.config.load import ConfigSource
from gateway.errors import ConfigError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SMG_"):
            monkeypatch.delenv(name)


@pytest.fixture
def problems() -> Callable[[str], list[str]]:
    """Return the mistakes of a text, each without the name of the text."""

    def read(text: str) -> list[str]:
        try:
            ConfigSource().load_text(text, "t")
        except ConfigError as error:
            return [problem.removeprefix("t:") for problem in error.problems]
        return []

    return read
