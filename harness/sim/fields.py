"""The types of request fields, as far as the engines check them before anything else."""

from __future__ import annotations

from typing import Any

from harness.sim.job import Api
from harness.sim.refusal import Refusal

OBJECTS = ("stream_options", "response_format", "structured_outputs", "sampling_params")
OBJECTS_OF = {Api.RESPONSES: ("text", "reasoning"), Api.MESSAGES: ("tool_choice",)}
WHOLE = ("n", "seed", "top_logprobs", "min_tokens", "max_tokens", "max_completion_tokens", "max_output_tokens")
WHOLE_SAMPLING = ("n", "min_new_tokens", "max_new_tokens")
NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
INTEGER = "Input should be a valid integer"
MAX_SEED = 2**63 - 1


def check(api: Api, body: dict[str, Any]) -> None:
    """Check the fields that are there.

    Raises:
        Refusal: when one is of a wrong type.
    """
    for name in (*OBJECTS, *OBJECTS_OF.get(api, ())):
        _of(body, name, dict, "Input should be a valid dictionary")
    for name in WHOLE:
        _of(body, name, int, INTEGER)
    for name in WHOLE_SAMPLING:
        _of(body.get("sampling_params") or {}, name, int, INTEGER)
    for name in NUMBERS:
        _of(body, name, (int, float), "Input should be a valid number")
    _of(body, "tools", list, "Input should be a valid list")
    _of(body, "tool_choice", (str, dict), "Input should be a valid string or dictionary")
    for source in (body, body.get("sampling_params") or {}):
        for name in ("stop", "stop_sequences"):
            _of(source, name, (str, list), "Input should be a valid string or list")
    if api is Api.COMPLETIONS:
        _of(body, "logprobs", int, INTEGER)
    _nested(body.get("response_format"), "json_schema")
    _nested(body.get("tool_choice"), "function")
    if api is Api.RESPONSES:
        _nested(body.get("text"), "format")
    seed = body.get("seed")
    if seed is not None and not -MAX_SEED - 1 <= seed <= MAX_SEED:
        raise Refusal.invalid("seed", "Input should be a 64-bit integer")


def _of(source: dict[str, Any], name: str, kinds: type | tuple[type, ...], problem: str) -> None:
    value = source.get(name)
    if value is None or (isinstance(value, kinds) and not (isinstance(value, bool) and kinds is int)):
        return
    raise Refusal.invalid(name, problem)


def _nested(outer: Any, name: str) -> None:
    if isinstance(outer, dict):
        _of(outer, name, dict, "Input should be a valid dictionary")
