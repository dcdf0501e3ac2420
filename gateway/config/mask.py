"""Shows a configuration without its secrets: bearer tokens and the hashes of keys become a mask."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SecretStr

from gateway.config.model import ApiKeyConfig

MASK = "********"
"""Stands for a secret wherever a configuration is shown; refused where one is read."""

_HIDDEN = {(ApiKeyConfig, "sha256")}
"""Keys that are no `SecretStr` and yet not shown: an unsalted hash of a weak key can be guessed."""


def masked(section: BaseModel, *, only_set: bool = False) -> dict[str, Any]:
    """Return a section as plain values that JSON and YAML can hold.

    Args:
        section: any part of a configuration.
        only_set: leave out what was not set and has its default.
    """
    names = section.model_fields_set if only_set else type(section).model_fields
    return {
        name: MASK if (type(section), name) in _HIDDEN else _plain(getattr(section, name), only_set)
        for name in type(section).model_fields
        if name in names
    }


def _plain(value: Any, only_set: bool) -> Any:
    if isinstance(value, BaseModel):
        return masked(value, only_set=only_set)
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, list | tuple):
        return [_plain(item, only_set) for item in value]
    if isinstance(value, dict):
        return {str(key): MASK if key == "api_key" and item is not None else _plain(item, only_set) for key, item in value.items()}
    return str(value) if isinstance(value, str) else value
