"""`/v1/models` as SDKs read it."""

from __future__ import annotations

from gateway.config.model import Engine
from gateway.server.models import model_list
from gateway.workers.state import ModelInfo, Status
from tests.support.exchange import Rig, state


def test_an_empty_list() -> None:
    """Without workers the list is empty and has no ends."""
    with Rig(0) as rig:
        assert model_list(rig.rt.router, 7) == {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}


def test_models_aliases_and_adapters() -> None:
    """Every model of a ready worker is listed once, by name, with its alias and its base, in the fields of both SDKs."""
    workers = [
        state(0, models=(ModelInfo(name="m", context_length=4096), ModelInfo(name="lora", parent="m")), engine=Engine.VLLM),
        state(1, models=("m",)),
        state(2, models=("away",), status=Status.NOT_READY),
    ]
    with Rig(workers, {"models": [{"name": "m", "aliases": ["gpt"]}, {"name": "away", "aliases": ["gone"]}]}) as rig:
        found = model_list(rig.rt.router, 7)
        assert [model["id"] for model in found["data"]] == ["gpt", "lora", "m"] == [found["first_id"], "lora", found["last_id"]]
        alias, adapter, model = found["data"]
        assert model == {
            "id": "m", "object": "model", "created": 7, "owned_by": "vllm", "type": "model", "display_name": "m", "root": "m",
            "parent": None, "max_model_len": 4096,
        }  # fmt: skip
        assert (alias["root"], alias["max_model_len"]) == ("m", 4096) and adapter["parent"] == "m"
