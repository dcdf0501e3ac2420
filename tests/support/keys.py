"""API keys for tests: an entry of `auth.keys`, and what a client sends for it."""

from __future__ import annotations

from hashlib import sha256
from typing import Any


def key(name: str, *roles: str, **more: Any) -> dict[str, Any]:
    """An entry of `auth.keys` with these roles, `data` unless some are given; the key itself is `key-of-NAME`."""
    return {"id": name, "sha256": sha256(f"key-of-{name}".encode()).hexdigest(), "roles": list(roles) or ["data"], **more}


def bearer(name: str) -> dict[str, str]:
    """The header with the key of this name."""
    return {"authorization": f"Bearer key-of-{name}"}
