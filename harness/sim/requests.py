"""From a request body to a `Job`: validation as the engine does it, the prompt, and the answer it will get.

`build` raises `Refusal` for what the engine would refuse; the dialect turns it into the engine's error body.
"""

from __future__ import annotations

import random
import time
import uuid
import zlib
from typing import Any

import orjson

from harness.sim import fields, prompts, schema, text, tokens
from harness.sim.job import Answer, Api, Job, Part, Token, Tool
from harness.sim.refusal import Refusal
from harness.sim.scheduler import Sequence
from harness.sim.settings import SimSettings

MAX_CHOICES = 128


def build(settings: SimSettings, api: Api, body: dict[str, Any], request_id: str | None) -> Job:
    """Make the job of a request.

    Raises:
        Refusal: when the engine would answer 4xx.
    """
    fields.check(api, body)
    model = _model(settings, api, body)
    plans = prompts.read(api, body)
    limit = _limit(settings, api, body)
    count = _count(body, api)
    job = Job(
        api=api,
        body=body,
        id=uuid.uuid4().hex,
        client_id=request_id,
        created_s=int(time.time()),
        model=model,
        stream=bool(body.get("stream")),
        include_usage=bool(
            (body.get("stream_options") or {}).get("include_usage", settings.flavour == "trtllm" and "stream_options" in body)
        ),
        logprobs=_logprobs(api, body),
        prompt_text=plans.prompts[0],
        prompt_tokens=0,
        answers=[],
        named_tool=plans.named,
        tools=plans.tools,
        max_tokens=limit,
        wall_s=time.time(),
    )
    for prompt in plans.prompts:
        prompt_tokens = tokens.split(prompt) or [b" "]
        job.prompt_tokens += len(prompt_tokens)
        _check_length(settings, len(prompt_tokens), limit)
        for _ in range(count):
            asked = text.echoed(plans.last_user if len(plans.prompts) == 1 else prompt)
            job.answers.append(_answer(settings, body, plans, prompt_tokens, asked, len(job.answers), limit, model))
    return job


def served(settings: SimSettings, body: dict[str, Any]) -> None:
    """Check the model name as the engine does: vLLM knows its names, the others answer to any.

    Raises:
        Refusal: when the engine would answer 404.
    """
    model = body.get("model")
    if settings.flavour == "vllm" and model is not None and not (isinstance(model, str) and settings.knows(model)):
        message = f"The model `{model}` does not exist. Valid aliases: {', '.join(settings.names)}."
        raise Refusal(404, "NotFoundError", message, "model")


def _model(settings: SimSettings, api: Api, body: dict[str, Any]) -> str:
    model = body.get("model")
    if model is None:
        if api is Api.MESSAGES or (settings.flavour == "trtllm" and api is not Api.GENERATE):
            raise Refusal.missing("model")
        return settings.model
    if not isinstance(model, str):
        raise Refusal.invalid("model", "Input should be a valid string")
    served(settings, body)
    return model


def _limit(settings: SimSettings, api: Api, body: dict[str, Any]) -> int | None:
    match api:
        case Api.CHAT:
            name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
            value = body.get(name)
        case Api.RESPONSES:
            name = "max_output_tokens"
            value = body.get(name)
        case Api.GENERATE:
            name = "max_new_tokens"
            value = (body.get("sampling_params") or {}).get(name, 128)
        case Api.COMPLETIONS | Api.POOL:
            name = "max_tokens"
            value = body.get(name, 16)
        case Api.MESSAGES:
            name = "max_tokens"
            value = body.get(name)
            if value is None:
                raise Refusal.missing(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Refusal(400, "BadRequestError", f"{name} must be at least 1, got {value}. (parameter={name}, value={value})", name)
    if value > settings.max_model_len:
        if settings.flavour == "sglang":
            message = f"max_completion_tokens is too large: {value}.This model supports at most {settings.max_model_len} completion tokens."
            raise Refusal(400, "BadRequestError", message, None)
        message = (
            f"{name}={value} cannot be greater than max_model_len={settings.max_model_len}. "
            f"Please request fewer output tokens. (parameter={name}, value={value})"
        )
        raise Refusal(400, "BadRequestError", message, name)
    return value


def _check_length(settings: SimSettings, prompt_tokens: int, limit: int | None) -> None:
    room = settings.room_tokens - prompt_tokens
    if room >= (limit or 1):
        return
    if settings.flavour == "sglang":
        if room < 1:
            message = f"The input ({prompt_tokens} tokens) is longer than the model's context length ({settings.max_model_len} tokens)."
        else:
            message = (
                f"Requested token count exceeds the model's maximum context length of {settings.max_model_len} tokens. You requested "
                f"a total of {prompt_tokens + (limit or 1)} tokens: {prompt_tokens} tokens from the input messages and {limit} tokens "
                "for the completion. Please reduce the number of tokens in the input messages or the completion to fit within the limit."
            )
        raise Refusal(400, "BadRequestError", message, None)
    message = (
        f"This model's maximum context length is {settings.max_model_len} tokens. However, you requested {limit or 1} output tokens and "
        f"your prompt contains {prompt_tokens} input tokens, for a total of {prompt_tokens + (limit or 1)} tokens. Please reduce the "
        f"length of the input prompt or the number of requested output tokens. (parameter=input_tokens, value={prompt_tokens})"
    )
    raise Refusal(400, "BadRequestError", message, "input_tokens")


def _count(body: dict[str, Any], api: Api) -> int:
    source = (body.get("sampling_params") or {}) if api is Api.GENERATE else body
    count = source.get("n") or 1
    if not isinstance(count, int) or not 1 <= count <= MAX_CHOICES:
        raise Refusal(400, "BadRequestError", f"n must be at least 1 and at most {MAX_CHOICES}, got {count}.", "n")
    return count


def _logprobs(api: Api, body: dict[str, Any]) -> int | None:
    if api is Api.CHAT:
        return int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
    if api is Api.COMPLETIONS:
        value = body.get("logprobs")
        return None if value is None or value is False else int(value)
    return None


def _stops(body: dict[str, Any]) -> list[str]:
    value = body.get("stop") or body.get("stop_sequences") or (body.get("sampling_params") or {}).get("stop") or []
    return [value] if isinstance(value, str) else [stop for stop in value if isinstance(stop, str) and stop]


def _answer(
    settings: SimSettings,
    body: dict[str, Any],
    plans: prompts.Plan,
    prompt: list[bytes],
    asked: str | None,
    index: int,
    limit: int | None,
    model: str,
) -> Answer:
    sampling = body.get("sampling_params") or {}
    key = zlib.crc32(b"\x00".join(prompt)) if body.get("seed") is None else body["seed"] & 0xFFFFFFFF
    rng = random.Random((settings.seed << 40) ^ (key << 8) ^ index)
    stop_match: str | None = None
    finish = "stop"
    if plans.calls:
        said = _call_tokens(plans.calls)
        finish = "tool_calls"
    elif plans.schema is not None:
        said = _texts(tokens.pieces(_instance(plans.schema)))
    else:
        if asked:
            words = tokens.pieces(asked)
        else:
            length = text.natural_length_tokens(rng, settings.output_tokens)
            least = max(body.get("min_tokens") or 0, sampling.get("min_new_tokens") or 0)
            if body.get("ignore_eos") or sampling.get("ignore_eos"):
                least = limit or settings.room_tokens
            length = max(length, least)
            if limit is not None:
                length = min(length, limit + 1)
            words = text.compose(settings.flavour, rng, min(length, settings.room_tokens - len(prompt)))
        words, stop_match = _stopped(words, _stops(body))
        said = _texts(words)
    room = settings.room_tokens - len(prompt) if limit is None else limit
    cut = False
    ignoring = bool(body.get("ignore_eos") or sampling.get("ignore_eos"))
    if len(said) > room or (ignoring and stop_match is None and not plans.calls and len(said) == room):
        said, finish, stop_match, cut = said[:room], "length", None, bool(plans.calls)
    said = said or [Token(Part.TEXT, "")]
    salt = model if model in settings.loras else ""
    sequence = Sequence(prompt, [token.text.encode("utf-8", "replace") for token in said], salt)
    return Answer(index, said, finish, stop_match, sequence, cut)


def _texts(words: list[str]) -> list[Token]:
    return [Token(Part.TEXT, word) for word in words]


def _call_tokens(calls: tuple[Tool, ...]) -> list[Token]:
    said: list[Token] = []
    for place, tool in enumerate(calls):
        said.append(Token(Part.CALL, tool.name, place))
        arguments = _instance(tool.schema if tool.schema else {"type": "object", "properties": {}})
        said.extend(Token(Part.ARGUMENTS, piece, place) for piece in tokens.pieces(arguments))
    return said


def _instance(wanted: Any) -> str:
    """Return JSON that a schema accepts; one that is no schema is refused, as the engines' grammar compilers do."""
    try:
        return orjson.dumps(schema.instance(wanted)).decode()
    except (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError) as problem:
        raise Refusal(400, "BadRequestError", f"The JSON schema is invalid: {problem}", "response_format") from problem


def _stopped(words: list[str], stops: list[str]) -> tuple[list[str], str | None]:
    if not stops:
        return words, None
    whole = "".join(words)
    found = [(place, stop) for stop in stops if (place := whole.find(stop)) >= 0]
    if not found:
        return words, None
    place, stop = min(found)
    return tokens.pieces(whole[:place]), stop
