"""The configuration of a gateway: frozen pydantic models, one class a section, every default and limit said here.

Config keys equal attribute names. Durations are seconds (`_s`), sizes are bytes (`_bytes`). `load.py` turns YAML, flags and
`SMG_*` variables into a `GatewayConfig`; `compare.py` says which changes need a restart. Nothing here opens a file.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Engine(StrEnum):
    """What runs behind a worker's URL."""

    SGLANG = "sglang"
    VLLM = "vllm"
    TRTLLM = "trtllm"
    LLAMACPP = "llamacpp"
    OPENAI = "openai"
    """Any other server that speaks the OpenAI HTTP API."""


class PriorityClass(StrEnum):
    """The four admission classes, first served first."""

    SYSTEM = "system"
    INTERACTIVE = "interactive"
    DEFAULT = "default"
    BULK = "bulk"


class Role(StrEnum):
    """What an API key opens."""

    DATA = "data"
    """Inference routes and `/v1/models`."""
    VIEW = "view"
    """Read the control plane."""
    ADMIN = "admin"
    """Read and change the control plane."""


PolicyName = Literal[
    "round_robin",
    "random",
    "power_of_two",
    "least_load",
    "cache_aware",
    "prefix_hash",
    "consistent_hashing",
    "bucket",
    "sticky",
    "passthrough",
]
PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class TlsConfig(Section):
    """TLS in front of the gateway."""

    cert_file: str
    """PEM certificate chain."""
    key_file: str
    """PEM private key."""
    client_ca_file: str | None = None
    """PEM bundle; when set, clients must present a certificate that it signs."""


class ServerConfig(Section):
    """Where the gateway listens, and what it takes from a client."""

    host: str = "127.0.0.1"
    """Address to listen on; beyond loopback the control plane needs a key."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 30_000
    """Port to listen on; 0 takes a free one."""
    metrics_host: str | None = None
    """Address of the metrics port; the loopback address unless set."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = 29_000
    """Port of `/metrics`; null switches it off, 0 takes a free one."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Event loops on the port, one a process."""
    tls: TlsConfig | None = None
    """HTTPS instead of HTTP."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 64 << 20
    """Largest request body (413 above it)."""
    max_header_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 64 << 10
    """Largest request head (431 above it); node.js takes 16 KiB, nginx 32 KiB."""
    max_connections: Annotated[int, Field(ge=1)] = 20_000
    """Client connections of one process; further ones are closed at once."""
    header_timeout_s: PositiveSeconds = 15.0
    """Time a client has to send a request's head (408)."""
    body_timeout_s: PositiveSeconds = 120.0
    """Time a client may stay silent while it sends a body (408)."""
    keep_alive_timeout_s: PositiveSeconds = 75.0
    """Idle time after which a client's connection is closed."""
    write_timeout_s: PositiveSeconds = 300.0
    """Time a client may refuse to read before it is taken as gone."""
    drain_timeout_s: Seconds = 180.0
    """Time that requests in flight have after SIGTERM."""
    drain_settle_s: Seconds = 0.0
    """Time between readiness turning 503 and the listening socket closing, for load balancers to notice."""
    request_id_headers: tuple[str, ...] = ("x-request-id", "x-correlation-id", "x-trace-id", "request-id")
    """Headers that may carry the client's request id, first found wins."""


class ModelConfig(Section):
    """A client-visible model: aliases, policy and overrides."""

    name: str
    """The name the workers know."""
    aliases: tuple[str, ...] = ()
    """Other names that clients may use; the request body is passed on unchanged unless `rewrite_alias` is on."""
    rewrite_alias: bool = True
    """Replace an alias in the body by `name`, since engines refuse names they do not know."""
    policy: PolicyName | None = None
    """Policy of this model; the gateway's policy unless set."""


class HealthConfig(Section):
    """Active health checks of a worker."""

    enabled: bool = True
    """Off: a worker counts as ready at once, and only failing requests say otherwise."""
    path: str | None = None
    """Path asked; the engine's own health route unless set."""
    interval_s: PositiveSeconds = 5.0
    """Time between two checks."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the interval by which each check is moved at random."""
    timeout_s: PositiveSeconds = 5.0
    """Time a check may take."""
    failure_threshold: Annotated[int, Field(ge=1)] = 3
    """Checks in a row that must fail before the worker is not ready."""
    success_threshold: Annotated[int, Field(ge=1)] = 1
    """Checks in a row that must succeed before it is ready again."""
    startup_timeout_s: PositiveSeconds = 1800.0
    """Time a new worker has to answer before it is taken as failed; models load slowly."""


class WorkerConfig(Section):
    """One engine to route to."""

    url: str
    """`http://`, `https://` or `grpc://` and host:port."""
    models: tuple[str, ...] = ()
    """Names it serves; asked of the engine unless given."""
    engine: Engine | None = None
    """Which engine; found out unless given."""
    priority: Annotated[int, Field(ge=0, le=1000)] = 50
    """Tier: workers of the highest priority with an available worker are used first."""
    cost: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Relative cost of a request here: a worker of cost 2 gets half of what one of cost 1 gets."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Names and values of your own, shown with the worker."""
    api_key: SecretStr | None = None
    """Bearer token sent to the worker."""
    api_key_env: str | None = None
    """Environment variable that holds the bearer token."""
    ca_file: str | None = None
    """PEM bundle that signs the worker's certificate; the system's unless set."""
    verify_tls: bool = True
    """Check the worker's certificate and its name."""
    max_connections: Annotated[int, Field(ge=1)] | None = None
    """Connections of one process to this worker; `upstream.max_connections` unless set."""
    ask_usage: bool = True
    """Ask for token usage on streams (`stream_options.include_usage`) where the client did not."""
    health: HealthConfig | None = None
    """Overrides the gateway's `health` for this worker."""


class FileDiscovery(Section):
    """A watched file of workers (YAML or JSON: a list of URLs or of worker sections)."""

    kind: Literal["file"]
    """Which kind of discovery this is."""
    path: str
    """The file; it may be missing for now."""
    interval_s: PositiveSeconds = 1.0
    """How often the file is looked at."""


class DnsDiscovery(Section):
    """Workers behind a DNS name (A/AAAA with a port, or SRV)."""

    kind: Literal["dns"]
    """Which kind of discovery this is."""
    name: str
    """The name that is looked up."""
    record: Literal["A", "AAAA", "SRV"] = "A"
    """Kind of record; SRV brings ports of its own."""
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Port of A and AAAA answers."""
    scheme: Literal["http", "https", "grpc"] = "http"
    """Scheme of the workers' URLs."""
    interval_s: PositiveSeconds = 10.0
    """How often the name is looked up."""
    nameservers: tuple[str, ...] = ()
    """`address` or `address:port`; the system's resolver unless given."""
    worker: dict[str, object] = Field(default_factory=dict)
    """Worker keys that every worker found here gets."""


class KubernetesDiscovery(Section):
    """Pods found by a label selector (needs the `kubernetes` extra)."""

    kind: Literal["kubernetes"]
    """Which kind of discovery this is."""
    selector: str
    """Kubernetes label selector, `app=vllm,tier!=dev`."""
    namespace: str | None = None
    """One namespace; all unless set."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    """Port of the engine in each pod."""
    scheme: Literal["http", "https", "grpc"] = "http"
    """Scheme of the workers' URLs."""
    kubeconfig: str | None = None
    """Path of a kubeconfig; the pod's service account unless set."""
    worker: dict[str, object] = Field(default_factory=dict)
    """Worker keys that every pod found here gets."""


Discovery = Annotated[FileDiscovery | DnsDiscovery | KubernetesDiscovery, Field(discriminator="kind")]


class RoutingConfig(Section):
    """How workers of a pool are ranked."""

    policy: PolicyName = "cache_aware"
    """How workers are ranked, unless a model has a policy of its own."""
    routing_key_header: str = "x-smg-routing-key"
    """Header with the key of sticky and consistent_hashing."""
    cache_threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
    """cache_aware: share of the prompt that must match to follow the cache."""
    balance_abs_threshold: Annotated[int, Field(ge=0)] = 16
    """cache_aware, bucket: requests in flight more than on the least loaded worker above which load wins, where the relative
    threshold is exceeded too; an eighth of it for a prefix that many prompts share. smg takes 64, which lets one hot prefix hold
    up to 64 requests on one worker of an idle fleet."""
    balance_rel_threshold: Annotated[float, Field(ge=1)] = 1.5
    """cache_aware, bucket: multiple of the least loaded worker's requests in flight above which load wins (with the absolute one)."""
    max_tree_bytes: Annotated[int, Field(ge=1024)] = 64 << 20
    """cache_aware: memory of the prefix tree of one model in one process, prompts and nodes."""
    prefix_bytes: Annotated[int, Field(ge=1)] = 1024
    """prefix_hash: bytes of the prompt that are hashed (256 tokens of about 4 bytes)."""
    load_factor: Annotated[float, Field(ge=1)] = 1.25
    """prefix_hash, consistent_hashing: a worker takes at most this multiple of the mean load."""
    sticky_ttl_s: PositiveSeconds = 14_400.0
    """sticky: idle time after which a key forgets its worker."""
    sticky_max_keys: Annotated[int, Field(ge=1)] = 100_000
    """sticky: keys that are remembered; the longest unused is forgotten first."""
    bucket_interval_s: PositiveSeconds = 5.0
    """bucket: how often the length boundaries are drawn anew."""


class RetryConfig(Section):
    """Retries on another worker, before the first byte has gone to the client."""

    max_attempts: Annotated[int, Field(ge=1, le=20)] = 4
    """Attempts in all; 1 switches retries off."""
    statuses: tuple[int, ...] = (408, 429, 500, 502, 503, 504)
    """Answers of a worker that are tried elsewhere."""
    resend: bool = True
    """Also retry where the first attempt may have been processed (an answer that broke off, a timeout)."""
    initial_backoff_s: Seconds = 0.02
    """Wait before the first retry."""
    max_backoff_s: Seconds = 2.0
    """Longest wait between two attempts."""
    multiplier: Annotated[float, Field(ge=1)] = 2.0
    """Factor by which the wait grows with each attempt."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the wait that is left to chance."""
    budget_ratio: Annotated[float, Field(ge=0, le=10)] = 0.2
    """Retries may add this share to the requests of the last `budget_window_s` (Finagle: 0.2)."""
    budget_min_per_s: Annotated[float, Field(ge=0)] = 10.0
    """Retries a second that are always allowed (Finagle: 10)."""
    budget_window_s: PositiveSeconds = 10.0
    """Window over which requests are counted for the budget."""


class HedgeConfig(Section):
    """A second worker is asked when the first is slow; the first answer wins, the loser is cancelled."""

    enabled: bool = False
    """Ask a second worker at all."""
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Quantile of recent times to the first byte after which the second request is sent."""
    min_delay_s: Seconds = 0.05
    """The second request is sent no earlier."""
    max_delay_s: PositiveSeconds = 10.0
    """The second request is sent no later."""
    max_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of requests that may be hedged."""


class BreakerConfig(Section):
    """Circuit breaker of a worker, over a sliding window."""

    enabled: bool = True
    """Stop sending to a worker that keeps failing."""
    window_s: PositiveSeconds = 30.0
    """Length of the sliding window."""
    min_requests: Annotated[int, Field(ge=1)] = 5
    """Outcomes in the window below which the breaker stays closed."""
    failure_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Open when this share of at least `min_requests` outcomes in the window failed."""
    open_s: PositiveSeconds = 10.0
    """Time an open breaker waits before it lets probes through; doubles up to `max_open_s` while probes fail."""
    max_open_s: PositiveSeconds = 120.0
    """Longest time that an open breaker waits."""
    half_open_probes: Annotated[int, Field(ge=1)] = 1
    """Requests at once that a half-open breaker lets through."""
    success_threshold: Annotated[int, Field(ge=1)] = 2
    """Probes that must succeed to close."""


class TimeoutConfig(Section):
    """Time limits of one attempt, and of the whole request."""

    connect_s: PositiveSeconds = 5.0
    """Until the connection to the worker stands, TLS included."""
    first_byte_s: PositiveSeconds = 600.0
    """Until the head of the worker's answer; whole answers start when they are ready."""
    first_token_s: PositiveSeconds = 600.0
    """Streams: until the first event that carries a token."""
    idle_s: PositiveSeconds = 120.0
    """Between two pieces of an answer."""
    total_s: PositiveSeconds = 1800.0
    """The whole request, retries and all."""


class UpstreamConfig(Section):
    """The HTTP/1.1 connections to workers."""

    max_connections: Annotated[int, Field(ge=1)] = 1024
    """Connections of one process to one worker; further requests wait for one, at most `max_waiting`."""
    max_waiting: Annotated[int, Field(ge=0)] = 4096
    """Requests that may wait for a connection to one worker."""
    keep_alive_s: PositiveSeconds = 4.0
    """Idle time after which a connection is closed; below uvicorn's and llama.cpp's 5 s, so that ours closes first."""
    max_buffered_answer_bytes: Annotated[int, Field(ge=0)] = 8 << 20
    """Whole answers up to this size are held until complete, so that a broken one can be retried."""
    forward_headers: tuple[Annotated[str, Field(pattern=r"^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$")], ...] = ()
    """Further request headers that travel on to workers, in lower case; tracing and Anthropic ones always do."""
    slow_start_s: Seconds = 10.0
    """Time over which a worker that came back is given its full share."""


class ApiKeyConfig(Section):
    """One API key, kept as a hash."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """Name of the key in logs, metrics and limits."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hexadecimal SHA-256 of the key; `smgctl config hash-key` makes it."""
    tenant: str | None = None
    """Tenant it counts for; its id unless set."""
    roles: tuple[Role, ...] = (Role.DATA,)
    """What it opens: data (inference), view (read the control plane), admin (read and change it)."""
    max_priority: PriorityClass = PriorityClass.INTERACTIVE
    """Highest class that `x-smg-priority` may ask for."""


class AuthConfig(Section):
    """Who may use the gateway. Without keys the data plane is open; the control plane then listens on loopback only."""

    keys: tuple[ApiKeyConfig, ...] = ()
    """The keys; whoever has none of them is refused."""
    trust_tenant_header: bool = False
    """Take the tenant from a header, where a proxy in front has checked it."""
    tenant_header: str = "x-smg-tenant-id"
    """That header."""


class TenantLimit(Section):
    """Limits of one tenant, or of every tenant that has none of its own."""

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Requests; no limit unless set."""
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Prompt and completion tokens; reserved by estimate, settled by the engine's usage."""


class ClassConfig(Section):
    """The queue of one priority class."""

    queue_size: Annotated[int, Field(ge=0)]
    """Requests that may wait; further ones are refused."""
    queue_timeout_s: PositiveSeconds
    """Longest wait; then the request is refused."""
    starvation_s: PositiveSeconds = 10.0
    """A request that waited this long goes before higher classes."""


class AdmissionConfig(Section):
    """How many requests run at once, and who waits for how long."""

    max_concurrent_requests: Annotated[int, Field(ge=1)] | None = None
    """Over all processes; no limit unless set."""
    system: ClassConfig = ClassConfig(queue_size=64, queue_timeout_s=30, starvation_s=5)
    interactive: ClassConfig = ClassConfig(queue_size=256, queue_timeout_s=30, starvation_s=5)
    default: ClassConfig = ClassConfig(queue_size=512, queue_timeout_s=60, starvation_s=30)
    bulk: ClassConfig = ClassConfig(queue_size=1024, queue_timeout_s=300, starvation_s=120)
    tenant_limit: TenantLimit = TenantLimit()
    """For every tenant without an entry in `tenants`."""
    tenants: dict[str, TenantLimit] = Field(default_factory=dict)
    """Limits by tenant."""


class LogConfig(Section):
    """Logging of the gateway itself and of requests."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important lines that are written."""
    json_lines: bool = False
    """One JSON object a line instead of text."""
    access: bool = False
    """One structured line a request."""


class TraceConfig(Section):
    """OpenTelemetry traces over OTLP/HTTP (needs the `tracing` extra)."""

    enabled: bool = False
    """Send traces."""
    endpoint: str = "http://127.0.0.1:4318/v1/traces"
    """Where they are sent."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of requests that are traced, where the client did not decide."""
    service_name: str = "smg"
    """`service.name` of the traces."""


class GatewayConfig(Section):
    """The whole configuration of a gateway."""

    server: ServerConfig = ServerConfig()
    workers: tuple[WorkerConfig, ...] = ()
    """The engines to route to."""
    discovery: tuple[Discovery, ...] = ()
    """Where further workers are found while the gateway runs: a file, DNS, Kubernetes."""
    models: tuple[ModelConfig, ...] = ()
    """Models that have aliases or a policy of their own; all others need no entry."""
    routing: RoutingConfig = RoutingConfig()
    retry: RetryConfig = RetryConfig()
    hedge: HedgeConfig = HedgeConfig()
    breaker: BreakerConfig = BreakerConfig()
    timeouts: TimeoutConfig = TimeoutConfig()
    upstream: UpstreamConfig = UpstreamConfig()
    health: HealthConfig = HealthConfig()
    auth: AuthConfig = AuthConfig()
    admission: AdmissionConfig = AdmissionConfig()
    log: LogConfig = LogConfig()
    trace: TraceConfig = TraceConfig()
    model_path: str | None = None
    """Folder with a tokenizer, for gRPC workers."""
