"""What may be changed of a worker by hand."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.model import HealthConfig, WorkerConfig
from gateway.errors import ClientError, Code, ConfigError
from gateway.workers import changes

SPEC = WorkerConfig(url="http://w:1", api_key="old", labels={"a": "b"}, models=("m",))
GATEWAY = HealthConfig(interval_s=9)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"priority": 3}, {"priority": 3}),
        ({"cost": 2}, {"cost": 2.0}),
        ({"labels": {"x": "y"}}, {"labels": {"x": "y"}}),
        ({"health": {"timeout_s": 2}}, {"health": HealthConfig(interval_s=9, timeout_s=2)}),
        ({}, {}),
    ],
)
def test_a_patch_changes_what_it_names(patch: dict[str, Any], expected: dict[str, Any]) -> None:
    """The rest stays, secrets included; keys of health start from the gateway's."""
    assert changes.patched(SPEC, patch, GATEWAY) == SPEC.model_copy(update=expected)


def test_a_key_can_be_replaced_and_taken_away() -> None:
    """A string is the new key, null is none."""
    new = changes.patched(SPEC, {"api_key": "new"}, GATEWAY).api_key
    assert new is not None
    assert new.get_secret_value() == "new"
    assert changes.patched(SPEC, {"api_key": None}, GATEWAY).api_key is None


@pytest.mark.parametrize(
    ("patch", "param"),
    [
        ({"url": "http://x:1"}, "url"),
        ({"engine": "vllm"}, "engine"),
        ({"cost": -1}, "cost"),
        ({"cost": "much"}, "cost"),
        ({"labels": [1]}, "labels"),
        ({"health": {"interval": 1}}, "health.interval"),
        ({"health": {"interval_s": 0}}, "health.interval_s"),
        ({"api_key": "two words"}, "api_key"),
    ],
)
def test_a_wrong_patch_names_its_key(patch: dict[str, Any], param: str) -> None:
    """A client learns which key is at fault."""
    with pytest.raises(ClientError) as caught:
        changes.patched(SPEC, patch, GATEWAY)
    assert (caught.value.code, caught.value.param) == (Code.INVALID_REQUEST, param)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("grpc://w:1", Code.UNSUPPORTED_FEATURE),
        ("ftp://w:1", Code.INVALID_REQUEST),
        ("w:1", Code.INVALID_REQUEST),
        ("http://user:secret@w:1", Code.INVALID_REQUEST),
        ("http://w:1/v1", Code.INVALID_REQUEST),
        ("", Code.INVALID_REQUEST),
    ],
)
def test_urls_that_are_refused(url: str, code: Code) -> None:
    """A URL that cannot be used is refused, without showing a password in it."""
    with pytest.raises(ClientError) as caught:
        changes.check(WorkerConfig(url=url))
    assert (caught.value.code, caught.value.param) == (code, "url")
    assert "secret" not in caught.value.message


def test_grpc_workers_of_a_configuration_are_named() -> None:
    """A gateway that cannot serve a worker says so at its start."""
    with pytest.raises(ConfigError, match=r"workers\[1\].url: grpc workers are not served by this version; use http://"):
        changes.check_config([SPEC, WorkerConfig(url="grpc://w:1")])
