"""Checks that look at several keys at once, or at the machine: URLs, names that clash, files, variables, extras.

`mistakes` keeps a gateway from starting; `hints` are things that work and are probably not meant.
"""

from __future__ import annotations

import ipaddress
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from gateway.config import tls_files, url
from gateway.config.mask import MASK
from gateway.config.mistake import Path, dotted
from gateway.config.model import DnsDiscovery, GatewayConfig, KubernetesDiscovery, RetryConfig, Role, WorkerConfig
from gateway.config.shape import check_template

Found = Iterator[tuple[Path, str]]

SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
NO_GRPC = "grpc workers are not served by this version; use http"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_NAMESERVER = re.compile(r"(?P<address>\[[0-9A-Fa-f:.]+\]|[0-9.]+):(?P<port>[0-9]{1,5})")


def mistakes(config: GatewayConfig, environ: Mapping[str, str]) -> Found:
    """Yield every mistake, as the path of the key and what is wrong."""
    yield from _server(config)
    yield from _workers(config.workers, environ)
    yield from _discovery(config, environ)
    yield from _models(config)
    yield from _policies(config)
    yield from _auth(config)
    yield from _trace(config)
    if config.model_path is not None and not pathlib.Path(config.model_path).is_dir():
        yield ("model_path",), f"no such folder: {config.model_path}"


def hints(config: GatewayConfig) -> tuple[str, ...]:
    """Say what works but is probably not meant."""
    return tuple(_hints(config))


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def worker_mistakes(worker: WorkerConfig, environ: Mapping[str, str]) -> Found:
    """Yield what is wrong with one worker, paths from the worker on."""
    problem = url.problem_of(worker.url)
    if problem is not None:
        yield ("url",), problem
    if worker.api_key is not None:
        secret = worker.api_key.get_secret_value()
        if worker.api_key_env is not None:
            yield ("api_key_env",), "is given beside `api_key`; choose one"
        if secret == MASK:
            yield ("api_key",), "is the mask that stands for a secret; write the key itself, or use `api_key_env`"
        elif not secret or not secret.isprintable() or " " in secret:
            yield ("api_key",), "is empty, or holds a space or a control character"
    elif worker.api_key_env is not None and not environ.get(worker.api_key_env):
        yield ("api_key_env",), f"the environment variable {worker.api_key_env} is not set"
    if worker.ca_file is not None:
        problem = tls_files.problem_of_authorities(worker.ca_file)
        if problem is not None:
            yield ("ca_file",), problem
        elif not worker.verify_tls:
            yield ("ca_file",), "has no effect while `verify_tls` is off"


def _server(config: GatewayConfig) -> Found:
    server = config.server
    if not server.host or " " in server.host:
        yield ("server", "host"), "must be an address or a name"
    metrics_host = server.metrics_host if server.metrics_host is not None else "127.0.0.1"
    overlap = metrics_host == server.host or server.host in ("0.0.0.0", "::") or metrics_host in ("0.0.0.0", "::")
    if server.port and server.port == server.metrics_port and overlap:
        yield ("server", "metrics_port"), f"is the port of the gateway itself, {server.port}; choose another, or null for none"
    if server.tls is not None:
        files = {"cert_file": server.tls.cert_file, "key_file": server.tls.key_file}
        unreadable = {key: problem for key, path in files.items() if (problem := tls_files.problem_of_file(path)) is not None}
        for key, problem in unreadable.items():
            yield ("server", "tls", key), problem
        pair = None if unreadable else tls_files.problem_of_pair(server.tls.cert_file, server.tls.key_file)
        if pair is not None:
            yield ("server", "tls", "key_file"), pair
        if server.tls.client_ca_file is not None:
            ca_problem = tls_files.problem_of_authorities(server.tls.client_ca_file)
            if ca_problem is not None:
                yield ("server", "tls", "client_ca_file"), ca_problem
    for index, name in enumerate(server.request_id_headers):
        if not _TOKEN.fullmatch(name):
            yield ("server", "request_id_headers", index), f"{name!r} is no name of a header"


def _workers(workers: tuple[WorkerConfig, ...], environ: Mapping[str, str]) -> Found:
    first: dict[str, int] = {}
    for index, worker in enumerate(workers):
        yield from ((("workers", index, *path), message) for path, message in worker_mistakes(worker, environ))
        if url.problem_of(worker.url) is not None:
            continue
        if worker.url.lower().startswith("grpc://"):
            yield ("workers", index, "url"), NO_GRPC
        before = first.setdefault(url.identity(worker.url), index)
        if before != index:
            yield ("workers", index, "url"), f"is the same worker as workers[{before}]"


def _discovery(config: GatewayConfig, environ: Mapping[str, str]) -> Found:
    for index, source in enumerate(config.discovery):
        here: Path = ("discovery", index)
        if source in config.discovery[:index]:
            yield here, f"is the same as discovery[{config.discovery.index(source)}]"
        if isinstance(source, DnsDiscovery):
            yield from (((*here, *path), message) for path, message in _dns(source))
        elif isinstance(source, KubernetesDiscovery):
            if find_spec("kubernetes") is None:
                yield (*here, "kind"), "needs the kubernetes extra: pip install 'smgctl[kubernetes]'"
            if source.kubeconfig is not None and (problem := tls_files.problem_of_file(source.kubeconfig)) is not None:
                yield (*here, "kubeconfig"), problem
        if isinstance(source, DnsDiscovery | KubernetesDiscovery):
            if source.scheme == "grpc":
                yield (*here, "scheme"), NO_GRPC
            worker, wrong = check_template(source.worker)
            yield from (((*here, "worker", *path), message) for path, message in wrong)
            if worker is not None:
                yield from (((*here, "worker", *path), message) for path, message in worker_mistakes(worker, environ))


def _dns(source: DnsDiscovery) -> Found:
    if source.record == "SRV" and source.port is not None:
        yield ("port",), "has no effect: SRV records carry their own port"
    if source.record != "SRV" and source.port is None:
        yield ("port",), f"is missing: {source.record} records carry no port"
    for position, server in enumerate(source.nameservers):
        match = _NAMESERVER.fullmatch(server)
        address = match["address"].strip("[]") if match else server
        try:
            ipaddress.ip_address(address)
        except ValueError:
            yield ("nameservers", position), f"{server!r} is not ADDRESS or ADDRESS:PORT"


def _models(config: GatewayConfig) -> Found:
    names: dict[str, int] = {}
    for index, model in enumerate(config.models):
        before = names.setdefault(model.name, index)
        if before != index:
            yield ("models", index, "name"), f"{model.name!r} is the name of models[{before}] already"
    taken: dict[str, str] = {}
    for index, model in enumerate(config.models):
        for position, alias in enumerate(model.aliases):
            here: Path = ("models", index, "aliases", position)
            if alias in names:
                yield here, f"{alias!r} is the name of models[{names[alias]}]"
            elif alias in taken:
                yield here, f"{alias!r} is an alias already, {taken[alias]}"
            taken.setdefault(alias, dotted(here))


def _policies(config: GatewayConfig) -> Found:
    for section, low, high in (
        ("retry", "initial_backoff_s", "max_backoff_s"),
        ("hedge", "min_delay_s", "max_delay_s"),
        ("breaker", "open_s", "max_open_s"),
    ):
        values = getattr(config, section)
        if getattr(values, low) > getattr(values, high):
            yield (section, high), f"must be at least `{section}.{low}`, {getattr(values, low):g}"
    yield from _statuses(config.retry)
    if not _TOKEN.fullmatch(config.routing.routing_key_header):
        yield ("routing", "routing_key_header"), f"{config.routing.routing_key_header!r} is no name of a header"


def _statuses(retry: RetryConfig) -> Found:
    for index, status in enumerate(retry.statuses):
        if status not in (408, 425, 429) and not 500 <= status <= 599:
            said = f"{status} is an answer for the client" if 200 <= status < 500 else f"{status} is no status of an answer"
            yield ("retry", "statuses", index), f"{said}; only 408, 425, 429 and 500 to 599 may be tried elsewhere"


def _auth(config: GatewayConfig) -> Found:
    ids: dict[str, int] = {}
    hashes: dict[str, int] = {}
    for index, key in enumerate(config.auth.keys):
        here: Path = ("auth", "keys", index)
        if (before := ids.setdefault(key.id, index)) != index:
            yield (*here, "id"), f"{key.id!r} is the id of auth.keys[{before}] already"
        if (before := hashes.setdefault(key.sha256, index)) != index:
            yield (*here, "sha256"), f"is the key of auth.keys[{before}] already"
        if key.sha256 == SHA256_OF_NOTHING:
            yield (*here, "sha256"), "is the hash of an empty key"
        if not key.roles:
            yield (*here, "roles"), "is empty: the key would open nothing"
    if not _TOKEN.fullmatch(config.auth.tenant_header):
        yield ("auth", "tenant_header"), f"{config.auth.tenant_header!r} is no name of a header"


def _trace(config: GatewayConfig) -> Found:
    if not config.trace.enabled:
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        yield ("trace", "enabled"), "needs the tracing extra: pip install 'smgctl[tracing]'"
    try:
        parts = urlsplit(config.trace.endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        yield ("trace", "endpoint"), "must be a url, http://HOST:4318/v1/traces"


def _hints(config: GatewayConfig) -> Iterable[str]:
    server, auth = config.server, config.auth
    if not config.workers and not config.discovery:
        yield "there is no worker and no discovery; add workers with `smgctl worker add URL`"
    roles = {role for key in auth.keys for role in key.roles}
    if not is_loopback(server.host):
        if not roles & {Role.ADMIN, Role.VIEW}:
            yield (
                f"the control plane is closed, since the gateway listens on {server.host} and no key has the role admin or view; "
                "give one with --api-key or auth.keys"
            )
        if not auth.keys:
            yield f"everybody who reaches {server.host} may send requests; give keys with --api-key or auth.keys"
        elif server.tls is None:
            yield f"API keys travel in clear text, since the gateway listens on {server.host} without server.tls"
    elif auth.keys and Role.ADMIN not in roles:
        yield "no key has the role admin: nobody can change workers or configuration while the gateway runs"
    if auth.keys and Role.DATA not in roles:
        yield "no key has the role data: nobody can send requests"
    if auth.trust_tenant_header and not auth.keys:
        yield f"everybody may claim any tenant by {auth.tenant_header}, since there are no keys"
    for index, worker in enumerate(config.workers):
        if worker.url.startswith("https://") and not worker.verify_tls:
            yield f"the certificate of workers[{index}] is not checked; give its authority as `ca_file` instead"
