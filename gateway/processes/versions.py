"""The versions of the configuration: which one is in force, and a bounded number of those before it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.model import GatewayConfig
from gateway.errors import Code, GatewayError, Retry

KEPT = 20
"""Versions kept; a configuration with 4096 workers is about 2 MiB."""


@dataclass(frozen=True, slots=True)
class Version:
    """A configuration that was, or is, in force."""

    number: int
    config: GatewayConfig
    source: str
    """`start`, `reload`, `api`, or `rollback to N`."""
    applied_s: float
    """Unix time."""
    before: int
    """The version that a rollback goes to; 0 where there is none."""


class History:
    """Versions in the order in which they came into force. Numbers rise by one, also over a rollback."""

    def __init__(self, config: GatewayConfig, applied_s: float, *, kept: int = KEPT) -> None:
        self._kept = kept
        self.current = Version(1, config, "start", applied_s, 0)
        self._versions = {1: self.current}

    def __len__(self) -> int:
        return len(self._versions)

    def __repr__(self) -> str:
        return f"<History at {self.current.number} from {self.current.source}, {len(self)} kept>"

    def following(self, config: GatewayConfig, source: str, applied_s: float) -> Version:
        """Return the version that would come next; it is not in force before `advance`."""
        return Version(self.current.number + 1, config, source, applied_s, self.current.number)

    def backward(self, applied_s: float) -> Version:
        """Return the version that a rollback brings into force: the configuration before the one in force, as a new version.

        A further rollback goes one further back, not back and forth.

        Raises:
            GatewayError: `conflict`, when there is none before it, or it is no longer kept.
        """
        target = self._versions.get(self.current.before)
        if target is None:
            raise GatewayError(
                Code.CONFLICT,
                f"there is no version before {self.current.number} to go back to"
                if not self.current.before
                else f"version {self.current.before} is no longer kept: only the last {self._kept} are",
                retry=Retry.NEVER,
            )
        return Version(self.current.number + 1, target.config, f"rollback to {target.number}", applied_s, target.before)

    def advance(self, version: Version) -> None:
        """Take a version as the one in force; the oldest beyond `kept` is forgotten."""
        self.current = version
        self._versions[version.number] = version
        while len(self._versions) > self._kept:
            del self._versions[next(iter(self._versions))]
