"""What is read out of the answers of engines: recorded ones, odd ones, any JSON at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import Engine
from gateway.workers import identify
from gateway.workers.state import ModelInfo
from tests.support import wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
CARD = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("id", "owned_by", "parent", "max_model_len", "meta", "context_length"), JSON),
)


@pytest.mark.parametrize(
    ("engine", "expected", "context"),
    [
        ("vllm-0.32-http", Engine.VLLM, 2048),
        ("sglang-0.5.23-http", Engine.SGLANG, 2048),
        ("llamacpp-http", Engine.LLAMACPP, 2048),
    ],
)
def test_recorded_model_lists(engine: str, expected: Engine, context: int) -> None:
    """Each real engine's `/v1/models` names the engine, the model and its context length (llama.cpp's: that of a slot)."""
    value = wire.load(engine, "models").json
    assert identify.engine_of_models(value) is expected
    assert identify.models(value) == (ModelInfo(name="tiny-chat", context_length=context),)
    assert identify.is_list(value)
    assert identify.names_owner(value)


def test_recorded_versions() -> None:
    """vLLM says its version at `/version`, SGLang in `/v1/loads`."""
    assert identify.version_in(wire.load("vllm-0.32-http", "version").json) == "0.32.0"
    assert identify.version_in(wire.load("sglang-0.5.23-http", "loads").json) == "0.5.23"


def test_recorded_server_headers() -> None:
    """llama.cpp is known by its `server` header; uvicorn says nothing of what it serves."""
    assert identify.engine_of_server(wire.load("llamacpp-http", "health").header("server") or "") is Engine.LLAMACPP
    assert identify.engine_of_server(wire.load("vllm-0.32-http", "health").header("server") or "") is None


def test_a_server_without_a_model_list_is_known_by_its_own_routes() -> None:
    """Routes that one engine alone has tell it, where `/v1/models` does not; anything else is some OpenAI server."""
    vllm = (None, None, wire.load("vllm-0.32-http", "version").json, wire.load("vllm-0.32-http", "load").json)
    info = {"model_path": "tiny-chat", "context_length": 2048}
    props = {"default_generation_settings": {"n_ctx": 512}, "build_info": "b1-x"}
    trtllm_info = {"disaggregated_params": {}}
    assert identify.engine_of_answers(*vllm) is Engine.VLLM
    assert identify.engine_of_answers(info, None, None, None) is Engine.SGLANG
    assert identify.engine_of_answers(None, props, None, None) is Engine.LLAMACPP
    assert identify.engine_of_answers(trtllm_info, None, {"version": "1"}, None) is None
    assert identify.engine_of_answers({}, {}, {}, {}) is None
    assert (identify.context_in(info), identify.context_in(props)) == (2048, 512)
    assert identify.version_in(props) == "b1-x"


def test_adapters_have_a_parent_and_its_context_length() -> None:
    """LoRA adapters are listed beside their base, without a length of their own."""
    value = {
        "data": [
            {"id": "base", "owned_by": "vllm", "parent": None, "max_model_len": 4096},
            {"id": "lora", "owned_by": "vllm", "parent": "base", "max_model_len": None},
            {"id": "orphan", "parent": "elsewhere"},
        ]
    }
    assert identify.models(value) == (
        ModelInfo(name="base", context_length=4096),
        ModelInfo(name="lora", context_length=4096, parent="base"),
        ModelInfo(name="orphan", parent="elsewhere"),
    )


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"id": 5}, None),
        ({"id": ""}, None),
        ({"id": "a\nb"}, None),
        ({"id": "x" * 257}, None),
        ({}, None),
        ({"id": "m", "max_model_len": True}, ModelInfo(name="m")),
        ({"id": "m", "max_model_len": -1}, ModelInfo(name="m")),
        ({"id": "m", "max_model_len": "8192"}, ModelInfo(name="m")),
        ({"id": "m", "max_model_len": 1 << 80}, ModelInfo(name="m")),
        ({"id": "m", "context_window": 9}, ModelInfo(name="m", context_length=9)),
        ({"id": "m", "meta": {"n_ctx": None, "n_ctx_train": 7}}, ModelInfo(name="m", context_length=7)),
        ({"id": "m", "parent": "m"}, ModelInfo(name="m")),
        ({"id": "m", "parent": 3}, ModelInfo(name="m")),
    ],
)
def test_odd_cards(card: dict[str, Any], expected: ModelInfo | None) -> None:
    """What cannot be read is left out, the rest is kept."""
    assert identify.models({"data": [card, {"id": "other"}]}) == ((expected,) if expected else ()) + (ModelInfo(name="other"),)


def test_model_lists_are_bounded() -> None:
    """A server that lists very many models has the first of them known."""
    value = {"data": [{"id": f"m{index}"} for index in range(5000)]}
    assert len(identify.models(value)) == identify.MAX_MODELS


def test_configured_names_win_over_listed_ones() -> None:
    """The configuration says what is served; the server adds what it knows of those names."""
    listed = (ModelInfo(name="a", context_length=5), ModelInfo(name="b"))
    assert identify.named(("a", "z", "a"), listed) == (ModelInfo(name="a", context_length=5), ModelInfo(name="z"))
    assert identify.with_context(listed, 9) == (ModelInfo(name="a", context_length=5), ModelInfo(name="b", context_length=9))
    assert identify.with_context(listed, None) is listed


@given(JSON | st.fixed_dictionaries({"data": st.lists(CARD | JSON, max_size=5)}))
def test_any_json_is_read_without_an_error(value: Any) -> None:
    """No answer, however odd, raises; what is read can be sent on as JSON."""
    for model in identify.models(value):
        assert 0 < len(model.name) <= identify.MAX_NAME_CHARS
        assert model.context_length is None or model.context_length > 0
        json.dumps(model.name)
    identify.engine_of_models(value)
    identify.engine_of_answers(value, value, value, value)
    identify.names_owner(value)
    assert identify.context_in(value) is None or isinstance(identify.context_in(value), int)
    assert len(identify.version_in(value)) <= identify.MAX_VERSION_CHARS
