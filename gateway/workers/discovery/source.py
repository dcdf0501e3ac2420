"""What a source of workers is, and what all of them share: checked worker settings, and a problem said once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from gateway.config.env import environment
from gateway.config.mistake import dotted
from gateway.config.model import WorkerConfig
from gateway.config.shape import check_template
from gateway.config.url import problem_of
from gateway.config.validate import worker_mistakes
from gateway.errors import ConfigError

log = logging.getLogger(__name__)

Hear = Callable[[tuple[WorkerConfig, ...]], None]
"""Takes the whole list of workers that there should be, each time it changes."""


class Source(Protocol):
    """Finds workers. Constructed without side effects, run by the fleet, ended by cancelling it.

    Example::

        class Fixed:
            name = "fixed"
            problem = ""

            async def run(self, hear):
                hear((WorkerConfig(url="http://127.0.0.1:8000"),))
                await asyncio.Event().wait()

    A source that cannot look at the moment calls nothing: the fleet keeps what it last heard.
    """

    name: str
    """Shown as `source` of its workers; two sources of one configuration differ in it."""

    @property
    def problem(self) -> str:
        """Why the last look failed, in words for an operator; empty when it did not."""
        ...

    async def run(self, hear: Hear) -> None:
        """Look for workers until cancelled."""
        ...


class Voice:
    """Says a source's problems in the log once each, and that they are over."""

    def __init__(self, name: str) -> None:
        self.problem = ""
        self._name = name

    def fails(self, problem: str) -> None:
        """Say that looking failed."""
        if problem != self.problem:
            log.warning("discovery %s: %s; its workers stay as they are", self._name, problem)
            self.problem = problem

    def works(self) -> None:
        """Say that looking works again."""
        if self.problem:
            log.info("discovery %s: works again", self._name)
            self.problem = ""


def template_of(template: dict[str, object]) -> WorkerConfig:
    """Return the worker settings that every worker of a source gets; its URL means nothing.

    Raises:
        ConfigError: a key is unknown or a value wrong.
    """
    worker, wrong = check_template(template)
    if worker is None or wrong:
        raise ConfigError("the worker keys of a discovery are wrong: " + _said(wrong))
    return worker


def wrong_with(spec: WorkerConfig) -> str:
    """Say why a worker cannot be used; empty if it can."""
    return _said(worker_mistakes(spec, environment()))


def from_urls(template: WorkerConfig, found: Iterable[tuple[str, dict[str, Any]]], source: str) -> tuple[WorkerConfig, ...]:
    """Make workers of URLs and what is known of each; a URL that cannot be used is left out and logged."""
    specs: dict[str, WorkerConfig] = {}
    for url, known in found:
        problem = problem_of(url)
        if problem is not None:
            log.warning("discovery %s: the url %r %s; it is left out", source, url[:200], problem)
            continue
        labels = {**template.labels, **known.pop("labels", {})}
        specs[url] = template.model_copy(update={"url": url, "labels": labels, **known})
    return tuple(specs[url] for url in sorted(specs))


def _said(wrong: Iterable[tuple[tuple[str | int, ...], str]]) -> str:
    return "; ".join(f"{dotted(path)}: {message}" for path, message in wrong)
