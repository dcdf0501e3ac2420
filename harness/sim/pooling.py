"""Embeddings and rerank scores: made from the tokens of the text, so that like texts get like vectors.

A vector is the normalised sum of one pseudo-random direction for each different token; a score is the cosine of two vectors,
brought into (0, 1). Same text, same numbers, in every process.
"""

from __future__ import annotations

import base64
import math
import struct
import time
import uuid
import zlib
from typing import Any

from harness.sim import tokens
from harness.sim.job import Answer, Api, Job, Part, Token
from harness.sim.refusal import Refusal
from harness.sim.scheduler import Sequence
from harness.sim.settings import SimSettings

DIMENSIONS = 64
MAX_DIMENSIONS = 4096
MAX_TEXTS = 2048


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return the embedding of a text, of length 1."""
    total = [0.0] * dimensions
    for token in set(tokens.split(text)) or {b" "}:
        state = zlib.crc32(token)
        for place in range(dimensions):
            state = (state * 1_103_515_245 + 12_345) & 0xFFFFFFFF
            total[place] += (state >> 8) / (1 << 23) - 1.0
    norm = math.sqrt(sum(value * value for value in total)) or 1.0
    return [value / norm for value in total]


def score(query: str, document: str) -> float:
    """Return how well a document fits a query, in (0, 1)."""
    cosine = sum(a * b for a, b in zip(vector(query), vector(document), strict=True))
    return 1.0 / (1.0 + math.exp(-4.0 * cosine))


def job(settings: SimSettings, body: dict[str, Any], texts: list[str]) -> Job:
    """Make the job that computes some texts: prefill alone.

    Raises:
        Refusal: when a text does not fit the context.
    """
    made = Job(
        api=Api.POOL,
        body=body,
        id=uuid.uuid4().hex,
        client_id=None,
        created_s=int(time.time()),
        model=body.get("model") or settings.model,
        stream=False,
        include_usage=False,
        logprobs=None,
        prompt_text=texts[0],
        prompt_tokens=0,
        answers=[],
        wall_s=time.time(),
    )
    for text in texts:
        prompt = tokens.split(text) or [b" "]
        if len(prompt) > settings.room_tokens:
            message = (
                f"This model's maximum context length is {settings.max_model_len} tokens. However, your prompt contains "
                f"{len(prompt)} input tokens. Please reduce the length of the input prompt."
            )
            raise Refusal(400, "BadRequestError", message, "input_tokens")
        made.prompt_tokens += len(prompt)
        made.answers.append(Answer(len(made.answers), [Token(Part.TEXT, "")], "stop", None, Sequence(prompt, [b""])))
    return made


def inputs(body: dict[str, Any]) -> list[str]:
    """Read the texts of an embeddings request.

    Raises:
        Refusal: when there is none or it is of a wrong type.
    """
    value = body.get("input")
    if value is None:
        raise Refusal.missing("input")
    found = tokens.texts(value)
    if found is not None and len(found) <= MAX_TEXTS:
        return found
    raise Refusal.invalid("input", "Input should be a valid string or list")


def embeddings(settings: SimSettings, made: Job, texts: list[str]) -> dict[str, Any]:
    """Return an embeddings answer, in the engine's fields."""
    body = made.body
    dimensions = body.get("dimensions") or DIMENSIONS
    data = []
    for place, text in enumerate(texts):
        values: Any = vector(text, dimensions)
        if body.get("encoding_format") == "base64":
            values = base64.b64encode(struct.pack(f"<{dimensions}f", *values)).decode()
        item = {"index": place, "object": "embedding", "embedding": values}
        data.append(item if settings.flavour == "vllm" else {"embedding": values, "index": place, "object": "embedding"})
    if settings.flavour == "vllm":
        usage = {"prompt_tokens": made.prompt_tokens, "total_tokens": made.prompt_tokens, "completion_tokens": 0}
        head = {"id": f"embd-{made.id[:16]}", "object": "list", "created": made.created_s, "model": made.model}
        return {**head, "data": data, "usage": usage | {"prompt_tokens_details": None}}
    usage = {"prompt_tokens": made.prompt_tokens, "total_tokens": made.prompt_tokens, "completion_tokens": 0}
    more = {"prompt_tokens_details": None, "reasoning_tokens": 0, "completion_tokens_details": None}
    return {"data": data, "model": made.model, "object": "list", "usage": {**usage, **more}}


def check_dimensions(body: dict[str, Any]) -> None:
    """Refuse a wish for dimensions that no vector could have.

    Raises:
        Refusal: when it is no number from 1 to 4096.
    """
    value = body.get("dimensions")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_DIMENSIONS):
        raise Refusal(400, "BadRequestError", f"dimensions must be from 1 to {MAX_DIMENSIONS}, got {value}.", "dimensions")


def documents(body: dict[str, Any]) -> tuple[str, list[str]]:
    """Read query and documents of a rerank request.

    Raises:
        Refusal: when one lacks or is of a wrong type.
    """
    query, found = body.get("query"), body.get("documents")
    for name, value in (("query", query), ("documents", found)):
        if value is None:
            raise Refusal.missing(name)
    if not isinstance(query, str):
        raise Refusal.invalid("query", "Input should be a valid string")
    if not isinstance(found, list) or not 0 < len(found) <= MAX_TEXTS:
        raise Refusal.invalid("documents", "Input should be a valid list")
    texts = [item if isinstance(item, str) else str(item.get("text", "")) if isinstance(item, dict) else "" for item in found]
    return query, texts


def rerank(settings: SimSettings, made: Job, query: str, texts: list[str]) -> Any:
    """Return a rerank answer, best document first: an object in vLLM, a bare list in SGLang."""
    ranked = sorted(((score(query, text), place) for place, text in enumerate(texts)), key=lambda found: (-found[0], found[1]))
    top = made.body.get("top_n")
    if isinstance(top, int) and top > 0:
        ranked = ranked[:top]
    if settings.flavour == "vllm":
        results = [
            {"index": place, "document": {"text": texts[place], "multi_modal": None}, "relevance_score": value} for value, place in ranked
        ]
        usage = {"prompt_tokens": made.prompt_tokens, "total_tokens": made.prompt_tokens}
        return {"id": f"rerank-{made.id[:16]}", "model": made.model, "usage": usage, "results": results}
    keep = made.body.get("return_documents", True)
    return [
        {
            "score": value,
            "document": texts[place] if keep else None,
            "index": place,
            "meta_info": {"id": made.id, "prompt_tokens": len(made.answers[place].sequence.prompt)},
        }
        for value, place in ranked
    ]
