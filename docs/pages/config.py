"""The page of the configuration, and its JSON Schema: every key with its values, default and environment variable."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from docs.pages.markdown import NOTE, code, table
from gateway.config import env
from gateway.config.compare import RESTART
from gateway.config.mistake import dotted
from gateway.config.schema import json_schema

_INTRODUCTION = """\
`smgctl serve --config smg.yaml` reads a YAML file of these keys; every one may be left out.
Flags win over environment variables, those over the file, that over the defaults.
A list that is given anew replaces the one before it.
Durations are seconds (`_s`), sizes are bytes (`_bytes`).
`smgctl config check smg.yaml` names every mistake with its line, `smgctl config show` prints what is in force, and
`smgctl config schema` prints [the JSON Schema](config.schema.json) that editors use.

Every key takes effect when a new configuration is applied, but for those marked *restart*.
YAML is read as version 1.2 says: only `true` and `false` are booleans. A key that is given twice is a mistake.
"""


def schema() -> str:
    """Write the schema, as `smgctl config schema` prints it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    """Write the page."""
    whole = json_schema()
    parts = [NOTE, "# The configuration\n", _INTRODUCTION, "## Top level\n", _section(whole, whole, [""])]
    for name, paths in _sections(whole).items():
        section = whole["$defs"][name]
        parts += [f"## {paths[0]}\n", f"{section.get('description', '')}\n"]
        if len(paths) > 1:
            parts.append(f"The same keys stand at {', '.join(map(code, paths[1:]))}.\n")
        parts.append(_section(section, whole, paths))
    parts += ["## Environment variables\n", _ENVIRONMENT, _variables()]
    return "\n".join(parts)


_ENVIRONMENT = """\
The variables below have a flag beside them.
Beyond them, every key of one value has the variable that its table above names.
Lists are written with commas, and `null` takes a value away where a key may have none.
"""


def _variables() -> str:
    rows = [(code(name), code(dotted(path)), meaning) for name, (path, meaning) in env.SHORT.items()]
    rows += [(code(name), "", meaning) for name, meaning in env.OTHER.items()]
    return table(["variable", "key", "means"], rows)


def _sections(whole: dict[str, Any]) -> dict[str, list[str]]:
    """Find every section by name, with the paths at which it stands, the shortest first; those below a section follow it."""
    found: dict[str, list[str]] = {}

    def visit(section: dict[str, Any], path: str) -> None:
        for key, node in section["properties"].items():
            for name, suffix in _references(node):
                target = whole["$defs"][name]
                if "properties" not in target or name == "WorkerTemplate":
                    continue
                kind = target["properties"].get("kind", {}).get("const")
                here = (f"{path}.{key}" if path else key) + suffix + (f" (kind: {kind})" if kind is not None else "")
                known = name in found
                found.setdefault(name, []).append(here)
                if not known:
                    visit(target, here)

    visit(whole, "")
    for paths in found.values():
        paths.sort(key=lambda path: path.count(".") + path.count("[]"))
    top = list(whole["properties"])
    return dict(sorted(found.items(), key=lambda item: top.index(item[1][0].partition(".")[0].partition("[")[0])))


def _references(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "$ref" in node:
        yield node["$ref"].rpartition("/")[2], ""
    for key in ("anyOf", "oneOf", "allOf"):
        for below in node.get(key, ()):
            yield from _references(below)
    if "items" in node:
        yield from ((name, f"[]{suffix}") for name, suffix in _references(node["items"]))
    if isinstance(node.get("additionalProperties"), dict):
        yield from ((name, f".NAME{suffix}") for name, suffix in _references(node["additionalProperties"]))


def _section(section: dict[str, Any], whole: dict[str, Any], paths: Sequence[str]) -> str:
    names: dict[str, list[str]] = defaultdict(list)
    for variable, key in env.variables().items():
        names[dotted(key)].append(variable)
    rows = []
    for key, node in section["properties"].items():
        places = [f"{path}.{key}" if path else key for path in paths]
        means = str(node.get("description") or _described(node, whole))
        restart = " *restart*" if not RESTART.isdisjoint(places) else ""
        default = "required" if key in section.get("required", ()) else _default(node)
        variables = " ".join(code(name) for place in places for name in names.get(place, ()))
        rows.append((code(key), _kind(node, whole), default, variables, means + restart))
    return table(["key", "value", "default", "variable", "means"], rows)


def _described(node: dict[str, Any], whole: dict[str, Any]) -> str:
    return next((str(whole["$defs"][name].get("description", "")) for name, _ in _references(node)), "")


def _default(node: dict[str, Any]) -> str:
    default = node.get("default")
    if "default" not in node or default is None:
        return ""
    if isinstance(default, dict):
        return code(", ".join(f"{key}: {value}" for key, value in default.items() if value is not None) if default else "{}")
    return code(json.dumps(default, ensure_ascii=False) if not isinstance(default, str) else default)


def _kind(node: dict[str, Any], whole: dict[str, Any]) -> str:
    """Say in words which values a key takes."""
    if "$ref" in node:
        target = whole["$defs"][node["$ref"].rpartition("/")[2]]
        return _kind(target, whole) if "enum" in target else "section"
    options = node.get("anyOf") or node.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_kind(one, whole) for one in options))
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    kind = str(node.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(node['items'], whole)}"
    if kind == "object":
        below = node.get("additionalProperties")
        return f"mapping of {_kind(below, whole)}" if isinstance(below, dict) else "mapping"
    return kind + _bounds(node)


def _bounds(node: dict[str, Any]) -> str:
    low, above = node.get("minimum"), node.get("exclusiveMinimum")
    high, below = node.get("maximum"), node.get("exclusiveMaximum")
    said = [
        f"from {low:g}" if low is not None else f"above {above:g}" if above is not None else "",
        f"to {high}" if high is not None else f"below {below:g}" if below is not None else "",
    ]
    return f", {' '.join(filter(None, said))}" if any(said) else ""
