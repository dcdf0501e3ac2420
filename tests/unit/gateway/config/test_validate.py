import pathlib
from collections.abc import Callable

import pytest
import trustme

from gateway.config.load import ConfigSource, Flags
from gateway.config.model import GatewayConfig
from gateway.config.validate import SHA256_OF_NOTHING, hints, is_loopback, mistakes

Problems = Callable[[str], list[str]]
A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server: {host: ''}", "server.host: must be an address or a name"),
        (
            "server: {port: 29000}",
            "server.metrics_port: is the port of the gateway itself, 29000; choose another, or null for none",
        ),
        (
            "server: {host: 0.0.0.0, port: 1, metrics_port: 1}",
            "server.metrics_port: is the port of the gateway itself, 1; choose another, or null for none",
        ),
        ("server: {request_id_headers: [x-ok, 'x bad']}", "server.request_id_headers[1]: 'x bad' is no name of a header"),
        ("workers: [{url: engine}]", "workers[0].url: has no scheme; did you mean http://engine?"),
        (
            "workers: [{url: 'http://a', api_key_env: SMG_NO_SUCH}]",
            "workers[0].api_key_env: the environment variable SMG_NO_SUCH is not set",
        ),
        ("workers: [{url: 'http://a', api_key: x, api_key_env: Y}]", "workers[0].api_key_env: is given beside `api_key`; choose one"),
        ("workers: [{url: 'http://a', api_key: ''}]", "workers[0].api_key: is empty, or holds a space or a control character"),
        ("workers: [{url: 'http://a', api_key: \"x\\n\"}]", "workers[0].api_key: is empty, or holds a space or a control character"),
        ("workers: [{url: 'https://a', ca_file: /nonexistent}]", "workers[0].ca_file: no such file: /nonexistent"),
        ("workers: [{url: 'http://a:1'}, {url: 'http://b'}, {url: 'http://A:1/'}]", "workers[2].url: is the same worker as workers[0]"),
        ("workers: [{url: 'grpc://a:1'}]", "workers[0].url: grpc workers are not served by this version; use http"),
        (
            "discovery: [{kind: kubernetes, selector: a=b, scheme: grpc}]",
            "discovery[0].scheme: grpc workers are not served by this version; use http",
        ),
        ("models: [{name: m}, {name: m}]", "models[1].name: 'm' is the name of models[0] already"),
        ("models: [{name: m, aliases: [n]}, {name: n}]", "models[0].aliases[0]: 'n' is the name of models[1]"),
        (
            "models: [{name: m, aliases: [x]}, {name: n, aliases: [y, x]}]",
            "models[1].aliases[1]: 'x' is an alias already, models[0].aliases[0]",
        ),
        ("discovery: [{kind: dns, name: a}]", "discovery[0].port: is missing: A records carry no port"),
        ("discovery: [{kind: dns, name: a, record: SRV, port: 1}]", "discovery[0].port: has no effect: SRV records carry their own port"),
        (
            "discovery: [{kind: dns, name: a, port: 1, nameservers: ['::1', '10.0.0.1:53', '[::1]:53', dns]}]",
            "discovery[0].nameservers[3]: 'dns' is not ADDRESS or ADDRESS:PORT",
        ),
        ("discovery: [{kind: dns, name: a, port: 1, worker: {cost: 0}}]", "discovery[0].worker.cost: must be greater than 0, not 0"),
        (
            "discovery: [{kind: kubernetes, selector: a=b, worker: {api_key_env: SMG_NO_SUCH}}]",
            "discovery[0].worker.api_key_env: the environment variable SMG_NO_SUCH is not set",
        ),
        ("discovery: [{kind: kubernetes, selector: a=b, kubeconfig: /none}]", "discovery[0].kubeconfig: no such file: /none"),
        ("discovery: [{kind: file, path: a}, {kind: file, path: a}]", "discovery[1]: is the same as discovery[0]"),
        ("retry: {initial_backoff_s: 3}", "retry.max_backoff_s: must be at least `retry.initial_backoff_s`, 3"),
        ("hedge: {max_delay_s: 0.01}", "hedge.max_delay_s: must be at least `hedge.min_delay_s`, 0.05"),
        ("breaker: {open_s: 200}", "breaker.max_open_s: must be at least `breaker.open_s`, 200"),
        (
            "retry: {statuses: [503, 400]}",
            "retry.statuses[1]: 400 is an answer for the client; only 408, 425, 429 and 500 to 599 may be tried elsewhere",
        ),
        (
            "retry: {statuses: [999]}",
            "retry.statuses[0]: 999 is no status of an answer; only 408, 425, 429 and 500 to 599 may be tried elsewhere",
        ),
        ("routing: {routing_key_header: 'a b'}", "routing.routing_key_header: 'a b' is no name of a header"),
        ("auth: {tenant_header: ''}", "auth.tenant_header: '' is no name of a header"),
        (
            f"auth: {{keys: [{{id: a, sha256: {A}}}, {{id: a, sha256: {B}}}]}}",
            "auth.keys[1].id: 'a' is the id of auth.keys[0] already",
        ),
        (f"auth: {{keys: [{{id: a, sha256: {A}}}, {{id: b, sha256: {A}}}]}}", "auth.keys[1].sha256: is the key of auth.keys[0] already"),
        (f"auth: {{keys: [{{id: a, sha256: {SHA256_OF_NOTHING}}}]}}", "auth.keys[0].sha256: is the hash of an empty key"),
        (f"auth: {{keys: [{{id: a, sha256: {A}, roles: []}}]}}", "auth.keys[0].roles: is empty: the key would open nothing"),
        ("trace: {enabled: true, endpoint: collector}", "trace.endpoint: must be a url, http://HOST:4318/v1/traces"),
        ("model_path: /nonexistent", "model_path: no such folder: /nonexistent"),
    ],
)
def test_a_mistake_across_keys_is_named(problems: Problems, text: str, said: str) -> None:
    """Each check names the key at fault, with its line, and nothing else."""
    assert problems(text) == [f"1: {said}"]


@pytest.mark.parametrize(
    "text",
    [
        "server: {port: 0, metrics_port: 0}",
        "server: {port: 1, metrics_port: 1, host: 10.0.0.1, metrics_host: 10.0.0.2}",
        "server: {port: 29000, metrics_port: null}",
        "workers: [{url: 'http://a:1'}, {url: 'http://a:2'}, {url: 'https://a:1'}]",
        "discovery: [{kind: dns, name: a, record: SRV}, {kind: dns, name: b, port: 1, worker: {cost: 2, labels: {a: b}}}]",
        "models: [{name: m, aliases: [n]}, {name: o, aliases: [p]}]",
        "trace: {enabled: false, endpoint: collector}",
        "discovery: [{kind: kubernetes, selector: a=b}, {kind: kubernetes, selector: a=c}]",
    ],
)
def test_what_works_is_no_mistake(problems: Problems, text: str) -> None:
    """Neighbours of the mistakes above are right."""
    assert problems(text) == []


def test_files_of_tls_are_tried(problems: Problems, tmp_path: pathlib.Path) -> None:
    """Unreadable files are named each; a pair that belongs together is right."""
    authority = trustme.CA()
    leaf = authority.issue_cert("gateway.test")
    leaf.private_key_pem.write_to_path(str(tmp_path / "key"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    tls = "server:\n  tls:\n    cert_file: {0}/{1}\n    key_file: {0}/{2}\n    client_ca_file: {0}/{3}\n"
    assert problems(tls.format(tmp_path, "cert", "key", "ca")) == []
    assert problems(tls.format(tmp_path, "x", "y", "z")) == [
        f"3: server.tls.cert_file: no such file: {tmp_path}/x",
        f"4: server.tls.key_file: no such file: {tmp_path}/y",
        f"5: server.tls.client_ca_file: no such file: {tmp_path}/z",
    ]
    assert problems(tls.format(tmp_path, "cert", "ca", "ca")) == [
        f"4: server.tls.key_file: no certificate chain and key in PEM form: {tmp_path}/cert, {tmp_path}/ca"
    ]
    worker = "workers:\n  - url: https://a\n    ca_file: {}/ca\n    verify_tls: {}\n"
    assert problems(worker.format(tmp_path, "true")) == []
    assert problems(worker.format(tmp_path, "false")) == ["3: workers[0].ca_file: has no effect while `verify_tls` is off"]


def test_a_variable_of_a_worker_that_is_set_is_right() -> None:
    """The environment that is asked is the one that was given."""
    config = GatewayConfig.model_validate({"workers": [{"url": "http://a", "api_key_env": "ENGINE_KEY"}]})
    assert list(mistakes(config, {"ENGINE_KEY": "x"})) == []
    assert list(mistakes(config, {"ENGINE_KEY": ""})) == [(("workers", 0, "api_key_env"), "the environment variable ENGINE_KEY is not set")]


NO_WORKER = "there is no worker and no discovery; add workers with `smgctl worker add URL`"


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("", Flags(), [NO_WORKER]),
        ("workers: [{url: 'http://a'}]", Flags(), []),
        ("discovery: [{kind: file, path: x}]", Flags(), []),
        (
            "",
            Flags(host="0.0.0.0", worker_urls=("http://a",)),
            [
                "the control plane is closed, since the gateway listens on 0.0.0.0 and no key has the role admin or view; "
                "give one with --api-key or auth.keys",
                "everybody who reaches 0.0.0.0 may send requests; give keys with --api-key or auth.keys",
            ],
        ),
        (
            "",
            Flags(host="0.0.0.0", worker_urls=("http://a",), api_key="x"),
            ["API keys travel in clear text, since the gateway listens on 0.0.0.0 without server.tls"],
        ),
        (
            f"auth: {{keys: [{{id: a, sha256: {A}}}]}}",
            Flags(worker_urls=("http://a",)),
            ["no key has the role admin: nobody can change workers or configuration while the gateway runs"],
        ),
        (
            f"auth: {{keys: [{{id: a, sha256: {A}, roles: [admin]}}]}}",
            Flags(worker_urls=("http://a",)),
            ["no key has the role data: nobody can send requests"],
        ),
        (
            "auth: {trust_tenant_header: true}",
            Flags(worker_urls=("http://a",)),
            ["everybody may claim any tenant by x-smg-tenant-id, since there are no keys"],
        ),
        (
            "workers: [{url: 'https://a', verify_tls: false}]",
            Flags(),
            ["the certificate of workers[0] is not checked; give its authority as `ca_file` instead"],
        ),
    ],
)
def test_what_works_but_is_not_meant_is_a_hint(text: str, flags: Flags, said: list[str]) -> None:
    """Hints say what follows and what to do."""
    assert list(hints(ConfigSource(flags=flags).load_text(text))) == said


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("gateway.internal", False),
        ("", False),
    ],
)
def test_loopback_addresses(host: str, expected: bool) -> None:
    """Only addresses that no other machine reaches count; a name might be anything."""
    assert is_loopback(host) is expected
