"""What a simulated engine measures of itself; the dialects' `*_metrics` modules write it in each engine's names.

Life: created by `App`, hooked into the driver; costs a bisection a token and a few a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from harness.sim.dialects import sglang_metrics, trtllm_metrics, vllm_metrics
from harness.sim.driver import Driver
from harness.sim.job import Api, Job
from harness.sim.measures import Measures
from harness.sim.scheduler import Sequence
from harness.sim.settings import SimSettings

MAX_PATHS = 64
"""Paths told apart in the HTTP metrics; a scan of made-up paths does not grow them."""


class Record:
    """The measurements of one engine."""

    def __init__(self, settings: SimSettings, driver: Driver, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._driver = driver
        self._clock = clock
        self.measures = Measures(clock(), settings.max_model_len)
        driver.observers.append(self._job)
        driver.on_emission = self._emission
        driver.on_step = self.measures.iteration_tokens.observe

    @property
    def throughput(self) -> float:
        """Tokens a second, by the last step; it stays when the engine is idle, as SGLang's does."""
        counters = self._driver.scheduler.counters
        return counters.last_step_tokens / counters.last_step_s if counters.last_step_s else 0.0

    def request(self, method: str, path: str, size_bytes: int) -> None:
        """Count a request that came."""
        http = self.measures.http
        key = (method, path)
        if key not in http and len(http) >= MAX_PATHS:
            key = (method, "other")
        http[key] = http.get(key, 0) + 1
        self.measures.request_bytes[key] = self.measures.request_bytes.get(key, 0) + size_bytes

    def answer(self, method: str, path: str, status: int, size_bytes: int, duration_s: float) -> None:
        """Count an answer that was begun."""
        measures = self.measures
        if (method, path) not in measures.http:
            path = "other"
        measures.answers[method, path, status] = measures.answers.get((method, path, status), 0) + 1
        measures.answer_bytes[method, path] = measures.answer_bytes.get((method, path), 0) + size_bytes
        measures.http_duration_highr.observe(duration_s)
        measures.http_duration(method, path).observe(duration_s)

    def exposition(self) -> str:
        """Return the metrics as text."""
        match self._settings.flavour:
            case "vllm":
                return vllm_metrics.exposition(self._settings, self._driver.scheduler, self.measures)
            case "sglang":
                return sglang_metrics.exposition(self._settings, self._driver.scheduler, self.measures, self.throughput)
            case "trtllm":
                return trtllm_metrics.exposition(self._settings, self._driver.scheduler, self.measures)

    def iteration_stats(self) -> list[dict[str, Any]]:
        """Return TensorRT-LLM's `/metrics`."""
        return trtllm_metrics.iteration_stats(self._settings, self._driver.scheduler, self._clock())

    def _emission(self, sequence: Sequence, gap_s: float) -> None:
        if sequence.produced > 1:
            self.measures.inter_token_s.observe(gap_s)
        else:
            self.measures.first_token_s.observe((sequence.first_token_s or 0.0) - sequence.arrived_s)

    def _job(self, job: Job) -> None:
        measures = self.measures
        for answer in job.answers:
            sequence = answer.sequence
            admitted_s = sequence.admitted_s if sequence.admitted_s is not None else sequence.arrived_s
            first_s = sequence.first_token_s if sequence.first_token_s is not None else admitted_s
            decode_s = sequence.last_token_s - first_s
            measures.queue_s.observe(admitted_s - sequence.arrived_s)
            measures.sglang_queue_s.observe(admitted_s - sequence.arrived_s)
            measures.sglang_prefill_s.observe(first_s - admitted_s)
            measures.sglang_process_s.observe(0.0)
            measures.prefill_s.observe(first_s - admitted_s)
            measures.decode_s.observe(decode_s)
            measures.inference_s.observe(sequence.last_token_s - admitted_s)
            measures.e2e_s.observe(sequence.last_token_s - sequence.arrived_s)
            measures.token_s.observe(decode_s / (sequence.produced - 1) if sequence.produced > 1 else 0.0)
            measures.prompt_tokens.observe(len(sequence.prompt))
            measures.generation_tokens.observe(sequence.produced)
            measures.computed_tokens.observe(len(sequence.prompt) - sequence.cached)
            measures.preemptions.observe(sequence.preempted)
            finish = "length" if answer.finish == "length" else "stop"
            measures.finished[finish] = measures.finished.get(finish, 0) + 1
        measures.max_generation_tokens.observe(max(answer.sequence.produced for answer in job.answers))
        measures.params_n.observe(len(job.answers))
        if job.max_tokens is not None:
            measures.params_max_tokens.observe(job.max_tokens)
        if job.tools and job.api in (Api.CHAT, Api.RESPONSES):
            key = (job.stream, bool(job.answers[0].calls), job.api)
            measures.tool_calls[key] = measures.tool_calls.get(key, 0) + 1
