"""Finds out whether a worker can serve, and what it is: the full probe when it joins, and the short look at one that serves.

The full probe, in order.

1. `/v1/models` and the health route, at once. The engine is the configured one, else whom `/v1/models` names as owner, else
   whom the `server` header names, else (only where no owner is named) who has the routes of that engine.
2. Healthy is: the configured health path answers 2xx. Without one, `/health` of a known engine does. Of any other server
   `/health` may be missing; then `/v1/models` decides, and if models are configured any answer of it below 500 will do.
3. Version, context length and the cheap route are asked last, and their absence is no failure.

The short look asks one route. SGLang's `/health` sends a request of one token through the scheduler: it takes a slot and a
step of a loaded engine. `/v1/loads` also needs the scheduler to answer, and computes nothing; so a worker in good health is
asked that, and the real `/health` every few looks and whenever there is doubt (health.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from gateway.config.env import worker_api_key
from gateway.config.model import Engine, HealthConfig, WorkerConfig
from gateway.errors import ConfigError
from gateway.transports.target import target_of
from gateway.workers import identify
from gateway.workers.ask import Reply, Round
from gateway.workers.state import ModelInfo

EXTRA_TIMEOUT_S: Final = 2.0
"""Limit on the questions whose answers are only nice to have."""
MODELS: Final = "/v1/models"
HEALTH: Final = "/health"
SGLANG_CHEAP: Final = "/v1/loads"


@dataclass(frozen=True, slots=True)
class Found:
    """What a worker is."""

    engine: Engine
    version: str
    models: tuple[ModelInfo, ...]
    full_path: str
    """The route that says most about its health."""
    cheap_path: str
    """The route for most looks; often the same."""
    below_500: bool = False
    """It has no health route: any answer below 500 shows that it is there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a probe or a look."""

    ok: bool
    reason: str = ""
    """Why it is not ok, in words for an operator."""
    refused: bool = False
    """It takes no connections."""
    found: Found | None = None
    """After a full probe that went well."""


def round_to(spec: WorkerConfig, health: HealthConfig) -> Round | Outcome:
    """Begin a round of questions to a worker, or say why its settings allow none."""
    try:
        target = target_of(spec.url, ca_file=spec.ca_file, verify_tls=spec.verify_tls)
    except ConfigError as error:
        return Outcome(False, error.message)
    return Round(target, worker_api_key(spec), health.timeout_s)


async def join(spec: WorkerConfig, health: HealthConfig) -> Outcome:
    """Probe a worker in full."""
    asking = round_to(spec, health)
    if isinstance(asking, Outcome):
        return asking
    async with asking as one:
        full_path = health.path or HEALTH
        models, alive = await asyncio.gather(one.get(MODELS), one.get(full_path))
        if not models.status and not alive.status:
            return Outcome(False, alive.problem or models.problem, refused=models.refused and alive.refused)
        engine = spec.engine or await _engine(one, models, alive)
        below_500 = False
        if health.path is None and engine is Engine.OPENAI and 300 <= alive.status < 500 and not alive.problem:
            full_path, alive = MODELS, models
            below_500 = bool(spec.models)
        reason = _sick(full_path, alive, below_500) or _locked(models, spec)
        if reason:
            return Outcome(False, reason)
        return Outcome(True, found=await _describe(one, spec, engine, models, full_path, below_500))


async def look(spec: WorkerConfig, health: HealthConfig, path: str, below_500: bool = False) -> Outcome:
    """Ask one route of a worker whether it is well."""
    asking = round_to(spec, health)
    if isinstance(asking, Outcome):
        return asking
    async with asking as one:
        reply = await one.get(path)
    reason = _sick(path, reply, below_500)
    return Outcome(not reason, reason, refused=reply.refused)


async def list_models(spec: WorkerConfig, health: HealthConfig) -> tuple[ModelInfo, ...] | None:
    """Ask a worker that serves for its models again, for adapters that were loaded meanwhile; None if it does not say."""
    asking = round_to(spec, health)
    if isinstance(asking, Outcome):
        return None
    async with asking as one:
        value = (await one.get(MODELS)).json()
    if not identify.is_list(value):
        return None
    listed = identify.models(value)
    return identify.named(spec.models, listed) if spec.models else listed


async def _engine(one: Round, models: Reply, alive: Reply) -> Engine:
    value = models.json()
    known = identify.engine_of_models(value) or identify.engine_of_server(models.server or alive.server)
    if known is not None:
        return known
    if identify.names_owner(value):
        return Engine.OPENAI
    paths = ("/server_info", "/props", "/version", "/load")
    replies = await asyncio.gather(*(one.get(path, EXTRA_TIMEOUT_S) for path in paths))
    return identify.engine_of_answers(*(reply.json() for reply in replies)) or Engine.OPENAI


async def _describe(one: Round, spec: WorkerConfig, engine: Engine, models: Reply, full_path: str, below_500: bool) -> Found:
    listed = identify.models(models.json())
    version, context, cheap_path = "", None, full_path
    match engine:
        case Engine.VLLM | Engine.TRTLLM:
            version = identify.version_in((await one.get("/version", EXTRA_TIMEOUT_S)).json())
        case Engine.SGLANG:
            loads, info = await asyncio.gather(one.get(SGLANG_CHEAP, EXTRA_TIMEOUT_S), one.get("/server_info", EXTRA_TIMEOUT_S))
            version = identify.version_in(loads.json()) or identify.version_in(info.json())
            context = identify.context_in(info.json())
            if loads.ok and full_path == HEALTH:
                cheap_path = SGLANG_CHEAP
        case Engine.LLAMACPP:
            props = (await one.get("/props", EXTRA_TIMEOUT_S)).json()
            version, context = identify.version_in(props), identify.context_in(props)
        case Engine.OPENAI:
            pass
    serves = identify.named(spec.models, listed) if spec.models else listed
    return Found(engine, version, identify.with_context(serves, context), full_path, cheap_path, below_500)


def _sick(path: str, reply: Reply, below_500: bool) -> str:
    """Say why an answer does not show good health; empty if it does."""
    if reply.problem:
        return reply.problem
    if reply.ok or (below_500 and reply.status < 500):
        return ""
    return f"{path} answered {reply.status}"


def _locked(models: Reply, spec: WorkerConfig) -> str:
    """Say why nobody could use it although it is well: it does not tell its models, and nobody told us."""
    if spec.models:
        return ""
    if models.problem:
        return models.problem
    if models.status in (401, 403):
        return f"{MODELS} answered {models.status}: " + (
            "the worker refuses the api_key that it was given" if worker_api_key(spec) is not None else "give the worker its api_key"
        )
    return ""
