from typing import Any

import jsonschema
import pytest
import yaml

from gateway.config.model import GatewayConfig
from gateway.config.schema import json_schema


def errors(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(json_schema())
    return [error.json_path for error in validator.iter_errors(yaml.safe_load(text))]


def test_it_is_a_schema() -> None:
    """The meta schema accepts it."""
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "workers: [{url: 'http://a', labels: {x: y}, health: {path: /h}}]",
        "discovery: [{kind: dns, name: n, port: 1, worker: {cost: 2}}, {kind: file, path: x}]",
        "admission: {tenants: {a: {tokens_per_minute: 3}}}",
    ],
)
def test_it_takes_what_the_gateway_takes(text: str) -> None:
    """A right configuration has no errors in an editor."""
    GatewayConfig.model_validate(yaml.safe_load(text))
    assert errors(text) == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("servr: {}", "$"),
        ("server: {port: 70000}", "$.server.port"),
        ("workers: [{url: 'http://a', priorty: 1}]", "$.workers[0]"),
        ("routing: {policy: fast}", "$.routing.policy"),
        ("discovery: [{kind: dns, name: n, worker: {prority: 1}}]", "$.discovery[0]"),
    ],
)
def test_it_refuses_what_the_gateway_refuses(text: str, path: str) -> None:
    """A wrong configuration is underlined where it is wrong."""
    assert errors(text) == [path]


def test_every_section_says_what_it_is() -> None:
    """Editors show a description for each section, and for every key that has a docstring."""

    def described(node: dict[str, Any]) -> bool:
        return bool(node.get("description"))

    schema = json_schema()
    assert all(described(section) for section in schema["$defs"].values())
    assert described(schema["$defs"]["ServerConfig"]["properties"]["max_body_bytes"])
    assert schema["$defs"]["ServerConfig"]["properties"]["port"]["default"] == 30_000
