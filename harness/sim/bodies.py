"""Reads request bodies, and refuses what is no JSON in the words of the parser that each engine uses."""

from __future__ import annotations

import json
from typing import Any

import orjson

from harness.sim.refusal import Refusal
from harness.sim.settings import Flavour


def read(flavour: Flavour, raw: bytes) -> dict[str, Any]:
    """Read a body.

    Raises:
        Refusal: when it is no JSON object.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        raise no_json(flavour, raw, problem) from problem
    if not isinstance(value, dict):
        detail = {"type": "model_attributes_type", "loc": ("body",), "msg": "Input should be a valid dictionary"}
        raise Refusal(400, "Bad Request", f"1 validation error:\n  {detail}", "body")
    return value


def no_json(flavour: Flavour, raw: bytes, problem: orjson.JSONDecodeError) -> Refusal:
    """Return the refusal of a body that is no JSON: vLLM and TensorRT-LLM parse with Python's json, SGLang with orjson."""
    place, words = problem.pos, problem.msg.split(":")[0]
    if flavour != "sglang":
        try:
            json.loads(raw)
        except json.JSONDecodeError as standard:
            place, words = standard.pos, standard.msg
        except ValueError as standard:
            place, words = 0, str(standard)
    detail = {"type": "json_invalid", "loc": ("body", place), "msg": "JSON decode error", "input": {}, "ctx": {"error": words}}
    match flavour:
        case "vllm":
            detail |= {"loc": f"body.{place}", "input": "<dict of 0 items>"}
            return Refusal(400, "Bad Request", f"1 validation error:\n  {detail}", f"body.{place}")
        case "sglang":
            # The real one gives its source file and line away, so the simulated one does.
            more = f'\n\n  File "simulated_http_server.py", line 1\n    POST [{detail}]'
            return Refusal(400, "Bad Request", f"1 validation error:\n  {detail}{more}", None)
        case "trtllm":
            return Refusal(400, "Bad Request", f"[{detail}]", None)
