"""Writes a configuration as YAML, secrets masked."""

from __future__ import annotations

from typing import Any

import yaml

from gateway.config.mask import masked
from gateway.config.model import GatewayConfig


def to_yaml(config: GatewayConfig | dict[str, Any], *, only_set: bool = False) -> str:
    """Write a configuration, or one that was made plain already, as YAML in the order of the model."""
    values = masked(config, only_set=only_set) if isinstance(config, GatewayConfig) else config
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)
