"""Requests and tokens a minute of each tenant, counted over all processes of a gateway.

A request reserves itself and its estimated tokens before it runs, settles the tokens that it really used, and gives both
back if it never ran. Each process counts in its own row of the shared table and reads all rows.

Strategy: a sliding window in two buckets (Cloudflare's approximation). With `e` seconds of the clock's minute gone, the use of
the last 60 s is taken as `current + previous * (1 - e / 60)`, as if the previous minute's use had been spread evenly.

Error bound. Within one minute of the clock never more than the limit is reserved. Within any other 60 s less than twice the
limit is (all of it at the very end of one minute, then as much as slides out of the window of the next). Tokens may exceed
what was reserved where an answer is longer than estimated; the surplus is counted when it is settled, and is missing from
what comes next. A process counts first and looks then, so that processes that decide at the same instant refuse too many
rather than too few; where the hardware shows a store late, they may let through one request more for each other process.
A process that dies takes its counts of the last two minutes along.

A tenant's slot in a row: KEY names the tenant, then two buckets (even and odd minutes) of STAMP, REQUESTS, TOKENS. A row is a
hash table of its own, so that no process needs to agree with another on who sits where; a slot unused for two minutes is
given to the next tenant. When a row is full, further tenants share a few common slots by hash: they may be refused for each
other's use, but are never unlimited.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from gateway.config.model import AdmissionConfig, TenantLimit
from gateway.errors import Code, GatewayError
from gateway.shared.layout import TENANT_COLUMNS, TENANT_SLOTS, TENANTS
from gateway.shared.table import SharedTable
from gateway.telemetry.cells import ProcessCells

WINDOW_S: Final = 60.0
COMMON_SLOTS: Final = 64
"""Slots at the end of a row that tenants share by hash when there is no slot of their own."""
OWN_SLOTS: Final = TENANT_SLOTS - COMMON_SLOTS
PROBES: Final = 64
"""Slots looked at for a tenant, from the one its hash names on: the first tenant without one is about the 750th of 960."""
MAX_TOKENS: Final = 1 << 40
"""A single request counts at most this, whatever it or its engine says, so that no counter can overflow."""
MAX_WINDOWS: Final = 4096
"""Tenants whose place in the table is remembered; a forgotten one is found again."""

KEY: Final = 0
BUCKETS: Final = 1
BUCKET_COLUMNS: Final = 3
STAMP, REQUESTS, TOKENS = 0, 1, 2


class _Window:
    """Where one tenant's counts are, in each row of the table."""

    __slots__ = ("bases", "common", "home", "key", "minute")

    def __init__(self, tenant: str, rows: int) -> None:
        digest = sha256(tenant.encode()).digest()
        self.key = (int.from_bytes(digest[:8], "big") >> 1) or 1
        """Names the tenant in the table; two tenants of one gateway share it with a chance of 1 in 2**63."""
        self.home = self.key % OWN_SLOTS
        self.common = OWN_SLOTS + self.key % COMMON_SLOTS
        self.bases = [-1] * rows
        """First column of the tenant's slot in each row; negative where it is not known to have one."""
        self.minute = -1
        """Minute in which its own slot was last made ready."""


class Reservation:
    """What one request holds of its tenant's limits. Made by `TenantLimits.reserve`; ended by one `settle` or `cancel`."""

    __slots__ = ("_base", "_key", "_limits", "_minute", "_open", "_tokens", "_window")

    def __init__(self, limits: TenantLimits, window: _Window, base: int, key: int, minute: int, tokens: int) -> None:
        self._limits = limits
        self._window = window
        self._base = base
        self._key = key
        self._minute = minute
        self._tokens = tokens
        self._open = True

    def settle(self, tokens: int) -> None:
        """Count the tokens really used in place of the estimate. Later calls do nothing."""
        if self._open:
            self._open = False
            surplus = min(tokens, MAX_TOKENS) - self._tokens
            if surplus > 0:
                self._limits.charge(self._window, surplus)
            elif surplus < 0:
                self._limits.give_back(self._base, self._key, self._minute, 0, -surplus)

    def cancel(self) -> None:
        """Give everything back, since the request never ran. Later calls do nothing."""
        if self._open:
            self._open = False
            self._limits.give_back(self._base, self._key, self._minute, 1, self._tokens)


class TenantLimits:
    """The limits of all tenants in one process. Made by `Admission`; plain calls on its event loop."""

    def __init__(self, config: AdmissionConfig, table: SharedTable, clock: Callable[[], float], cells: ProcessCells) -> None:
        self._table = table
        self._own = table.own
        self._clock = clock
        self._cells = cells
        self._windows: dict[str, _Window] = {}
        self.reconfigure(config)

    def __repr__(self) -> str:
        return f"<TenantLimits {len(self._limits)} own limits, {len(self._windows)} tenants seen>"

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Use new limits; what was counted stays counted."""
        self._default = config.tenant_limit
        self._limits: dict[str, TenantLimit] = config.tenants
        self.active = any(
            limit.requests_per_minute is not None or limit.tokens_per_minute is not None
            for limit in (config.tenant_limit, *config.tenants.values())
        )
        """Whether any tenant has a limit."""

    def reserve(self, tenant: str, tokens: int) -> Reservation | GatewayError | None:
        """Reserve a request of so many estimated tokens; None where the tenant has no limits, the refusal where they are used up.

        An estimate above the whole limit reserves the whole limit: such a request runs when nothing else has been used.
        """
        limit = self._limits.get(tenant, self._default)
        max_requests, max_tokens = limit.requests_per_minute, limit.tokens_per_minute
        if max_requests is None and max_tokens is None:
            return None
        tokens = min(tokens, MAX_TOKENS if max_tokens is None else max_tokens)
        now_s = self._clock()
        minute, elapsed_s = divmod(now_s, WINDOW_S)
        minute = int(minute)
        window = self._window(tenant)
        base, key, bucket = self._bucket(window, minute)
        own = self._own
        own[bucket + REQUESTS] += 1
        own[bucket + TOKENS] += tokens
        weight = 1.0 - elapsed_s / WINDOW_S
        current, previous, current_tokens, previous_tokens = self._sums(window, key, minute)
        if max_requests is not None and current + previous * weight > max_requests:
            refused, wait_s = "requests_per_minute", _wait_s(current - 1, previous, max_requests - 1, elapsed_s)
        elif max_tokens is not None and current_tokens + previous_tokens * weight > max_tokens:
            refused, wait_s = "tokens_per_minute", _wait_s(current_tokens - tokens, previous_tokens, max_tokens - tokens, elapsed_s)
        else:
            return Reservation(self, window, base, key, minute, tokens)
        own[bucket + REQUESTS] -= 1
        own[bucket + TOKENS] -= tokens
        counts = self._cells.rate_limited
        counts[refused] = counts.get(refused, 0) + 1
        what = f"{max_requests} requests" if refused == "requests_per_minute" else f"{max_tokens} tokens"
        return GatewayError(Code.RATE_LIMITED, f"the limit of {what} per minute is used up, retry later", retry_after_s=wait_s)

    def used(self, tenant: str) -> tuple[float, float]:
        """Requests and tokens of the last 60 s, as the window takes them, over all processes."""
        minute, elapsed_s = divmod(self._clock(), WINDOW_S)
        window = self._window(tenant)
        _, key, _ = self._bucket(window, int(minute))
        current, previous, current_tokens, previous_tokens = self._sums(window, key, int(minute))
        weight = 1.0 - elapsed_s / WINDOW_S
        return current + previous * weight, current_tokens + previous_tokens * weight

    def charge(self, window: _Window, tokens: int) -> None:
        """Count tokens above a reservation, in the minute in which they became known."""
        _, _, bucket = self._bucket(window, int(self._clock() // WINDOW_S))
        self._own[bucket + TOKENS] += tokens

    def give_back(self, base: int, key: int, minute: int, requests: int, tokens: int) -> None:
        """Take back what was reserved, unless its minute has slid out of the window and is counted no more."""
        own = self._own
        bucket = base + BUCKETS + BUCKET_COLUMNS * (minute & 1)
        if own[base + KEY] == key and own[bucket + STAMP] == minute:
            own[bucket + REQUESTS] -= requests
            own[bucket + TOKENS] -= tokens

    def _window(self, tenant: str) -> _Window:
        window = self._windows.get(tenant)
        if window is None:
            if len(self._windows) >= MAX_WINDOWS:
                del self._windows[next(iter(self._windows))]
            window = self._windows[tenant] = _Window(tenant, self._table.rows)
        return window

    def _bucket(self, window: _Window, minute: int) -> tuple[int, int, int]:
        """The tenant's slot in our row, the key it stands under, and the first column of the current bucket, ready to count."""
        own = self._own
        base = window.bases[self._table.index]
        if window.minute != minute or own[base + KEY] not in (window.key, -1 - window.common):
            base = window.bases[self._table.index] = self._claim(window, minute)
            window.minute = minute
        bucket = base + BUCKETS + BUCKET_COLUMNS * (minute & 1)
        if own[bucket + STAMP] != minute:
            own[bucket + REQUESTS] = own[bucket + TOKENS] = 0  # first, so that no reader sees old counts under the new stamp
            own[bucket + STAMP] = minute
        return base, own[base + KEY], bucket

    def _claim(self, window: _Window, minute: int) -> int:
        """Find the tenant's slot in our row, or give it one."""
        own = self._own
        unused = -1
        for probe in range(PROBES):
            base = _base((window.home + probe) % OWN_SLOTS)
            key = own[base + KEY]
            if key == window.key:
                return base
            if unused < 0 and (key == 0 or self._idle(base, minute)):
                unused = base
            if key == 0:
                break
        if unused >= 0:
            own[unused + KEY] = window.key
            for column in range(BUCKETS, BUCKETS + 2 * BUCKET_COLUMNS):
                own[unused + column] = 0
            return unused
        base = _base(window.common)
        own[base + KEY] = -1 - window.common
        return base

    def _idle(self, base: int, minute: int) -> bool:
        own = self._own
        first, second = own[base + BUCKETS + STAMP], own[base + BUCKETS + BUCKET_COLUMNS + STAMP]
        return max(first, second) < minute - 1

    def _sums(self, window: _Window, key: int, minute: int) -> tuple[int, int, int, int]:
        """Requests of this and the last minute, then tokens of both, over all rows."""
        table = self._table
        now_column = BUCKETS + BUCKET_COLUMNS * (minute & 1)
        then_column = BUCKETS + BUCKET_COLUMNS * ((minute - 1) & 1)
        current = previous = current_tokens = previous_tokens = 0
        for row, known in enumerate(window.bases):
            base = known
            if base < 0 or table.at(row, base + KEY) != key:
                base = window.bases[row] = self._find(row, window, key)
                if base < 0:
                    continue
            column = base + now_column
            if table.at(row, column + STAMP) == minute:
                current += table.at(row, column + REQUESTS)
                current_tokens += table.at(row, column + TOKENS)
            column = base + then_column
            if table.at(row, column + STAMP) == minute - 1:
                previous += table.at(row, column + REQUESTS)
                previous_tokens += table.at(row, column + TOKENS)
        return current, previous, current_tokens, previous_tokens

    def _find(self, row: int, window: _Window, key: int) -> int:
        """First column of the slot that stands under a key in a row; -1 where there is none."""
        table = self._table
        if key < 0:
            base = _base(window.common)
            return base if table.at(row, base + KEY) == key else -1
        for probe in range(PROBES):
            base = _base((window.home + probe) % OWN_SLOTS)
            found = table.at(row, base + KEY)
            if found == key:
                return base
            if found == 0:
                break
        return -1


def _base(slot: int) -> int:
    return TENANTS + slot * TENANT_COLUMNS


def _wait_s(current: int, previous: int, room: int, elapsed_s: float) -> float:
    """Seconds until `current + previous * weight` falls to `room`, if nothing else is reserved meanwhile."""
    if current <= room:
        return max(0.0, WINDOW_S * (1.0 - (room - current) / previous) - elapsed_s) if previous > 0 else 0.0
    return WINDOW_S - elapsed_s + WINDOW_S * (1.0 - room / current)
