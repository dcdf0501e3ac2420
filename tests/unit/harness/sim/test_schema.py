"""Instances of JSON schemas, judged by jsonschema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sim import schema

TREE = {
    "$defs": {
        "node": {"type": "object", "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    },
    "$ref": "#/$defs/node",
}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer", "exclusiveMinimum": 4}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"]},
    {"type": "array", "items": {"type": "string", "minLength": 12}, "minItems": 3},
    {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}], "minItems": 2},
    {"anyOf": [{"type": "number", "minimum": -7, "maximum": -5}, {"type": "string"}]},
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
            {"properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ]
    },
    {"type": ["string", "null"], "maxLength": 3},
    {"type": "string", "format": "date-time"},
    {"type": "integer", "minimum": 10, "multipleOf": 7},
    TREE,
    {},
]
LEAF = st.one_of(
    st.builds(lambda low: {"type": "integer", "minimum": low}, st.integers(-50, 50)),
    st.builds(lambda low: {"type": "string", "minLength": low}, st.integers(0, 30)),
    st.builds(lambda values: {"enum": values}, st.lists(st.integers(), min_size=1, max_size=3)),
    st.just({"type": "boolean"}),
)
NESTED = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)},
            st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
        ),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("wanted", SCHEMAS, ids=range(len(SCHEMAS)))
def test_instances_fit(wanted: dict[str, Any]) -> None:
    """The instance of a schema is accepted by it."""
    jsonschema.validate(schema.instance(wanted), wanted)


@given(NESTED)
@settings(deadline=None)
def test_instances_of_any_schema_fit(wanted: dict[str, Any]) -> None:
    """So is that of any schema made of the parts that are known."""
    jsonschema.validate(schema.instance(wanted), wanted)


def test_sizes_are_bounded() -> None:
    """A schema that asks for millions gets thousands."""
    assert len(schema.instance({"type": "array", "minItems": 10**9})) == schema.MAX_SIZE
    assert len(schema.instance({"type": "string", "minLength": 10**9})) == schema.MAX_SIZE
