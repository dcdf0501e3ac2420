"""The routes of a simulated engine, by flavour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from harness.sim import dialects, info, requests
from harness.sim.dialects import sglang, trtllm, vllm
from harness.sim.dialects.table import Codecs
from harness.sim.driver import Driver
from harness.sim.faults import Fault, Faults, Kind
from harness.sim.http import Exchange, Headers
from harness.sim.job import Answer, Api, Job
from harness.sim.refusal import Refusal
from harness.sim.replies import StreamReply, WholeReply
from harness.sim.settings import SimSettings
