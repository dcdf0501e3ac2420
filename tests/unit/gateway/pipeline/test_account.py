"""Phase account: counts, tokens, log line; once for every request."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.admission.admission import Ticket
from gateway.protocol.usage import Usage
from gateway.workers.state import Status
from tests.support.compiled import interpreted_only
from tests.support.exchange import ANSWER, DONE, EVENTS, FINISH, USAGE, Rig, chunk, state

pytestmark = interpreted_only

STREAM = chunk("a") + chunk("b") + chunk("c") + FINISH
LIMIT = {"admission": {"tenant_limit": {"tokens_per_minute": 100_000}}, "retry": {"max_attempts": 1}}


class Settled:
    """What was told to tickets, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens: list[int] = []
        self.releases = 0
        settle, release = Ticket.settle, Ticket.release

        def note(ticket: Ticket, tokens: int) -> None:
            assert not ticket.released, "settled after its release"
            self.tokens.append(tokens)
            settle(ticket, tokens)

        def end(ticket: Ticket) -> None:
            assert not ticket.released, "released twice"
            self.releases += 1
            release(ticket)

        monkeypatch.setattr(Ticket, "settle", note)
        monkeypatch.setattr(Ticket, "release", end)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Settled:
    return Settled(monkeypatch)


def test_a_whole_answer_settles_its_usage(settled: Settled) -> None:
    """The engine's own counts replace the estimate."""
    with Rig(1, LIMIT) as rig:
        x, _ = rig.ask(max_tokens=1000)
        rig.call.answer(200, ANSWER)
        assert settled.tokens == [7] and settled.releases == 1
        cells = x.cells
        assert cells is not None and (cells.prompt_tokens, cells.completion_tokens, cells.usage_missing, cells.requests) == (5, 2, 0, 1)
        rig.check_idle()


def test_a_whole_answer_without_usage_keeps_its_estimate(settled: Settled) -> None:
    """What the engine did not count is charged as estimated, and counted as missing."""
    with Rig(1, LIMIT) as rig:
        x, _ = rig.ask(max_tokens=1000)
        rig.call.answer(200, b"{}")
        assert settled.tokens == [] and settled.releases == 1
        assert x.cells is not None and x.cells.usage_missing == 1


@pytest.mark.parametrize("path", [b"/v1/tokenize", b"/v1/detokenize", b"/v1/messages/count_tokens"])
def test_counting_tokens_uses_none(settled: Settled, path: bytes) -> None:
    """What only counts or converts tokens has no usage to miss, and is not charged for the text that it was given."""
    with Rig(1, LIMIT) as rig:
        x, client = rig.ask({"model": "m", "prompt": "word " * 100, "tokens": [1, 2]}, path=path)
        rig.call.answer(200, b'{"input_tokens":100}')
        assert client.status == 200 and settled.tokens == [0] and settled.releases == 1
        assert x.cells is not None and (x.cells.usage_missing, x.cells.prompt_tokens) == (0, 0)
        rig.check_idle()


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_refused_request_costs_nothing(settled: Settled, status: int) -> None:
    """Where nothing was generated the estimate is given back."""
    with Rig(1, LIMIT) as rig:
        rig.ask(max_tokens=1000)
        rig.call.answer(status, b"no")
        assert settled.tokens == [0] and settled.releases == 1
        rig.check_idle()


def test_a_stream_settles_the_usage_it_told(settled: Settled) -> None:
    """The usage chunk, hidden or not, is what counts."""
    with Rig(1, LIMIT) as rig:
        x, _ = rig.ask(stream=True)
        rig.call.stream(STREAM, USAGE, DONE)
        assert settled.tokens == [10]
        cells = x.cells
        assert cells is not None and (cells.completion_tokens, cells.usage_missing) == (3, 0)
        assert cells.tpot.total == pytest.approx(0) and sum(cells.tpot.counts) == 1
        rig.check_idle()


@pytest.mark.parametrize("end", ["fail", "gone", "late", "engine error", "close"])
def test_a_stream_cut_short_settles_as_far_as_it_got(settled: Settled, end: str) -> None:
    """A broken stream, a client that left and a deadline are charged for what went out: events, and the prompt by its bytes."""
    prompt = [{"role": "user", "content": "x" * 400}]
    with Rig(1, LIMIT) as rig:
        x, _ = rig.ask({"messages": prompt}, stream=True, max_tokens=1000)
        call = rig.call
        call.head_of(200, EVENTS)
        call.data(chunk("a"), chunk("b"), chunk("c"))
        if end == "fail":
            call.fail()
        elif end == "gone":
            rig.driver.client_gone(x)
        elif end == "late":
            rig.tick(4000)
        elif end == "engine error":
            call.data(b'data: {"error":{"message":"x"}}\n\n')
        else:
            rig.driver.close()
        events = 4 if end == "engine error" else 3
        assert settled.tokens == [len(x.prompt) // 4 + events] and settled.releases == 1
        assert x.cells is not None and x.cells.usage_missing == 1 and x.cells.completion_tokens == events
        assert list(x.cells.errors) == [x.error.code.value if x.error is not None else None]
        rig.check_idle()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_left_before_the_answer_is_charged_its_prompt(settled: Settled, stream: bool) -> None:
    """The worker had the prompt, so that leaving in time evades no token limit; where no worker was asked it costs nothing."""
    limit = {**LIMIT, "admission": {**LIMIT["admission"], "max_concurrent_requests": 1}}
    with Rig(1, limit) as rig:
        x, _ = rig.ask({"messages": [{"role": "user", "content": "x" * 400}]}, stream=stream, max_tokens=1000)
        waiting, _ = rig.ask(max_tokens=1000)
        rig.driver.client_gone(waiting)
        assert settled.tokens == []
        rig.driver.client_gone(x)
        assert settled.tokens == [len(x.prompt) // 4] and settled.releases == 1
        assert rig.rt.admission.limits.used("anonymous")[1] == len(x.prompt) // 4
        rig.check_idle()


def test_every_end_is_counted_by_status_and_code() -> None:
    """Endpoint and model counts tell how each request ended."""
    with Rig(1, {"retry": {"max_attempts": 1}}) as rig:
        rig.ask()
        rig.loop.now_s += 2
        rig.call.answer(200, ANSWER)
        rig.ask()
        rig.call.answer(422, b"no")
        rig.ask()
        rig.call.refuse()
        rig.ask(b"{")
        rig.ask(model="other")
        gone, _ = rig.ask()
        rig.driver.client_gone(gone)
        cells = rig.rt.endpoint_cells["/v1/chat/completions"]
        assert cells.requests == 6 and cells.responses == {
            (200, ""): 1,
            (422, "upstream_rejected"): 1,
            (502, "connect_failed"): 1,
            (400, "invalid_request"): 1,
            (404, "model_not_found"): 1,
            (499, "client_gone"): 1,
        }
        assert cells.duration.total == pytest.approx(2)
        model = gone.cells
        assert model is not None and model.requests == 4
        assert model.errors == {"upstream_rejected": 1, "connect_failed": 1, "client_gone": 1}
        rig.check_idle()


class Log:
    """Takes log lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, **fields: Any) -> None:
        self.lines.append(fields)


def test_the_log_line() -> None:
    """One line a request says who asked, where it went and how it ended; a long model name is cut."""
    with Rig(2) as rig:
        rig.rt.access_log = log = Log()  # type: ignore[assignment]
        x, _ = rig.ask(stream=True, headers=[(b"x-request-id", b"abc")])
        rig.call.refuse()
        rig.advance(1)
        rig.call.stream(STREAM, USAGE, DONE)
        rig.ask(model="x" * 1000)
        done, refused = log.lines
        assert done["usage"] == Usage(7, 3, 0) and done["ttft_s"] is not None and done["duration_s"] > 0
        del done["usage"], done["ttft_s"], done["duration_s"]
        assert done == {
            "request_id": "abc", "path": "/v1/chat/completions", "model": "m", "status": 200, "code": "", "source": "",
            "worker": "http://w1:8000", "attempts": 2, "stream": True, "tenant": "anonymous", "bytes_out": len(STREAM + DONE),
        }  # fmt: skip
        assert x.bytes_out == len(STREAM + DONE)
        assert (refused["status"], refused["code"], refused["source"], refused["worker"]) == (404, "model_not_found", "client", "")
        assert refused["model"] == "x" * 128 and refused["usage"] is None


def test_a_span_hears_the_end() -> None:
    """A traced request's span hears every attempt, then the end, once."""
    heard: list[tuple[Any, ...]] = []

    class Span:
        def traceparent_line(self, worker_url: str) -> bytes:
            return b"traceparent: 00-x-y-01\r\n"

        def attempt(self, *given: Any) -> None:
            heard.append(("attempt", *given))

        def end(self, *given: Any, **more: Any) -> None:
            heard.append(("end", *given, more))

    class Tracer:
        def start(self, *given: Any, **more: Any) -> Span:
            return Span()

    with Rig(2) as rig:
        rig.rt.tracer = Tracer()  # type: ignore[assignment]
        rig.ask(headers=[(b"traceparent", b"00-a-b-01")])
        assert rig.call.head.count(b"traceparent: 00-x-y-01") == 1 and b"00-a-b" not in rig.call.head
        rig.call.answer(503, b"")
        rig.advance(1)
        rig.call.answer(200, ANSWER)
        assert heard == [
            ("attempt", "http://w0:8000", 503, "upstream_failed"),
            ("attempt", "http://w1:8000", 200, ""),
            ("end", 200, "", Usage(5, 2, 0), {"first_token_s": None}),
        ]


def test_what_no_worker_was_asked_does_not_count_against_the_tenant() -> None:
    """A refusal for want of a worker gives the request back: the next one is refused for the same reason, not for the limit."""
    with Rig([state(0, status=Status.NOT_READY)], {"admission": {"tenant_limit": {"requests_per_minute": 1}}}) as rig:
        assert [rig.ask()[1].status for _ in range(3)] == [503, 503, 503]
