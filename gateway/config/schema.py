"""The JSON Schema of the configuration, which editors use to complete, explain and check `smg.yaml`."""

from __future__ import annotations

from typing import Any

from gateway.config.model import GatewayConfig, WorkerConfig

TITLE = "Configuration of the gateway"


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12), descriptions and defaults in it."""
    schema = GatewayConfig.model_json_schema(mode="validation")
    definitions: dict[str, Any] = schema.pop("$defs")
    template = {key: value for key, value in WorkerConfig.model_json_schema()["properties"].items() if key != "url"}
    definitions["WorkerTemplate"] = {
        "title": "WorkerTemplate",
        "description": "Worker keys that discovery gives to every worker it finds.",
        "type": "object",
        "additionalProperties": False,
        "properties": template,
    }
    for name in ("DnsDiscovery", "KubernetesDiscovery"):
        field = definitions[name]["properties"]["worker"]
        definitions[name]["properties"]["worker"] = {"$ref": "#/$defs/WorkerTemplate", "description": field["description"]}
    for section in schema["properties"].values():
        if isinstance(section.get("default"), dict):
            del section["default"]  # each key below says its own
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        **{key: value for key, value in schema.items() if key != "title"},
        "$defs": definitions,
    }
