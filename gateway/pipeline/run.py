"""The driver: order of the phases, attempts, deadlines, cancellation. The only module that decides what follows from what.

    begin -> parse -> admit -> (wait) -> route -> attempt -> ... -> account
                                                 ^      |
                                                 +------+  backoff, next worker; never after the first byte

Everything here is a plain call on the event loop. A request waits in three places only, each a timer or a queue that the
exchange can leave: for admission, for a worker's answer, and for a backoff.
"""

from __future__ import annotations

import logging
import random

from gateway.admission.admission import Ticket
from gateway.config.model import GatewayConfig
from gateway.errors import ClientError, Code, GatewayError, Retry, Source, UpstreamError
from gateway.pipeline.account import account
from gateway.pipeline.admit import admit
from gateway.pipeline.context import Exchange
from gateway.pipeline.parse import parse
from gateway.pipeline.relay import NONE, STREAM, Attempt
from gateway.pipeline.retry import HedgeAllowance, RetryBudget, backoff_s
from gateway.pipeline.route import next_worker, no_candidate, replan, route
from gateway.pipeline.transform import asks_usage, body_for, head_for
from gateway.protocol.error_body import error_body, error_event
from gateway.protocol.usage import Usage
from gateway.runtime import Runtime
from gateway.workers.breaker import BreakerState
from gateway.workers.worker import Worker

log = logging.getLogger(__name__)

LINGER_S = 1.0
"""Time that a worker may leave its connection open behind a stream's end mark before we hang up."""
_SAYS_WHEN = (429, 503)
"""Answers that tell the client when to come back."""
_SOON = b"retry-after: 1\r\n"
_NOBODYS_FAULT = (Code.OVERLOADED, Code.INTERNAL, Code.UPSTREAM_REJECTED)
"""Ends of an attempt for which its worker is not to blame."""
_NEUTRAL_STATUSES = (408, 429)
"""Answers of a worker that is alive but has no room: retried, but no reason to stop asking it."""


class Driver:
    """Drives every exchange of one process. Made by the application with the runtime; closed by `close`."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self.time = rt.time
        self.active: dict[Exchange, None] = {}
        """Exchanges that are not over, the oldest first, so that a tick does the same each time."""
        self._rng = random.Random()
        now_s = self.time()
        self._budget = RetryBudget(rt.config.retry, now_s)
        self._hedges = HedgeAllowance(rt.config.hedge.max_ratio, now_s)
        self._retry = rt.config.retry
        self._hedge = rt.config.hedge
        self.configure(rt.config)

    def __repr__(self) -> str:
        return f"<Driver {len(self.active)} active>"

    def configure(self, config: GatewayConfig) -> None:
        """Use new settings; exchanges under way see them with their next step."""
        self.retry_statuses = frozenset(config.retry.statuses)
        self.max_buffered_bytes = config.upstream.max_buffered_answer_bytes
        self._timeouts = config.timeouts
        self._write_timeout_s = config.server.write_timeout_s
        now_s = self.time()
        if config.retry != self._retry:  # else frequent reloads would multiply what is allowed
            self._budget = RetryBudget(config.retry, now_s)
        if config.hedge != self._hedge:
            self._hedges = HedgeAllowance(config.hedge.max_ratio, now_s)
        self._retry = config.retry
        self._hedge = config.hedge

    # -- from the client's connection ---------------------------------------------------------------------------------

    def begin(self, x: Exchange) -> None:
        """Take a request whose body is complete."""
        rt = self.rt
        self.active[x] = None
        error = parse(x, rt)
        if error is not None:
            self._fail(x, error)
            return
        outcome = admit(x, rt)
        if outcome.__class__ is Ticket:
            x.ticket = outcome
            self._start(x)
        elif isinstance(outcome, GatewayError):
            self._fail(x, outcome)
        else:
            x.waiting = outcome  # type: ignore[assignment]

    def admitted(self, x: Exchange, outcome: Ticket | GatewayError) -> None:
        """Go on after a wait in the admission queue."""
        x.waiting = None
        if isinstance(outcome, GatewayError):
            self._fail(x, outcome)
            return
        x.ticket = outcome
        self._start(x)

    def client_gone(self, x: Exchange) -> None:
        """Stop everything: nobody reads the answer any more."""
        if x.over:
            return
        if not (x.streaming and x.attempts and x.attempts[0].scanner is not None and x.attempts[0].scanner.complete):
            x.error = ClientError(Code.CLIENT_GONE, "the client closed the connection")
            x.status = x.error.status
        self._end(x)

    def pause(self, x: Exchange) -> None:
        """The client does not read: stop reading from the worker."""
        x.paused_s = self.rt.time()
        for attempt in x.attempts:
            if attempt.call is not None:
                attempt.call.pause()

    def resume(self, x: Exchange) -> None:
        """The client reads again."""
        x.paused_s = 0.0
        now_s = self.rt.time()
        for attempt in x.attempts:
            attempt.last_s = now_s
            if attempt.call is not None:
                attempt.call.resume()

    # -- attempts -----------------------------------------------------------------------------------------------------

    def _start(self, x: Exchange) -> None:
        """Route an admitted request and send its first attempt."""
        rt = self.rt
        error = route(x, rt)
        if error is not None:
            self._fail(x, error)
            return
        pool = x.pool
        assert pool is not None
        stream = x.facts.stream
        key = (x.endpoint.path, stream)
        cells = pool.cells.get(key)
        if cells is None:
            cells = pool.cells[key] = rt.cells.model(pool.name, *key)
        x.cells = cells
        if rt.tracer is not None:
            x.span = rt.tracer.start(x.traceparent, x.header(b"tracestate"), x.endpoint.dialect, x.facts.model, stream=stream)
        self._budget.requests.add()
        worker = next_worker(x)
        if worker is None:
            self._fail(x, no_candidate(pool, rt))
            return
        self._send(x, worker)
        if self._hedge.enabled and not x.over:
            self._hedges.requests.add()
            self._plan_hedge(x)

    def _send(self, x: Exchange, worker: Worker, hedge: bool = False) -> None:
        """Send an attempt to a worker whose breaker has let it through."""
        rt = self.rt
        x.attempt_count += 1
        asked = asks_usage(x, worker)
        attempt = Attempt(x, worker, asked, hedge)
        body = x.body if not asked and x.rewrite is None else body_for(x, asked)
        worker.enter()
        worker.cells.selections += 1
        x.attempts.append(attempt)
        assert x.pool is not None
        x.pool.policy.chosen(x, worker)
        try:
            attempt.call = worker.http.send(head_for(x, worker, len(body), rt), body, attempt)
        except UpstreamError as error:
            self.attempt_failed(attempt, error)
            return
        if x.paused_s:
            attempt.call.pause()

    def attempt_failed(self, attempt: Attempt, error: UpstreamError) -> None:
        """Hear that an attempt came to nothing, or broke off half-way."""
        x = attempt.exchange
        scanner = attempt.scanner
        if scanner is not None and scanner.complete and x.started and (scanner.done or error.code is Code.UPSTREAM_TIMEOUT):
            # Nothing is missing: the worker hung up behind its end mark, or has said nothing more since the last finish reason.
            # A connection that broke between the two is a broken stream: usage and the end mark are lost.
            self.stream_complete(attempt)
            return
        self._leave(attempt)
        attempt.call = None
        self._blame(attempt, error)
        if x.over:
            return
        if x.started:
            self._break_off(x, attempt, error)
        elif not x.attempts:
            self._try_again(x, error)

    def refused(self, attempt: Attempt) -> None:
        """Hear that a worker answered with a status that is tried elsewhere."""
        x = attempt.exchange
        status = attempt.status
        self._leave(attempt)
        attempt.call = None
        if status in (401, 403):
            error = UpstreamError(Code.CREDENTIAL_FAILED, "the worker refused the gateway's own credential", retry=Retry.SAFE)
            self._blame(attempt, error)
        elif status == 429:
            error = UpstreamError(Code.UPSTREAM_RATE_LIMITED, "the worker limits its rate", retry=Retry.SAFE)
            self._count_error(attempt, error)
            attempt.worker.breaker.release(attempt.epoch)
        else:
            error = UpstreamError(Code.UPSTREAM_FAILED, f"the worker answered {status}", retry=Retry.RESEND)
            if status in _NEUTRAL_STATUSES:
                self._count_error(attempt, error)
                attempt.worker.breaker.release(attempt.epoch)
            else:
                self._blame(attempt, error)
        if status not in (401, 403):
            x.held = attempt
        if not x.over and not x.attempts:
            self._try_again(x, error)

    def _try_again(self, x: Exchange, error: UpstreamError) -> None:
        """Plan the next attempt, or give up."""
        x.error = error
        retry = self._retry
        now_s = self.rt.time()
        if x.attempt_count >= retry.max_attempts or error.retry is Retry.NEVER or (error.retry is Retry.RESEND and not retry.resend):
            self._give_up(x, error)
            return
        if now_s - x.started_s >= self._timeouts.total_s or not self._budget.take():
            self._give_up(x, error)
            return
        assert x.cells is not None
        x.cells.retries += 1
        x.resend_timer = self.rt.loop.call_later(backoff_s(retry, x.attempt_count, self._rng), self._resend, x)

    def _resend(self, x: Exchange) -> None:
        """Send the next attempt: to the next worker of the plan, or, when all have had theirs, to the best of a new one."""
        x.resend_timer = None
        if x.over:
            return
        worker = next_worker(x)
        while worker is not None and not worker.ready:  # it left while the backoff ran
            worker.breaker.release()
            worker = next_worker(x)
        if worker is None:
            replan(x)
            worker = next_worker(x)
        if worker is None:
            assert x.pool is not None
            self._give_up(x, no_candidate(x.pool, self.rt))
            return
        self._send(x, worker)

    def _give_up(self, x: Exchange, error: GatewayError) -> None:
        """Answer with what there is: a worker's own error answer where one came, else the gateway's."""
        if x.cells is not None and x.attempt_count > 1:
            x.cells.retries_exhausted += 1
        held = x.held
        if held is None:
            self._fail(x, error)
            return
        x.error = error
        x.worker = held.worker
        x.status = held.status
        head = held.head
        if held.status in _SAYS_WHEN and b"\r\nretry-after: " not in b"\r\n" + head:
            head += _SOON
        self._respond(x, held.status, head + _code_line(error), held.body)

    # -- answers ------------------------------------------------------------------------------------------------------

    def whole(self, attempt: Attempt, usage: Usage | None) -> None:
        """Give the client a complete answer."""
        x = attempt.exchange
        self._finished(attempt)
        self._win(attempt)
        x.usage = usage
        x.error = None
        if attempt.status >= 500:
            x.error = UpstreamError(Code.UPSTREAM_FAILED, f"the worker answered {attempt.status}", retry=Retry.NEVER)
        elif attempt.status >= 400:
            x.error = UpstreamError(Code.UPSTREAM_REJECTED, "the worker refused the request", source=Source.CLIENT, retry=Retry.NEVER)
        head = attempt.head if x.error is None else attempt.head + _code_line(x.error)
        self._respond(x, attempt.status, head, attempt.body)

    def begin_stream(self, attempt: Attempt, first: bytes) -> None:
        """Send the head and the first events: from here on the answer is this attempt's."""
        x = attempt.exchange
        self._win(attempt)
        x.started = x.streaming = True
        x.status = attempt.status
        x.error = None
        x.bytes_out += len(first)
        x.client.start(attempt.status, attempt.head + x.id_line, None)
        x.client.write(first)
        x.write_framed = x.client.chunk_writer()

    def stream_complete(self, attempt: Attempt) -> None:
        """End a stream that is whole."""
        x = attempt.exchange
        self._finished(attempt)
        scanner = attempt.scanner
        assert scanner is not None
        if not x.started:
            self.begin_stream(attempt, b"")
        x.usage = scanner.usage
        x.events = scanner.events
        x.client.finish()
        self._end(x)

    def _hang_up(self, attempt: Attempt) -> None:
        """End a stream that has its end mark, without the end of the worker's connection."""
        if attempt.call is not None:
            attempt.call.cancel()
        self.stream_complete(attempt)

    def stream_broken(self, attempt: Attempt, why: str) -> None:
        """A stream ended without its end mark, or holds what must not be forwarded."""
        call = attempt.call
        if call is not None:
            call.cancel()
        scanner = attempt.scanner
        if scanner is not None and scanner.refused:
            refusal = UpstreamError(Code.UPSTREAM_REJECTED, "the worker refused the request", source=Source.CLIENT, retry=Retry.NEVER)
            self.attempt_failed(attempt, refusal)
            return
        log.warning("stream of %s broken: %s", attempt.worker.url, why)
        self.attempt_failed(attempt, UpstreamError(Code.STREAM_BROKEN, "the worker's stream broke off", retry=Retry.RESEND))

    def begin_passing(self, attempt: Attempt, first: bytes) -> None:
        """Pass on an answer that is too large to keep."""
        x = attempt.exchange
        self._win(attempt)
        x.started = True
        x.status = attempt.status
        x.error = None
        x.bytes_out += len(first)
        x.client.start(attempt.status, attempt.head + x.id_line, attempt.length)
        x.client.write(first)

    def passed(self, attempt: Attempt) -> None:
        """End an answer that was passed on."""
        x = attempt.exchange
        if not x.started:
            self.begin_passing(attempt, b"")
        self._finished(attempt)
        x.client.finish()
        self._end(x)

    def _win(self, attempt: Attempt) -> None:
        """This attempt's answer is the client's: cancel the other one."""
        x = attempt.exchange
        x.worker = attempt.worker
        if self._hedge.enabled:
            assert x.pool is not None
            x.pool.observe_first_byte(attempt.last_s - attempt.sent_s)
        # A hedge may outlive the settings that sent it.
        if attempt.hedge:
            attempt.worker.cells.hedges_won += 1
        if x.hedge_timer is not None:
            x.hedge_timer.cancel()
            x.hedge_timer = None
        under_way = x.attempts
        if under_way and (len(under_way) > 1 or under_way[0] is not attempt):
            for other in [one for one in under_way if one is not attempt]:
                self._cancel(other)

    def _break_off(self, x: Exchange, attempt: Attempt, error: UpstreamError) -> None:
        """Tell the client that an answer which has begun will not be finished."""
        if error.code is Code.UPSTREAM_FAILED:
            error = UpstreamError(Code.STREAM_BROKEN, error.message, retry=Retry.NEVER)
        x.error = error
        scanner = attempt.scanner
        if x.streaming and scanner is not None:
            if not scanner.refused:
                attempt.worker.cells.streams_broken += 1
            x.usage = scanner.usage
            x.events = scanner.events
            if not scanner.error_forwarded:
                x.client.write(error_event(x.endpoint.dialect, error, x.request_id, scanner.sequence_number + 1))
            x.client.finish()
        else:
            x.client.abort()
        self._end(x)

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _fail(self, x: Exchange, error: GatewayError) -> None:
        """Answer with an error of the gateway, in the client's dialect."""
        x.error = error
        head = b"content-type: application/json\r\n" + _code_line(error)
        retry_after_s = error.retry_after_s
        if retry_after_s is not None:
            head += b"retry-after: %d\r\n" % max(1, -int(-retry_after_s // 1))
        elif error.status in _SAYS_WHEN:
            head += _SOON
        self._respond(x, error.status, head, error_body(x.endpoint.dialect, error, x.request_id))

    def _respond(self, x: Exchange, status: int, head: bytes, body: bytes) -> None:
        x.started = True
        x.status = status
        x.bytes_out += len(body)
        x.client.respond(status, head + x.id_line, body)
        self._end(x)

    def _end(self, x: Exchange) -> None:
        """Let go of everything and account for it."""
        if x.attempts:
            for attempt in tuple(x.attempts):
                if x.streaming and attempt.scanner is not None and attempt.worker is x.worker:
                    x.usage = attempt.scanner.usage
                    x.events = attempt.scanner.events
                self._cancel(attempt)
        if x.waiting is not None:
            x.waiting.leave()
            x.waiting = None
        if x.resend_timer is not None:
            x.resend_timer.cancel()
            x.resend_timer = None
        if x.hedge_timer is not None:
            x.hedge_timer.cancel()
            x.hedge_timer = None
        self.active.pop(x, None)
        account(x, self.rt)
        # References in a circle would wait for the garbage collector, which costs more than the request did.
        x.plan = None
        x.held = None
        x.client.release()

    def _cancel(self, attempt: Attempt) -> None:
        """End an attempt that nobody waits for any more; its worker is not to blame."""
        self._leave(attempt)
        attempt.worker.breaker.release(attempt.epoch)
        call = attempt.call
        if call is not None:
            attempt.call = None
            call.cancel()

    def _leave(self, attempt: Attempt) -> None:
        attempt.exchange.attempts.remove(attempt)
        attempt.worker.leave()

    def _finished(self, attempt: Attempt) -> None:
        """Take an attempt off whose answer is complete."""
        attempt.call = None
        attempt.exchange.attempts.remove(attempt)
        attempt.worker.leave()
        if attempt.status < 500 or attempt.status == 501:  # a route that an engine does not have is no failure of it
            self._praise(attempt)
        else:
            self._blame(attempt, UpstreamError(Code.UPSTREAM_FAILED, "the worker failed"))

    def vouch(self, attempt: Attempt) -> None:
        """Take the first token of a probe as its success: a half-open breaker need not wait for the end of a long stream."""
        breaker = attempt.worker.breaker
        if breaker.state is BreakerState.HALF_OPEN and breaker.epoch == attempt.epoch:
            breaker.success(attempt.epoch)
            attempt.epoch = -1  # its end says nothing more, unless it breaks

    def _praise(self, attempt: Attempt) -> None:
        attempt.worker.cells.successes += 1
        attempt.worker.breaker.success(attempt.epoch)
        if attempt.exchange.span is not None:
            attempt.exchange.span.attempt(attempt.worker.url, attempt.status, "")

    def _blame(self, attempt: Attempt, error: UpstreamError) -> None:
        """Count a failure against the worker, unless the request is wrong, or the gateway had no room for the call or failed itself."""
        self._count_error(attempt, error)
        worker = attempt.worker
        if error.code in _NOBODYS_FAULT:
            worker.breaker.release(attempt.epoch)
            return
        worker.cells.failures += 1
        worker.breaker.failure(attempt.epoch if attempt.epoch >= 0 else None)
        if error.code is Code.CONNECT_FAILED:
            self.rt.report_failure(worker.id)

    def _count_error(self, attempt: Attempt, error: UpstreamError) -> None:
        code = str(error.code)
        errors = attempt.worker.cells.errors
        errors[code] = errors.get(code, 0) + 1
        if attempt.exchange.span is not None:
            attempt.exchange.span.attempt(attempt.worker.url, attempt.status, code)

    # -- time ---------------------------------------------------------------------------------------------------------

    def _plan_hedge(self, x: Exchange) -> None:
        hedge = self._hedge
        assert x.pool is not None
        if len(x.pool.members) < 2:
            return
        quantile_s = x.pool.first_byte_quantile_s(hedge.quantile)
        if quantile_s is not None:
            delay_s = min(max(quantile_s, hedge.min_delay_s), hedge.max_delay_s)
            x.hedge_timer = self.rt.loop.call_later(delay_s, self._send_hedge, x)

    def _send_hedge(self, x: Exchange) -> None:
        """Ask a second worker, if the first has not answered yet."""
        x.hedge_timer = None
        if x.over or x.started or len(x.attempts) != 1 or x.attempts[0].mode not in (NONE, STREAM):
            return
        if not self._hedge.enabled or not self._hedges.take():
            return
        worker = next_worker(x)
        if worker is None:
            return
        assert x.cells is not None
        x.cells.hedges += 1
        self._send(x, worker, hedge=True)

    def tick(self, now_s: float) -> None:
        """End what took too long; called ten times a second."""
        self._budget.tick(now_s)
        self._hedges.tick(now_s)
        for x in tuple(self.active):
            if x.over:
                continue
            if now_s - x.started_s > self._timeouts.total_s:
                self._overdue(x)
            elif x.paused_s:
                if now_s - x.paused_s > self._write_timeout_s:
                    x.client.abort()
                    self.client_gone(x)
            elif x.attempts:
                self._check(x, now_s)

    def _check(self, x: Exchange, now_s: float) -> None:
        """Apply the time limits of an attempt."""
        limits = self._timeouts
        for attempt in tuple(x.attempts):
            if attempt.heard:
                attempt.heard = False
                attempt.last_s = now_s
            waited_s = now_s - attempt.sent_s
            if attempt.mode == NONE:
                late = waited_s > limits.first_byte_s or (x.facts.stream and waited_s > limits.first_token_s)
                text = "the worker did not begin to answer in time"
            else:
                scanner = attempt.scanner
                if scanner is not None and scanner.done and scanner.complete and x.started and now_s - attempt.last_s > LINGER_S:
                    self._hang_up(attempt)
                    continue
                if scanner is not None and not scanner.token_seen and waited_s > limits.first_token_s:
                    late, text = True, "the worker gave no token in time"
                else:
                    late, text = now_s - attempt.last_s > limits.idle_s, "the worker stopped sending"
            if late:
                if attempt.call is not None:
                    attempt.call.cancel()
                self.attempt_failed(attempt, UpstreamError(Code.UPSTREAM_TIMEOUT, text, retry=Retry.RESEND))

    def _overdue(self, x: Exchange) -> None:
        """End a request that has used up its whole time."""
        error = GatewayError(Code.DEADLINE_EXCEEDED, "the request took longer than the gateway allows", retry=Retry.CLIENT)
        if not x.started:
            self._fail(x, error)
            return
        attempt = x.attempts[0]
        if x.streaming and attempt.scanner is not None:
            if attempt.scanner.complete:
                self._hang_up(attempt)
                return
            x.client.write(error_event(x.endpoint.dialect, error, x.request_id, attempt.scanner.sequence_number + 1))
            x.client.finish()
        else:
            x.client.abort()
        x.error = error
        self._end(x)

    def close(self) -> None:
        """End every exchange at once: the process stops."""
        for x in tuple(self.active):
            if not x.over:
                x.client.abort()
                self.client_gone(x)


def _code_line(error: GatewayError) -> bytes:
    """The header line that tells an error's code, whosever body comes with it."""
    return b"x-smg-error-code: %b\r\n" % error.code.encode()
