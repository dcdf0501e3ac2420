"""`/v1/models`: what is served here, in the shape that OpenAI's and Anthropic's SDKs both read."""

from __future__ import annotations

from typing import Any

from gateway.routing.engine import Listed, Router


def model_object(listed: Listed, created_s: int) -> dict[str, Any]:
    """One model: OpenAI's fields, then Anthropic's (`type`, `display_name`, `created_at`), then the engines' own."""
    found: dict[str, Any] = {
        "id": listed.name,
        "object": "model",
        "created": created_s,
        "owned_by": listed.engine,
        "type": "model",
        "display_name": listed.name,
        "root": listed.alias_of or listed.name,
        "parent": listed.parent,
        "max_model_len": listed.context_length,
    }
    return found


def model_list(router: Router, created_s: int) -> dict[str, Any]:
    """The whole list."""
    data = [model_object(listed, created_s) for listed in router.listed()]
    return {
        "object": "list",
        "data": data,
        "has_more": False,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }
