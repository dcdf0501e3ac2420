"""Checks that every key is known and every value of its type, one pass, and keeps what is right beside what is wrong.

A tree with mistakes is pruned until the rest is a configuration, so that the checks across sections can name their mistakes
in the same run. Positions in a pruned list are translated back by `Shape.place`.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.mask import MASK
from gateway.config.mistake import Path
from gateway.config.model import GatewayConfig, WorkerConfig

_MAX_ROUNDS = 8
_SECRET_KEYS = frozenset({"api_key", "sha256"})
"""Keys whose value no mistake quotes; people do write the key itself where its hash belongs."""


@dataclass(slots=True)
class Shape:
    """What came of a tree."""

    config: GatewayConfig | None
    """The configuration; where there are mistakes, what is left without them, or None."""
    mistakes: list[tuple[Path, str]] = field(default_factory=list)
    kept: Mapping[Path, list[int]] = field(default_factory=dict)
    """Lists that lost items -> the positions their items had."""

    def place(self, path: Path) -> Path:
        """Translate a path in `config` into one in the tree."""
        result: Path = ()
        for step in path:
            positions = self.kept.get(result)
            result = (*result, positions[step] if positions is not None and isinstance(step, int) else step)
        return result


def check_shape(tree: dict[str, Any]) -> Shape:
    """Check a tree of plain values against the model."""
    try:
        config = GatewayConfig.model_validate(tree)
        return Shape(config, list(_switches(tree, config, ())))
    except ValidationError as error:
        details = error.errors(include_url=False)
    found = _said(GatewayConfig, details, tree)
    rest = copy.deepcopy(tree)
    shape = Shape(None, found)
    for _ in range(_MAX_ROUNDS):
        gone: set[Path] = {path[:-1] if detail["type"] == "missing" else path for detail in details for path in [_place(rest, detail)]}
        if () in gone:
            return shape
        kept = dict(shape.kept)
        rest = _without(rest, gone, (), (), shape, kept)
        shape.kept = kept
        try:
            shape.config = GatewayConfig.model_validate(rest)
        except ValidationError as error:
            details = error.errors(include_url=False)
            continue
        shape.mistakes += [(shape.place(path), said) for path, said in _switches(rest, shape.config, ())]
        return shape
    return shape


def check_template(template: dict[str, object]) -> tuple[WorkerConfig | None, list[tuple[Path, str]]]:
    """Check worker keys without a URL, as discovery gives them to every worker that it finds.

    Returns:
        A worker made of them, if they are right; and the mistakes, paths from the template on.
    """
    tree = {**template, "url": "http://template:1"}
    found: list[tuple[Path, str]] = [(("url",), "is found by discovery; leave it out")] if "url" in template else []
    try:
        return WorkerConfig.model_validate(tree), found
    except ValidationError as error:
        return None, found + _said(WorkerConfig, error.errors(include_url=False), tree)


def _switches(tree: Any, value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Find `true` and `false` where a number belongs: pydantic takes them for 1 and 0, and `metrics_port: false` for any port."""
    if isinstance(tree, bool) and isinstance(value, int | float) and not isinstance(value, bool):
        yield path, f"must be a number, not {str(tree).lower()}"
    elif isinstance(tree, dict):
        for key, below in tree.items():
            yield from _switches(below, value.get(key) if isinstance(value, dict) else getattr(value, key, None), (*path, key))
    elif isinstance(tree, list) and isinstance(value, tuple):
        for index, below in enumerate(tree):
            yield from _switches(below, value[index], (*path, index))


def _said(root: type[BaseModel], details: list[ErrorDetails], tree: dict[str, Any]) -> list[tuple[Path, str]]:
    return [(path, _say(root, detail, tree, path)) for detail in details for path in [_place(tree, detail)]]


def _place(tree: Any, detail: ErrorDetails) -> Path:
    """Return the path of an error: pydantic's, without the tags it adds for unions and keys."""
    path: Path = ()
    node = tree
    for step in detail["loc"]:
        if isinstance(node, dict):
            if step not in node and node.get("kind") == step:
                continue
            if step == "[key]":
                break
            node = node.get(step)
        elif isinstance(node, list) and isinstance(step, int) and step < len(node):
            node = node[step]
        elif isinstance(step, str) and not isinstance(node, list):
            break
        path = (*path, step)
    return path


def _without(node: Any, gone: set[Path], here: Path, place: Path, shape: Shape, kept: dict[Path, list[int]]) -> Any:
    """Copy a tree without the paths in `gone` (`here` is where we are in it, `place` where that was in the first tree)."""
    if isinstance(node, dict):
        return {
            key: _without(value, gone, (*here, key), (*place, key), shape, kept) for key, value in node.items() if (*here, key) not in gone
        }
    if isinstance(node, list):
        before = shape.kept.get(place, list(range(len(node))))
        left = [index for index in range(len(node)) if (*here, index) not in gone]
        if len(left) != len(node) or place in shape.kept:
            kept[place] = [before[index] for index in left]
        return [_without(node[index], gone, (*here, index), (*place, before[index]), shape, kept) for index in left]
    return node


def _say(root: type[BaseModel], detail: ErrorDetails, tree: dict[str, Any], path: Path) -> str:
    """Say what is wrong in the words of the house."""
    kind = detail["type"]
    if detail["input"] == MASK:
        return "is the mask that stands for a secret; write the secret itself"
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "unknown key" + _did_you_mean(root, path, tree)
    if kind == "union_tag_not_found":
        return "`kind` is missing: one of file, dns, kubernetes"
    if kind == "union_tag_invalid":
        return f"unknown `kind` {detail['ctx']['tag']!r}: one of file, dns, kubernetes"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "must be a mapping of keys to values" + _got(detail["input"], path)
    if kind == "tuple_type":
        return "must be a list" + _got(detail["input"], path)
    context = detail.get("ctx", {})
    if kind in ("literal_error", "enum"):
        expected = str(context["expected"]).replace("'", "")
        close = difflib.get_close_matches(str(detail["input"]), expected.replace(" or ", ", ").split(", "), n=1)
        return f"must be one of {expected}" + _got(detail["input"], path) + (f"; did you mean {close[0]}?" if close else "")
    if kind == "string_pattern_mismatch":
        return f"must match {context['pattern']}" + _got(detail["input"], path)
    if kind == "string_type":
        quotes = "; put it in quotes" if isinstance(detail["input"], int | float) else ""
        return "must be a string" + _got(detail["input"], path) + quotes
    message = detail["msg"]
    message = "must be " + message.removeprefix("Input should be ") if message.startswith("Input should be ") else message
    return message[:1].lower() + message[1:] + _got(detail["input"], path)


def _got(value: Any, path: Path) -> str:
    if any(step in _SECRET_KEYS for step in path):
        return ""
    if isinstance(value, dict):
        return ", not a mapping"
    if isinstance(value, list | tuple):
        return ", not a list"
    if value is None:
        return ", not null"
    if isinstance(value, bool):
        return f", not {str(value).lower()}"
    if isinstance(value, int | float):
        return f", not {value}"
    text = str(value)
    return f", not {text if len(text) <= 40 else text[:37] + '...'!r}"


def _did_you_mean(root: type[BaseModel], path: Path, tree: dict[str, Any]) -> str:
    known = _keys_at(root, path[:-1], tree)
    close = difflib.get_close_matches(str(path[-1]), known, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f": one of {', '.join(sorted(known))}" if 0 < len(known) <= 12 else ""


def _keys_at(root: type[BaseModel], path: Path, tree: Any) -> list[str]:
    """Return the keys that the section at a path knows."""
    kinds: list[Any] = [root]
    node = tree
    for step in path:
        node = _child(node, step)
        kinds = [below for kind in kinds for below in _below(kind, step)]
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    if len(models) > 1 and isinstance(node, dict):
        models = [model for model in models if node.get("kind") in get_args(model.model_fields["kind"].annotation)]
    return [name for model in models for name in model.model_fields]


def _child(node: Any, step: str | int) -> Any:
    if isinstance(node, list):
        return node[step] if isinstance(step, int) and step < len(node) else None
    return node.get(step) if isinstance(node, dict) else None


def _below(kind: Any, step: str | int) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field_info = kind.model_fields.get(str(step))
        return _parts(field_info.annotation) if field_info is not None else []
    if get_origin(kind) is tuple:
        return _parts(get_args(kind)[0])
    if get_origin(kind) is dict:
        return _parts(get_args(kind)[1])
    return []


def _parts(annotation: Any) -> list[Any]:
    """Take unions and annotations apart."""
    if hasattr(annotation, "__metadata__"):
        return _parts(annotation.__origin__)
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return [part for kind in get_args(annotation) for part in _parts(kind)]
    return [annotation]
