"""Whatever workers, clients and time do, in whatever order: each request ends once, and everything it held is given back."""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import Code, Retry, UpstreamError
from gateway.pipeline.context import Exchange
from gateway.routing.engine import FIRST_BYTE_FRESH
from gateway.shared.layout import CONCURRENCY, QUEUED
from gateway.telemetry.cells import ModelCells
from gateway.transports.mock import MockCall
from gateway.workers.state import Status
from tests.support.exchange import ANSWER, CHAT, DONE, EVENTS, FINISH, USAGE, FakeClient, Rig, chunk, state

WORKERS = 3
ERROR = b'data: {"error":{"message":"out of memory"}}\n\n'
PIECES = [chunk("a"), chunk("b")[:9], chunk("b")[9:], FINISH, USAGE, DONE, ERROR, b": ping\n\n", b"data: junk\n\n", ANSWER, b"{", b"\n\n"]
HEADS: list[tuple[int, Any]] = [
    (200, EVENTS),
    (200, EVENTS),
    (200, [(b"content-type", b"application/json")]),
    (200, [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]),
    (200, [(b"content-type", b"text/event-stream"), (b"connection", b"x-hop")]),
    (204, []), (302, []), (400, []), (401, []), (403, []), (408, []), (429, []), (500, []), (501, []), (503, [(b"retry-after", b"3")]),
]  # fmt: skip
CONFIGS: list[dict[str, Any]] = [
    {},
    {"retry": {"max_attempts": 1}},
    {"hedge": {"enabled": True, "min_delay_s": 0.05, "max_ratio": 1}, "retry": {"initial_backoff_s": 0}},
    {"admission": {"max_concurrent_requests": 2, "default": {"queue_size": 2, "queue_timeout_s": 20}}},
    {"admission": {"tenant_limit": {"tokens_per_minute": 50, "requests_per_minute": 20}, "max_concurrent_requests": 3}},
    {"upstream": {"max_buffered_answer_bytes": 30}, "retry": {"resend": False}},
    {"breaker": {"min_requests": 1, "failure_ratio": 0.1, "open_s": 1, "half_open_probes": 1}, "hedge": {"enabled": True, "max_ratio": 1}},
]


class Requests(RuleBasedStateMachine):
    """Random scripts over a pipeline without sockets."""

    asked = Bundle("asked")

    @initialize(config=st.sampled_from(CONFIGS), keyed=st.booleans(), hedged=st.booleans())
    def open(self, config: dict[str, Any], keyed: bool, hedged: bool) -> None:
        logging.disable(logging.CRITICAL)
        limits = {"first_byte_s": 10, "first_token_s": 15, "idle_s": 12, "total_s": 60}
        config = {"timeouts": limits, "server": {"write_timeout_s": 25}, **config}
        if hedged:
            config["hedge"] = {"enabled": True, "min_delay_s": 0.05, "max_ratio": 1}
        self.states = [state(number, api_key="k" if keyed and number == 0 else None) for number in range(WORKERS)]
        self.rig = Rig(self.states, config)
        for pool in self.rig.rt.router.pools:
            for _ in range(FIRST_BYTE_FRESH):
                pool.observe_first_byte(0.05)  # so that hedges are sent from the first request on

    @rule(
        target=asked,
        stream=st.booleans(),
        path=st.sampled_from([CHAT, CHAT, b"/v1/completions", b"/v1/messages", b"/v1/responses", b"/generate", b"/v1/tokenize"]),
        model=st.sampled_from(["m", "m", "m", "other"]),
    )
    def ask(self, stream: bool, path: bytes, model: str) -> tuple[Exchange, FakeClient]:
        return self.rig.ask(stream=stream, path=path, model=model)

    # -- workers

    @precondition(lambda self: self.rig.calls)
    @rule(data=st.data(), head=st.sampled_from(HEADS))
    def head(self, data: st.DataObject, head: tuple[int, Any]) -> None:
        call = self._one(data, headless=True)
        if call is not None:
            call.head_of(head[0], head[1], data.draw(st.sampled_from([None, None, 5, 1000])) if head[1] is not EVENTS else None)

    @precondition(lambda self: self.rig.calls)
    @rule(data=st.data(), pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), framed=st.booleans())
    def piece(self, data: st.DataObject, pieces: list[bytes], framed: bool) -> None:
        call = self._one(data, headless=False)
        length = getattr(call.sink, "length", None) if call is not None else None
        for piece in pieces:
            if call is None or not call.live or length is not None:
                return  # a body with a length is played whole, by `end`: more or less the connection would not let through
            if framed:
                call.sink.on_chunk(b"%x\r\n%b\r\n" % (len(piece), piece), piece)
            else:
                call.data(piece)

    @precondition(lambda self: self.rig.calls)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        call = self._one(data, headless=False)
        if call is not None:
            length = getattr(call.sink, "length", None)
            if length:
                call.data(b"x" * length)
            call.end()

    @precondition(lambda self: self.rig.calls)
    @rule(data=st.data(), code=st.sampled_from([Code.UPSTREAM_FAILED, Code.UPSTREAM_PROTOCOL, Code.INTERNAL, Code.OVERLOADED]))
    def fail(self, data: st.DataObject, code: Code) -> None:
        data.draw(st.sampled_from(self.rig.calls)).fail(UpstreamError(code, "x", retry=Retry.RESEND))

    @precondition(lambda self: self.rig.calls)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        call = self._one(data, headless=True)
        if call is not None:
            call.refuse()

    @precondition(lambda self: self.rig.calls)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        call = self._one(data, headless=True)
        if call is not None:
            call.stream(chunk("a"), end=False)

    @precondition(lambda self: self.rig.calls)
    @rule(data=st.data(), stream=st.booleans())
    def succeed(self, data: st.DataObject, stream: bool) -> None:
        call = self._one(data, headless=True)
        if call is not None and stream:
            call.stream(chunk("a"), FINISH, USAGE, DONE)
        elif call is not None:
            call.answer(200, ANSWER)

    @rule(number=st.integers(0, WORKERS - 1), full=st.booleans())
    def fill(self, number: int, full: bool) -> None:
        pool = self.rig.pools[f"w{number}"]
        pool.raises = UpstreamError(Code.OVERLOADED, "full", retry=Retry.SAFE) if full else None

    @rule(number=st.integers(0, WORKERS - 1), status=st.sampled_from([Status.READY, Status.READY, Status.NOT_READY, Status.DRAINING]))
    def turn(self, number: int, status: Status) -> None:
        old = self.states[number]
        self.states[number] = state(number, api_key=old.api_key, status=status, recovered=status is Status.READY)
        self.rig.tell(self.states)

    # -- clients

    @rule(one=asked)
    def leave(self, one: tuple[Exchange, FakeClient]) -> None:
        self.rig.driver.client_gone(one[0])

    @rule(one=asked)
    def pause(self, one: tuple[Exchange, FakeClient]) -> None:
        if not one[0].over:
            self.rig.driver.pause(one[0])

    @rule(one=asked)
    def resume(self, one: tuple[Exchange, FakeClient]) -> None:
        if not one[0].over:
            self.rig.driver.resume(one[0])

    # -- time

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1, 1.1, 5.0, 11.0, 30.0]), ticks=st.booleans())
    def wait(self, seconds: float, ticks: bool) -> None:
        self.rig.advance(seconds)
        if ticks:
            now_s = self.rig.loop.now_s
            self.rig.driver.tick(now_s)
            self.rig.rt.registry.tick(now_s)
            self.rig.rt.admission.tick(now_s)
            self.rig.advance()

    @rule(config=st.sampled_from(CONFIGS))
    def configure(self, config: dict[str, Any]) -> None:
        new = {"retry": {"jitter": 0, **config.get("retry", {})}, "hedge": config.get("hedge", {})}  # no chance: runs must repeat
        self.rig.driver.configure(self.rig.config.model_validate({**self.rig.config.model_dump(), **new}))

    # -- what always holds

    @invariant()
    def loads_are_attempts(self) -> None:
        rig = self.rig
        attempts = [attempt for x in rig.exchanges for attempt in x.attempts]
        assert [worker.load for worker in rig.workers] == [sum(a.worker is worker for a in attempts) for worker in rig.workers]
        assert {id(a.call) for a in attempts} == {id(call) for call in rig.calls}
        assert rig.table.total(CONCURRENCY) == sum(x.ticket is not None for x in rig.exchanges)
        assert rig.table.total(QUEUED) == sum(x.waiting is not None for x in rig.exchanges)

    @invariant()
    def each_request_ends_once(self) -> None:
        rig = self.rig
        assert list(rig.driver.active) == [x for x in rig.exchanges if not x.over]
        for x, client in zip(rig.exchanges, rig.clients, strict=True):
            assert x.over == bool(client.released) and client.begun <= 1
            assert not x.started or len(x.attempts) <= 1, "two workers write to one client"
            if not x.over:
                assert x.attempts or x.waiting or x.resend_timer, "nothing would ever end it"
                assert x.started == bool(client.begun)
            else:
                assert not x.attempts and x.resend_timer is None and x.hedge_timer is None and x.waiting is None and x.status
                left = x.error is not None and x.error.code is Code.CLIENT_GONE
                assert left or client.finished or client.aborted or x.status == 200
        counted = sum(cells.requests for cells in rig.rt.endpoint_cells.values())
        assert counted == sum(x.over for x in rig.exchanges)
        assert sum(n for cells in rig.rt.endpoint_cells.values() for n in cells.responses.values()) == counted

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        for call in self.rig.calls[::2]:
            call.fail()
        self.rig.driver.close()
        self.rig.advance(100)
        self.rig.rt.admission.tick(self.rig.loop.now_s)
        self.rig.advance()
        self.rig.check_idle()
        models: list[ModelCells] = list(self.rig.rt.cells.models.values())
        assert sum(cells.requests for cells in models) == sum(x.cells is not None for x in self.rig.exchanges)
        self.rig.table.close()
        logging.disable(logging.NOTSET)

    def _one(self, data: st.DataObject, *, headless: bool) -> MockCall | None:
        calls = [call for call in self.rig.calls if (not getattr(call.sink, "mode", 0)) is headless]
        return data.draw(st.sampled_from(calls)) if calls else None


Requests.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
TestRequests = Requests.TestCase
