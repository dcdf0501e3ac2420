"""A small valid instance of a JSON schema, for structured output and tool arguments.

Knows `$ref` into the same document, `const`, `enum`, `anyOf`/`oneOf`/`allOf`, `type` and the usual limits (`required`,
`minItems`, `minLength`, `maxLength`, `minimum`, `maximum`, exclusive ones, `multipleOf`, `format`). A `pattern` is met only
where a plain word meets it.
"""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 24
MAX_SIZE = 4_096
"""Items of an array and characters of a string, whatever the schema asks for."""
FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "sim@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "hostname": "example.com",
}


def instance(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Return a small value that the schema accepts; any schema that says nothing gives the string "simulated"."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None if schema is False or depth > MAX_DEPTH else "simulated"
    if "$ref" in schema:
        return instance(resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            rest = {name: value for name, value in schema.items() if name != key}
            return instance(merge(rest, schema[key][0], root), root, depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {name: value for name, value in schema.items() if name != "allOf"}
        for part in schema["allOf"]:
            merged = merge(merged, part, root)
        return instance(merged, root, depth + 1)
    return of_type(schema, root, depth)


def of_type(schema: dict[str, Any], root: Any, depth: int) -> Any:
    """Return a value for a schema whose `type` (given or guessed) decides."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    match kind:
        case "object":
            properties = schema.get("properties") or {}
            wanted = list(schema.get("required") or ()) or list(properties)[:1]
            return {name: instance(properties.get(name, {}), root, depth + 1) for name in wanted}
        case "array":
            prefix = [instance(part, root, depth + 1) for part in schema.get("prefixItems") or ()]
            missing = max(0, min(int(schema.get("minItems", 0)), MAX_SIZE) - len(prefix))
            return prefix + [instance(schema.get("items", {}), root, depth + 1) for _ in range(missing)]
        case "integer" | "number":
            return number(schema, whole=kind == "integer")
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return string(schema)


def string(schema: dict[str, Any]) -> str:
    """Return a string within the schema's format and lengths."""
    value = FORMATS.get(schema.get("format", ""), "simulated")
    if len(value) < int(schema.get("minLength", 0)):
        value = value.ljust(min(int(schema["minLength"]), MAX_SIZE), "x")
    limit = schema.get("maxLength")
    return value if limit is None else value[: int(limit)]


def number(schema: dict[str, Any], *, whole: bool) -> int | float:
    """Return the number nearest to zero (from above) within the schema's limits."""
    low, high = schema.get("minimum"), schema.get("maximum")
    step = schema.get("multipleOf") or 1
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + (step if whole else 0.5)
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - (step if whole else 0.5)
    value: float = 0
    if low is not None and value < low:
        value = low
    if high is not None and value > high:
        value = high
    if schema.get("multipleOf"):
        value = math.ceil(value / step) * step
    return math.ceil(value) if whole else value


def resolve(reference: str, root: Any) -> Any:
    """Follow a `#/...` reference in the same document; anything else allows everything."""
    node = root
    for part in reference.removeprefix("#").strip("/").split("/") if reference.startswith("#") else ["?"]:
        if not part:
            continue
        if not isinstance(node, dict) or part not in node:
            return {}
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def merge(first: dict[str, Any], second: Any, root: Any) -> dict[str, Any]:
    """Join two schemas that must both hold: properties and required are united, other keys of the second win."""
    if isinstance(second, dict) and "$ref" in second:
        second = resolve(second["$ref"], root)
    if not isinstance(second, dict):
        return first
    joined = {**first, **second}
    if "properties" in first and "properties" in second:
        joined["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        joined["required"] = list(dict.fromkeys([*first["required"], *second["required"]]))
    return joined
