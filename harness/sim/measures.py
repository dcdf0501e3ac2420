"""The numbers behind the metrics of a simulated engine, without the names of any engine."""

from __future__ import annotations

from harness.sim.exposition import Histogram
from harness.sim.job import Api

ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
COUNT = (1, 2, 5, 10, 20)
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560)
TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
REQUEST = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
HTTP_HIGHR = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60)
HTTP = (0.1, 0.5, 1)
SGLANG_QUEUE = (
    *(0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100, 200, 300, 400, 500),
    *(600, 700, 800, 900, 1000, 1200, 1400, 1600, 1800, 2000, 2500, 3000),
)
SGLANG_STAGE = tuple(0.001 * 1.62**power for power in range(30))


def token_bounds(max_tokens: int) -> tuple[float, ...]:
    """Return 1, 2, 5, 10, 20, 50 and so on up to the context length, as vLLM bounds its token counts."""
    bounds: list[float] = []
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power > max_tokens:
                return tuple(bounds)
            bounds.append(digit * power)
        power *= 10


class Measures:
    """Everything that was counted since the start, besides the scheduler's own counters. `Record` alone writes it."""

    def __init__(self, created_s: float, max_model_len: int) -> None:
        tokens = token_bounds(max_model_len)
        self.created_s = created_s
        """Wall-clock time of the start."""
        self.first_token_s = Histogram(FIRST_TOKEN)
        self.inter_token_s = Histogram(TOKEN)
        self.token_s = Histogram(TOKEN)
        """Mean time of a request's tokens after the first."""
        self.queue_s = Histogram(REQUEST)
        self.prefill_s = Histogram(REQUEST)
        self.decode_s = Histogram(REQUEST)
        self.inference_s = Histogram(REQUEST)
        self.e2e_s = Histogram(REQUEST)
        self.prompt_tokens = Histogram(tokens)
        self.generation_tokens = Histogram(tokens)
        self.max_generation_tokens = Histogram(tokens)
        self.computed_tokens = Histogram(tokens)
        self.iteration_tokens = Histogram(ITERATION)
        self.params_n = Histogram(COUNT)
        self.params_max_tokens = Histogram(tokens)
        self.preemptions = Histogram(PREEMPTIONS)
        self.sglang_queue_s = Histogram(SGLANG_QUEUE)
        """The time in the queue again, in the bounds of SGLang."""
        self.sglang_process_s = Histogram(SGLANG_STAGE)
        self.sglang_prefill_s = Histogram(SGLANG_STAGE)
        self.finished: dict[str, int] = {}
        """Sequences that ended, by `stop` or `length`."""
        self.tool_calls: dict[tuple[bool, bool, Api], int] = {}
        """Answers to requests with tools, by streamed, called, API."""
        self.http: dict[tuple[str, str], int] = {}
        """Requests by method and path."""
        self.answers: dict[tuple[str, str, int], int] = {}
        """Answers by method, path and status."""
        self.request_bytes: dict[tuple[str, str], int] = {}
        self.answer_bytes: dict[tuple[str, str], int] = {}
        self.http_duration_highr = Histogram(HTTP_HIGHR)
        self.http_durations: dict[tuple[str, str], Histogram] = {}

    def http_duration(self, method: str, path: str) -> Histogram:
        """Return the histogram of a route, made on first use."""
        found = self.http_durations.get((method, path))
        if found is None:
            found = self.http_durations[method, path] = Histogram(HTTP)
        return found
