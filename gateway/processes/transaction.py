"""One change of configuration over all members: prepared by every one, then committed by every one, or undone by every one.

1. `prepare` on all at once. One fails: `abort` on all; nothing has changed.
2. `commit` on all at once. One fails: the version before is prepared and committed again on all.
3. A member that cannot even be brought back is named to the caller, which restarts it.

A member that vanishes in the middle counts as failed: the new version may be what killed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any

from gateway.errors import Code, ConfigError, GatewayError
from gateway.processes.member import Member
from gateway.processes.versions import Version

log = logging.getLogger(__name__)


class Astray(Exception):
    """Raised by `restore`: these members run neither version for sure."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


async def prepare_all(members: Mapping[str, Member], version: Version) -> None:
    """Let every member prepare a version.

    Raises:
        GatewayError: that of the first member that cannot, with its name; every member has aborted then.
    """
    failed = await _on_all({name: member.prepare(version.number, version.config) for name, member in members.items()})
    if failed:
        await _on_all({name: member.abort(version.number) for name, member in members.items()})
        raise _named(failed, "cannot run this configuration")


async def commit_all(members: Mapping[str, Member], version: Version) -> None:
    """Let every member switch to a version that all have prepared.

    Raises:
        GatewayError: that of the first member that failed, with its name; the others may run the new version.
    """
    failed = await _on_all({name: member.commit(version.number) for name, member in members.items()})
    if failed:
        raise _named(failed, "could not switch to this configuration")


async def restore(members: Mapping[str, Member], version: Version) -> None:
    """Bring every member back to a version that it ran before.

    Raises:
        Astray: some could not be brought back.
    """

    async def bring_back(member: Member) -> None:
        await member.prepare(version.number, version.config)
        await member.commit(version.number)

    failed = await _on_all({name: bring_back(member) for name, member in members.items()})
    if failed:
        raise Astray(tuple(failed))


async def _on_all(calls: Mapping[str, Coroutine[Any, Any, None]]) -> dict[str, GatewayError]:
    """Run calls at once; return the errors by name. Something other than a `GatewayError` is logged and becomes one."""
    failed: dict[str, GatewayError] = {}
    outcomes = await asyncio.gather(*calls.values(), return_exceptions=True)
    for name, outcome in zip(calls, outcomes, strict=True):
        if isinstance(outcome, GatewayError):
            log.warning("%s: %s", name, outcome.message)
            failed[name] = outcome
        elif isinstance(outcome, Exception):
            log.error("%s failed", name, exc_info=outcome)
            failed[name] = GatewayError(Code.INTERNAL, "it failed unexpectedly, see the log")
        elif isinstance(outcome, BaseException):
            raise outcome
    return failed


def _named(failed: Mapping[str, GatewayError], what: str) -> GatewayError:
    """Return the first error with the names of those that failed; a `ConfigError` keeps its problems."""
    name, first = next(iter(failed.items()))
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    message = f"{name}{more} {what}: {first.message}; the version before stays in force"
    if isinstance(first, ConfigError):
        return ConfigError(message, first.problems)
    return GatewayError(first.code, message, source=first.source, retry=first.retry, retry_after_s=first.retry_after_s, param=first.param)
