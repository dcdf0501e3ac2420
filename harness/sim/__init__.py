"""Simulated engines: processes and in-process servers that speak the HTTP surface of vLLM, SGLang and TensorRT-LLM.

async with running(flavour="vllm", model="m") as engine:
    engine.url                                           # http://127.0.0.1:PORT
    engine.faults(kind="stall", after_events=3, times=1)
    engine.state().last[-1].body                         # the bytes that arrived
"""

from harness.sim.engine import SimEngine, running
from harness.sim.faults import Fault, Kind
from harness.sim.settings import FLAVOURS, SimSettings
from harness.sim.state import SeenRequest, SimState

__all__ = ["FLAVOURS", "Fault", "Kind", "SeenRequest", "SimEngine", "SimSettings", "SimState", "running"]
