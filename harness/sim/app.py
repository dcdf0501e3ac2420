"""The routes of a simulated engine, by flavour: what each answers, in which status, with which headers."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from harness.sim import bodies, info, metrics, pooling, prompts, requests, tokens
from harness.sim.dialects import messages
from harness.sim.dialects.table import codecs
from harness.sim.driver import Driver
from harness.sim.faults import Fault, Faults, Kind
from harness.sim.http import Exchange, Headers
from harness.sim.job import Api, Job
from harness.sim.refusal import Refusal
from harness.sim.replies import StreamReply, WholeReply
from harness.sim.settings import SimSettings

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
MARK = ("x-smg-sim", "1")
"""On every answer: whoever sees it knows that no engine computed anything."""
UNAVAILABLE = "LLM is unavailable. Please check the server logs for more details."
NOT_EMBEDDING = (
    "This model does not appear to be an embedding model by default. "
    "Please add `--is-embedding` when launching the server or try another model."
)

Route = Callable[[Exchange, Fault | None], None]


class Engine(Protocol):
    """What the application needs of its engine."""

    armed: Faults

    def abandon(self, job: Job) -> None:
        """Abort a job."""

    def gone(self, job: Job) -> None:
        """Abort a job whose client left, and count it."""

    def answered(self, status: int) -> None:
        """Count an answer."""

    def crash(self) -> None:
        """Die."""

    def later(self, delay_s: float, exchange: Exchange, call: Callable[[], None]) -> None:
        """Call back after a while, unless the exchange is over or the engine closed by then."""


class App:
    """All routes of one engine. Created by `SimEngine`, lives as long as its driver."""

    def __init__(self, settings: SimSettings, driver: Driver, engine: Engine) -> None:
        self._settings = settings
        self._driver = driver
        self._engine = engine
        self._codecs = codecs(settings)
        self._record = metrics.Record(settings, driver)
        self._ids = settings.flavour == "vllm" and settings.request_id_headers
        self._plain: Headers = [] if settings.flavour == "trtllm" else [("vary", "Origin")]
        self._routes: dict[str, dict[str, Route]] = {}
        self._add_routes()

    @property
    def paths(self) -> frozenset[str]:
        """The paths that this engine has."""
        return frozenset(self._routes)

    def handle(self, exchange: Exchange, fault: Fault | None) -> None:
        """Answer a request, now or when its tokens are made."""
        request = exchange.request
        self._record.request(request.method, request.path, len(request.body))
        methods = self._routes.get(request.path)
        if methods is None:
            self._send(exchange, fault, 404, JSON, b'{"detail":"Not Found"}')
            return
        route = methods.get(request.method)
        if route is None:
            allow = [("allow", ", ".join(methods))]
            self._send(exchange, fault, 405, JSON, b'{"detail":"Method Not Allowed"}', allow)
            return
        if self._settings.api_key is not None and not self._allowed(exchange):
            self._send(exchange, fault, 401, JSON, b'{"error":"Unauthorized"}')
            return
        try:
            route(exchange, fault)
        except Refusal as refusal:
            self._refuse(exchange, fault, refusal)

    def refuse(self, exchange: Exchange, status: int, kind: str, message: str, headers: Headers | None = None) -> None:
        """Answer with the engine's own error body."""
        self._send(exchange, None, status, JSON, self._error(exchange, Refusal(status, kind, message)), headers or [])

    def _add_routes(self) -> None:
        settings = self._settings
        add = self._add
        add("GET", "/health", self._health)
        add("GET", "/v1/models", self._value(lambda: info.models(settings)))
        match settings.flavour:
            case "vllm":
                add("GET", "/ping", self._health)
                add("POST", "/ping", self._health)
                add("GET", "/version", self._value(lambda: {"version": info.VLLM_VERSION}))
                add("GET", "/load", self._value(lambda: {"server_load": self._driver.jobs}))
                add("GET", "/metrics", self._metrics("text/plain; version=1.0.0; charset=utf-8"))
                add("POST", "/tokenize", self._tokenize)
                add("POST", "/detokenize", self._detokenize)
            case "sglang":
                add("GET", "/health_generate", self._health)
                for path in ("/get_model_info", "/model_info"):
                    add("GET", path, self._value(lambda: info.model_info(settings)))
                for path in ("/get_server_info", "/server_info"):
                    add("GET", path, self._value(lambda: info.server_info(settings, self._driver, self._record.throughput)))
                add("GET", "/v1/loads", self._value(lambda: info.loads(settings, self._driver, self._record.throughput)))
                add("GET", "/metrics", self._metrics("text/plain; version=0.0.4; charset=utf-8"))
                for method in ("GET", "POST"):
                    add(method, "/flush_cache", self._flush)
                for path in ("/tokenize", "/v1/tokenize"):
                    add("POST", path, self._tokenize)
                for path in ("/detokenize", "/v1/detokenize"):
                    add("POST", path, self._detokenize)
            case "trtllm":
                add("GET", "/health_generate", self._health)
                add("GET", "/version", self._value(lambda: {"version": info.TRTLLM_VERSION}))
                add("GET", "/metrics", self._value(self._record.iteration_stats))
                add("GET", "/prometheus/metrics", self._metrics("text/plain; version=0.0.4; charset=utf-8"))
                add("GET", "/perf_metrics", self._value(list))
                add("POST", "/kv_cache_events", self._value(list))
                add("GET", "/server_info", self._value(lambda: {"disaggregated_params": {}}))
        self._add_inference()

    def _add_inference(self) -> None:
        settings = self._settings
        paths = {
            Api.CHAT: "/v1/chat/completions",
            Api.COMPLETIONS: "/v1/completions",
            Api.RESPONSES: "/v1/responses",
            Api.MESSAGES: "/v1/messages",
            Api.GENERATE: "/generate",
        }
        if "generate" in settings.tasks:
            for api in self._codecs.whole:
                self._add("POST", paths[api], functools.partial(self._generate, api))
            if settings.flavour != "trtllm":
                self._add("POST", "/v1/messages/count_tokens", self._count_tokens)
        match settings.flavour:
            case "vllm":
                if "embed" in settings.tasks:
                    self._add("POST", "/v1/embeddings", self._embed)
                if "rerank" in settings.tasks:
                    for path in ("/v1/rerank", "/rerank", "/v2/rerank"):
                        self._add("POST", path, self._rerank)
            case "sglang":
                self._add("POST", "/v1/embeddings", self._embed)
                self._add("POST", "/v1/rerank", self._rerank)
            case "trtllm":
                pass

    def _add(self, method: str, path: str, route: Route) -> None:
        self._routes.setdefault(path, {})[method] = route

    # Routes that answer at once.

    def _health(self, exchange: Exchange, fault: Fault | None) -> None:
        trtllm = self._settings.flavour == "trtllm"
        generates = exchange.request.path == "/health_generate"
        if self._engine.armed.active(Kind.UNHEALTHY):
            text = (b"Generation health check failed" if generates else UNAVAILABLE.encode()) if trtllm else b""
            self._send(exchange, fault, 500 if trtllm and generates else 503, None, text)
            return
        text = b"Generation health check OK" if trtllm and generates else b""
        if generates or self._settings.flavour == "sglang":
            # These engines answer when a token came out: the time of one step.
            step_s = (self._settings.decode_base_ms + self._settings.decode_per_req_ms) / 1000.0
            self._engine.later(step_s, exchange, lambda: self._send(exchange, fault, 200, None, text))
            return
        self._send(exchange, fault, 200, None, text)

    def _value(self, make: Callable[[], Any]) -> Route:
        def route(exchange: Exchange, fault: Fault | None) -> None:
            self._send(exchange, fault, 200, JSON, orjson.dumps(make()))

        return route

    def _metrics(self, content_type: str) -> Route:
        def route(exchange: Exchange, fault: Fault | None) -> None:
            body = self._record.exposition().encode()
            if self._settings.flavour != "sglang" or fault is not None:
                self._send(exchange, fault, 200, content_type, body)
                return
            # SGLang mounts its exporter as an application of its own: other header case, chunked.
            self._answered(exchange, 200, 0)
            exchange.start(200, [("Content-Type", content_type), *self._plain, MARK], self._codecs.chunk_header)
            exchange.chunk(body)
            exchange.end()

        return route

    def _flush(self, exchange: Exchange, fault: Fault | None) -> None:
        self._driver.scheduler.pool.forget()
        self._send(exchange, fault, 200, PLAIN, b"Cache flushed.\nPlease check backend logs for more details. (simulated)\n")

    def _tokenize(self, exchange: Exchange, fault: Fault | None) -> None:
        body = self._body(exchange)
        if body.get("messages") is not None:
            text = prompts.read(Api.CHAT, body).prompts[0]
        elif isinstance(body.get("prompt"), str):
            text = body["prompt"]
        else:
            raise Refusal.missing("prompt") if body.get("prompt") is None else Refusal.invalid("prompt", "Input should be a valid string")
        ids = tokens.encode(text)
        limit = self._settings.max_model_len
        value: dict[str, Any] = {"tokens": ids, "count": len(ids), "max_model_len": limit}
        if self._settings.flavour == "vllm":
            strings = [tokens.decode([one]) for one in ids] if body.get("return_token_strs") else None
            value = {"count": len(ids), "max_model_len": limit, "tokens": ids, "token_strs": strings}
        self._send(exchange, fault, 200, JSON, orjson.dumps(value))

    def _detokenize(self, exchange: Exchange, fault: Fault | None) -> None:
        body = self._body(exchange)
        ids = body.get("tokens")
        if ids is None:
            raise Refusal.missing("tokens")
        if not isinstance(ids, list) or not all(isinstance(one, int) for one in ids):
            raise Refusal.invalid("tokens", "Input should be a valid list of integers")
        name = "prompt" if self._settings.flavour == "vllm" else "text"
        self._send(exchange, fault, 200, JSON, orjson.dumps({name: tokens.decode(ids)}))

    def _count_tokens(self, exchange: Exchange, fault: Fault | None) -> None:
        plan = prompts.read(Api.MESSAGES, self._body(exchange))
        self._send(exchange, fault, 200, JSON, orjson.dumps({"input_tokens": len(tokens.split(plan.prompts[0]))}))

    # Routes that wait for the batch.

    def _generate(self, api: Api, exchange: Exchange, fault: Fault | None) -> None:
        job = requests.build(self._settings, api, self._body(exchange), exchange.request.header(b"x-request-id"))
        exchange.on_gone = functools.partial(self._engine.gone, job)
        if job.stream:
            self._answered(exchange, 200, 0)
            exchange.start(200, self._headers(exchange, EVENTS), self._codecs.chunk_header)
            StreamReply(self._engine, exchange, job, self._codecs.stream[api](job), fault)
        else:
            job.on_over = lambda: self._send(
                exchange, fault, 200, JSON, orjson.dumps(self._codecs.whole[api](job)), self._load_headers(exchange)
            )
        self._driver.submit(job)

    def _embed(self, exchange: Exchange, fault: Fault | None) -> None:
        body = self._body(exchange)
        if "embed" not in self._settings.tasks:
            raise Refusal(400, "BadRequestError", NOT_EMBEDDING)
        requests.served(self._settings, body)
        pooling.check_dimensions(body)
        texts = pooling.inputs(body)
        self._pool(exchange, fault, body, texts, lambda job: pooling.embeddings(self._settings, job, texts))

    def _rerank(self, exchange: Exchange, fault: Fault | None) -> None:
        body = self._body(exchange)
        if "rerank" not in self._settings.tasks:
            raise Refusal(400, "BadRequestError", NOT_EMBEDDING)
        requests.served(self._settings, body)
        query, texts = pooling.documents(body)
        pairs = [f"{query}\n{text}" for text in texts]
        self._pool(exchange, fault, body, pairs, lambda job: pooling.rerank(self._settings, job, query, texts))

    def _pool(self, exchange: Exchange, fault: Fault | None, body: dict[str, Any], texts: list[str], make: Callable[[Job], Any]) -> None:
        job = pooling.job(self._settings, body, texts)
        exchange.on_gone = functools.partial(self._engine.gone, job)
        job.on_over = lambda: self._send(exchange, fault, 200, JSON, orjson.dumps(make(job)))
        self._driver.submit(job)

    # What all routes share.

    def _body(self, exchange: Exchange) -> dict[str, Any]:
        return bodies.read(self._settings.flavour, exchange.request.body)

    def _allowed(self, exchange: Exchange) -> bool:
        request = exchange.request
        if self._settings.flavour == "sglang":
            if request.path.startswith(("/health", "/metrics")):
                return True
        elif not request.path.startswith("/v1"):
            return True
        return request.header(b"authorization") == f"Bearer {self._settings.api_key}"

    def _refuse(self, exchange: Exchange, fault: Fault | None, refusal: Refusal) -> None:
        self._send(exchange, fault, refusal.status, JSON, self._error(exchange, refusal))

    def _error(self, exchange: Exchange, refusal: Refusal) -> bytes:
        if exchange.request.path.startswith("/v1/messages") and refusal.kind != "Bad Request":
            return messages.error_body(refusal.status, refusal.message)
        return self._codecs.error(refusal.status, refusal.kind, refusal.message, refusal.param)

    def _send(
        self, exchange: Exchange, fault: Fault | None, status: int, content_type: str | None, body: bytes, more: Headers | None = None
    ) -> None:
        self._answered(exchange, status, len(body))
        headers = self._headers(exchange, content_type)
        WholeReply(self._engine, exchange, fault).send(status, headers + more if more else headers, body)

    def _answered(self, exchange: Exchange, status: int, size_bytes: int) -> None:
        self._engine.answered(status)
        request = exchange.request
        self._record.answer(request.method, request.path, status, size_bytes, time.monotonic() - exchange.arrived_s)

    def _headers(self, exchange: Exchange, content_type: str | None) -> Headers:
        headers: Headers = [] if content_type is None else [("content-type", content_type)]
        headers += self._plain
        if self._ids:
            headers.append(("x-request-id", exchange.request.header(b"x-request-id") or uuid.uuid4().hex))
        headers.append(MARK)
        return headers

    def _load_headers(self, exchange: Exchange) -> Headers:
        """Return ORCA's load header where the client asked for it; SGLang has none."""
        if self._settings.flavour == "sglang":
            return []
        style = exchange.request.header(b"endpoint-load-metrics-format")
        value = info.orca(self._settings, self._driver, style) if style else None
        return [("endpoint-load-metrics", value)] if value else []
