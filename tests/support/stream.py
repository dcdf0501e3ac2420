"""Feeds event streams to scanners in pieces, and tells what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from gateway.protocol.dialect import Dialect
from gateway.protocol.sse import StreamScanner
from gateway.protocol.usage import Usage

STEPS = [0, 1, 2, 7, 100]
"""Sizes of pieces; 0 is whole, -1 (where used) is event by event."""


class Outcome(NamedTuple):
    """What is seen of a stream from outside."""

    out: bytes
    events: int
    token_seen: bool
    done: bool
    finished: bool
    complete: bool
    broken: str | None
    error_forwarded: bool
    usage: Usage | None
    sequence_number: int


def pieces(wire: bytes, step: int) -> list[bytes]:
    """Cut a stream: whole (0), by size, or event by event (-1)."""
    if not step:
        return [wire]
    if step < 0:
        parts = wire.split(b"\n\n")
        return [part + b"\n\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
    return [wire[at : at + step] for at in range(0, len(wire), step)]


def outcome_of(scanner: StreamScanner, out: bytes) -> Outcome:
    """What is seen of a scanner now."""
    return Outcome(
        out, scanner.events, scanner.token_seen, scanner.done, scanner.finished, scanner.complete, scanner.broken,
        scanner.error_forwarded, scanner.usage, scanner.sequence_number,
    )  # fmt: skip


def scan(dialect: Dialect, parts: Iterable[bytes], *, finish: bool = True, **options: Any) -> Outcome:
    """Feed pieces to a new scanner and finish it."""
    scanner = StreamScanner(dialect, **options)
    out = b"".join(scanner.feed(part) for part in parts)
    if finish:
        out += scanner.finish()
    return outcome_of(scanner, out)


def scan_all(dialect: Dialect, wire: bytes, **options: Any) -> Outcome:
    """Scan a stream cut in every usual way; all must agree."""
    whole = scan(dialect, [wire], **options)
    for step in (-1, *STEPS[1:]):
        assert scan(dialect, pieces(wire, step), **options) == whole, f"pieces of {step}"
    return whole
