"""Reads what a server says about itself: which engine it is, its models, its version. Values in, values out, never an error.

Everything here takes any JSON value, however odd, and says what can be learnt from it; what cannot is left out.
"""

from __future__ import annotations

from typing import Final

from gateway.config.model import Engine
from gateway.workers.state import ModelInfo

MAX_MODELS: Final = 1024
"""Models of one worker; vLLM serves a few hundred adapters at most, API vendors list about as many models."""
MAX_NAME_CHARS: Final = 256
MAX_VERSION_CHARS: Final = 64
MAX_CONTEXT_TOKENS: Final = 1 << 40

_OWNERS: Final = {
    "vllm": Engine.VLLM,
    "sglang": Engine.SGLANG,
    "tensorrt_llm": Engine.TRTLLM,
    "llamacpp": Engine.LLAMACPP,
}
"""`owned_by` in `/v1/models` -> engine. Each engine writes its own name there."""
_CONTEXT_KEYS: Final = ("max_model_len", "context_length", "context_window", "max_context_length")


def is_list(value: object) -> bool:
    """Tell whether an answer of `/v1/models` is a list of models, be it an empty one."""
    return isinstance(value, dict) and isinstance(value.get("data"), list)


def models(value: object) -> tuple[ModelInfo, ...]:
    """Return the models of an answer of `/v1/models`, adapters with their parent and its context length."""
    found: dict[str, ModelInfo] = {}
    for card in _cards(value):
        name = card.get("id")
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
            continue
        parent = card.get("parent")
        if not isinstance(parent, str) or parent == name or not 0 < len(parent) <= MAX_NAME_CHARS:
            parent = None
        found.setdefault(name, ModelInfo(name=name, context_length=_context(card), parent=parent))
        if len(found) == MAX_MODELS:
            break
    return tuple(_inherit(model, found) for model in found.values())


def engine_of_models(value: object) -> Engine | None:
    """Return the engine that `/v1/models` names as the owner of a model."""
    for card in _cards(value):
        owner = card.get("owned_by")
        if isinstance(owner, str) and owner.lower() in _OWNERS:
            return _OWNERS[owner.lower()]
    return None


def names_owner(value: object) -> bool:
    """Tell whether `/v1/models` names an owner at all; a server that does and is none of the engines is some other one."""
    return any(isinstance(card.get("owned_by"), str) for card in _cards(value))


def engine_of_server(header: str) -> Engine | None:
    """Return the engine that a `server` header names; only llama.cpp has one of its own."""
    return Engine.LLAMACPP if header.lower().startswith("llama.cpp") else None


def engine_of_answers(server_info: object, props: object, version: object, load: object) -> Engine | None:
    """Return the engine by the routes that it alone has.

    Args:
        server_info: the answer of `/server_info`, which SGLang has (TensorRT-LLM's has no model in it).
        props: of `/props`, which llama.cpp has.
        version: of `/version`, which vLLM and TensorRT-LLM have, and others too.
        load: of `/load`, which tells vLLM from those.
    """
    if isinstance(server_info, dict) and isinstance(server_info.get("model_path"), str):
        return Engine.SGLANG
    if isinstance(props, dict) and "default_generation_settings" in props:
        return Engine.LLAMACPP
    if version_in(version) and isinstance(load, dict) and "server_load" in load:
        return Engine.VLLM
    return None


def version_in(value: object) -> str:
    """Return the version in an answer: `version`, or llama.cpp's `build_info`; empty where there is none."""
    if isinstance(value, dict):
        for key in ("version", "build_info"):
            text = value.get(key)
            if isinstance(text, str) and text.isprintable():
                return text[:MAX_VERSION_CHARS]
    return ""


def context_in(value: object) -> int | None:
    """Return the context length in SGLang's `/server_info` or llama.cpp's `/props`."""
    if not isinstance(value, dict):
        return None
    settings = value.get("default_generation_settings")
    return _context(value) or (_tokens(settings.get("n_ctx")) if isinstance(settings, dict) else None)


def named(names: tuple[str, ...], listed: tuple[ModelInfo, ...]) -> tuple[ModelInfo, ...]:
    """Return the models that the configuration names, with what the server says of those that it lists too."""
    known = {model.name: model for model in listed}
    return tuple(known.get(name) or ModelInfo(name=name) for name in dict.fromkeys(names))


def with_context(found: tuple[ModelInfo, ...], context_length: int | None) -> tuple[ModelInfo, ...]:
    """Give models whose context length is not known the server's."""
    if context_length is None:
        return found
    return tuple(
        model if model.context_length is not None else ModelInfo(name=model.name, context_length=context_length, parent=model.parent)
        for model in found
    )


def _cards(value: object) -> list[dict[str, object]]:
    cards = value.get("data") if isinstance(value, dict) else None
    return [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []


def _context(card: dict[str, object]) -> int | None:
    for key in _CONTEXT_KEYS:
        if (tokens := _tokens(card.get(key))) is not None:
            return tokens
    meta = card.get("meta")
    if isinstance(meta, dict):  # llama.cpp: what a slot has, else what the model was trained for
        return _tokens(meta.get("n_ctx")) or _tokens(meta.get("n_ctx_train"))
    return None


def _tokens(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value <= MAX_CONTEXT_TOKENS else None


def _inherit(model: ModelInfo, found: dict[str, ModelInfo]) -> ModelInfo:
    base = found.get(model.parent) if model.parent is not None else None
    if base is None or base.context_length is None or model.context_length is not None:
        return model
    return ModelInfo(name=model.name, context_length=base.context_length, parent=model.parent)
