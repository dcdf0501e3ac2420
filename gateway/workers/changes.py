"""Checks what somebody asks of a worker by hand: settings to add or replace, and a patch of some of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway.config.env import environment
from gateway.config.mistake import Path, dotted
from gateway.config.model import HealthConfig, WorkerConfig
from gateway.config.shape import check_template
from gateway.config.validate import worker_mistakes
from gateway.errors import ClientError, Code, ConfigError

PATCHABLE: Final = ("priority", "cost", "labels", "api_key", "health")
NO_GRPC: Final = "grpc workers are not served by this version; use http://"


def check(spec: WorkerConfig) -> None:
    """Refuse settings that no worker can have.

    Raises:
        ClientError: `invalid_request`, or `unsupported_feature` for gRPC; `param` names the key.
    """
    _refuse(worker_mistakes(spec, environment()))
    if is_grpc(spec):
        raise ClientError(Code.UNSUPPORTED_FEATURE, NO_GRPC, param="url")


def check_config(specs: Iterable[WorkerConfig]) -> None:
    """Refuse the workers of a configuration if one of them cannot be used.

    Raises:
        ConfigError: naming every such worker.
    """
    problems = tuple(f"workers[{index}].url: {NO_GRPC}" for index, spec in enumerate(specs) if is_grpc(spec))
    if problems:
        raise ConfigError("; ".join(problems), problems)


def is_grpc(spec: WorkerConfig) -> bool:
    """Tell whether a worker is to be reached over gRPC."""
    return spec.url.lower().startswith("grpc://")


def patched(spec: WorkerConfig, patch: dict[str, Any], inherited: HealthConfig) -> WorkerConfig:
    """Return settings with a patch applied. Keys of `health` change one by one, from the gateway's where it has no own.

    Raises:
        ClientError: `invalid_request`, with `param`: a key that cannot be patched, or a wrong value.
    """
    for key in patch:
        if key not in PATCHABLE:
            raise ClientError(Code.INVALID_REQUEST, f"`{key}` cannot be patched: only {', '.join(PATCHABLE)} can", param=key)
    merged = {**spec.model_dump(exclude={"url"}), **patch}
    if isinstance(patch.get("health"), dict):
        merged["health"] = {**(spec.health or inherited).model_dump(), **patch["health"]}
    if patch.get("api_key") is not None:
        merged["api_key_env"] = None
    worker, wrong = check_template(merged)
    _refuse(wrong)
    assert worker is not None
    result = worker.model_copy(update={"url": spec.url})
    check(result)
    return result


def _refuse(wrong: Iterable[tuple[Path, str]]) -> None:
    for path, message in wrong:
        raise ClientError(Code.INVALID_REQUEST, f"{dotted(path)}: {message}", param=dotted(path))
