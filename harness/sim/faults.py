"""Faults on demand: what is wrong with the next answers of a simulated engine.

A fault is armed over `POST /_sim/faults` or `SimEngine.faults(...)` and hits requests that its filters let through. Two kinds
act on the engine as a whole, from the moment they are armed until they are cleared: `freeze` and `unhealthy`.
"""

from __future__ import annotations

import random
from enum import StrEnum

import msgspec

MAX_FAULTS = 256
"""Faults armed at once; a control route that is flooded refuses rather than grows."""


class Kind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    """The answer starts `delay_s` late."""
    STALL = "stall"
    """A stream goes silent after `after_events` events, for `delay_s` or until the client leaves; a whole answer never comes."""
    RESET = "reset"
    """The connection is reset (RST): a stream after `after_events` events, a whole answer half-way if `after_events` > 0."""
    ERROR = "error"
    """The engine's own error body with `status`."""
    RATE_LIMIT = "rate_limit"
    """429 with `Retry-After: retry_after_s`."""
    WRONG_JSON = "wrong_json"
    """A whole answer is cut-off JSON with a right content-length; a stream gets a broken event."""
    BROKEN_EVENT = "broken_event"
    """One event after `after_events` events carries cut-off JSON; the stream goes on."""
    TRUNCATED_CHUNK = "truncated_chunk"
    """After `after_events` events a chunk announces more bytes than come, then the connection is closed."""
    NO_DONE = "no_done"
    """The stream ends cleanly without its end mark; with `after_events` it ends after so many events."""
    SHORT_BODY = "short_body"
    """content-length promises more bytes than come, then the connection is closed."""
    GARBAGE = "garbage"
    """Bytes that are no HTTP answer, then the connection is closed."""
    CRASH = "crash"
    """The engine dies: at once, or in a stream after `after_events` events."""
    FREEZE = "freeze"
    """Nothing is answered and no token made, health included; connections stay open."""
    UNHEALTHY = "unhealthy"
    """The health routes answer 503."""


ENGINE_WIDE = frozenset({Kind.FREEZE, Kind.UNHEALTHY})


class Fault(msgspec.Struct, forbid_unknown_fields=True):
    """One armed fault."""

    kind: Kind
    times: int | None = None
    """Requests it still hits; any number unless set."""
    path: str | None = None
    """Prefix of the paths it hits; unless set, every POST; `*` is every request."""
    rate: float = 1.0
    """Share of the matching requests that are hit."""
    after_events: int | None = None
    """Events (or body parts) that go out before it strikes."""
    delay_s: float | None = None
    """How late the answer of `latency` begins; how long a `stall` lasts, for ever unless set."""
    status: int = 500
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        """Refuse values that make no sense (msgspec turns this into a ValidationError)."""
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError("rate is a share from 0 to 1")
        if self.times is not None and self.times < 1:
            raise ValueError("times is at least 1")
        if self.after_events is not None and self.after_events < 0:
            raise ValueError("after_events is not negative")
        if (self.delay_s is not None and self.delay_s < 0) or self.retry_after_s < 0:
            raise ValueError("delay_s and retry_after_s are not negative")
        if not 400 <= self.status <= 599:
            raise ValueError("status is from 400 to 599")


def fault_from(text: str) -> Fault:
    """Read a fault that was given as JSON on a command line.

    Raises:
        ValueError: it is none; the message says why.
    """
    try:
        return msgspec.json.decode(text, type=Fault)
    except msgspec.MsgspecError as error:
        raise ValueError(f"--fault {text}: {str(error).lower()}; kinds are {', '.join(Kind)}") from None


class Faults:
    """The armed faults of one engine, oldest first."""

    def __init__(self, seed: int) -> None:
        self._armed: list[Fault] = []
        self._rng = random.Random(seed)
        self.hits = 0
        """Requests that a fault hit so far."""

    def __repr__(self) -> str:
        return f"<Faults [{', '.join(fault.kind for fault in self._armed)}]>"

    @property
    def armed(self) -> tuple[Fault, ...]:
        """The faults that still wait for requests, and the engine-wide ones."""
        return tuple(self._armed)

    def arm(self, fault: Fault) -> None:
        """Add a fault.

        Raises:
            ValueError: when `MAX_FAULTS` are armed.
        """
        if len(self._armed) >= MAX_FAULTS:
            raise ValueError(f"{MAX_FAULTS} faults are armed already; clear them first")
        self._armed.append(fault)

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def active(self, kind: Kind) -> bool:
        """Tell whether an engine-wide fault is on."""
        return any(fault.kind is kind for fault in self._armed)

    def strike(self, method: str, path: str) -> Fault | None:
        """Return a copy of the fault that hits this request, if any, and use the fault up."""
        if not self._armed:
            return None
        for fault in self._armed:
            if fault.kind in ENGINE_WIDE or not _matches(fault, method, path):
                continue
            if fault.rate < 1.0 and self._rng.random() >= fault.rate:
                continue
            self.hits += 1
            struck = msgspec.structs.replace(fault)
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self._armed.remove(fault)
            return struck
        return None


def _matches(fault: Fault, method: str, path: str) -> bool:
    if fault.path is None:
        return method == "POST"
    return fault.path == "*" or path.startswith(fault.path)
