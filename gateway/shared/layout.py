"""Which column of the shared table holds what; the same in every process of a gateway."""

from __future__ import annotations

from typing import Final

WORKER_SLOTS: Final = 4096
"""Workers at most; column = the worker's slot, value = its requests in flight."""
CONCURRENCY: Final = WORKER_SLOTS
"""Requests admitted and not yet ended."""
QUEUED: Final = CONCURRENCY + 1
"""Requests that wait for admission."""
TENANTS: Final = QUEUED + 1
"""First column of the tenants' counters."""
TENANT_SLOTS: Final = 1024
"""Tenants with counters of their own; further ones share by hash."""
TENANT_COLUMNS: Final = 8
"""Columns of one tenant; admission says what is in them."""
COLUMNS: Final = TENANTS + TENANT_SLOTS * TENANT_COLUMNS
