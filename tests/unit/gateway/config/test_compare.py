from typing import Any

import pytest

from gateway.config.compare import CHANGED, RESTART, compare, needs_restart
from gateway.config.load import ConfigSource
from gateway.config.mask import MASK
from gateway.config.mistake import dotted
from gateway.config.model import GatewayConfig

A, B = "a" * 64, "b" * 64


def changes(before: str, after: str) -> list[tuple[str, Any, Any]]:
    source = ConfigSource()
    return [(change.path, change.before, change.after) for change in compare(source.load_text(before), source.load_text(after))]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", []),
        ("server: {port: 30000}", "", []),
        ("", "server: {port: 1}", [("server.port", 30000, 1)]),
        ("", "routing: {policy: random}\nlog: {access: true}", [("routing.policy", "cache_aware", "random"), ("log.access", False, True)]),
        ("server: {metrics_port: 1}", "server: {metrics_port: null}", [("server.metrics_port", 1, None)]),
        ("", "retry: {statuses: [500]}", [("retry.statuses", [408, 429, 500, 502, 503, 504], [500])]),
        ("workers: [{url: 'http://a'}]", "", [("workers[0]", {"url": "http://a"}, None)]),
        ("", "workers: [{url: 'http://a', cost: 2}]", [("workers[0]", None, {"url": "http://a", "cost": 2.0})]),
        (
            "workers: [{url: 'http://a'}, {url: 'http://b'}, {url: 'http://c', cost: 2}]",
            "workers: [{url: 'http://c', cost: 3}, {url: 'http://b'}]",
            [("workers[0]", {"url": "http://a"}, None), ("workers[0].cost", 2.0, 3.0)],
        ),
        ("workers: [{url: 'http://a'}, {url: 'http://b'}]", "workers: [{url: 'http://b'}, {url: 'http://a'}]", []),
        (
            "workers: [{url: 'http://a', labels: {x: y, z: w}}]",
            "workers: [{url: 'http://a', labels: {x: q, v: u}}]",
            [("workers[0].labels.x", "y", "q"), ("workers[0].labels.z", "w", None), ("workers[0].labels.v", None, "u")],
        ),
        (
            "workers: [{url: 'http://a'}]",
            "workers: [{url: 'http://a', health: {path: /x}}]",
            [("workers[0].health", None, {"path": "/x"})],
        ),
        (
            "workers: [{url: 'http://a', health: {path: /y}}]",
            "workers: [{url: 'http://a', health: {path: /x}}]",
            [("workers[0].health.path", "/y", "/x")],
        ),
        (
            "admission: {tenants: {a: {requests_per_minute: 1}, b: {}}}",
            "admission: {tenants: {a: {requests_per_minute: 2}, c: {tokens_per_minute: 9}}}",
            [
                ("admission.tenants.a.requests_per_minute", 1, 2),
                ("admission.tenants.b", {}, None),
                ("admission.tenants.c", None, {"tokens_per_minute": 9}),
            ],
        ),
        (
            "discovery: [{kind: file, path: a}, {kind: dns, name: n, port: 1}]",
            "discovery: [{kind: dns, name: n, port: 2}, {kind: kubernetes, selector: s}]",
            [
                ("discovery[0]", {"kind": "file", "path": "a"}, None),
                ("discovery[0].port", 1, 2),
                ("discovery[1]", None, {"kind": "kubernetes", "selector": "s"}),
            ],
        ),
        (
            "discovery: [{kind: dns, name: n, port: 1}, {kind: dns, name: n, port: 2}]",
            "discovery: [{kind: dns, name: n, port: 1}, {kind: dns, name: n, port: 3}, {kind: file, path: x}]",
            [("discovery[1].port", 2, 3), ("discovery[2]", None, {"kind": "file", "path": "x"})],
        ),
        ("models: [{name: a, aliases: [x]}]", "models: [{name: a, aliases: [x, y]}]", [("models[0].aliases", ["x"], ["x", "y"])]),
    ],
)
def test_differences_are_named_by_key(before: str, after: str, expected: list[tuple[str, Any, Any]]) -> None:
    """What differs is listed, and what is only written otherwise is not."""
    assert changes(before, after) == expected


def test_secrets_differ_without_being_shown() -> None:
    """A new key, another one and one that left are told apart by masks alone."""
    worker = "workers: [{{url: 'http://a', api_key: {}}}]"
    assert changes(worker.format("old-secret"), worker.format("new-secret")) == [("workers[0].api_key", MASK, CHANGED)]
    assert changes("workers: [{url: 'http://a'}]", worker.format("secret")) == [("workers[0].api_key", None, MASK)]
    assert changes(worker.format("secret"), "workers: [{url: 'http://a'}]") == [("workers[0].api_key", MASK, None)]
    assert changes("", worker.format("secret")) == [("workers[0]", None, {"url": "http://a", "api_key": MASK})]
    template = "discovery: [{{kind: dns, name: n, port: 1, worker: {{api_key: {}, cost: {}}}}}]"
    assert changes(template.format("secret", 1), template.format("other", 2)) == [
        ("discovery[0].worker.api_key", MASK, CHANGED),
        ("discovery[0].worker.cost", 1, 2),
    ]
    key = "auth: {{keys: [{{id: a, sha256: {}}}]}}"
    assert changes(key.format(A), key.format(B)) == [("auth.keys[0].sha256", MASK, CHANGED)]


@pytest.mark.parametrize(
    ("before", "after", "paths"),
    [
        ("", "server: {port: 1, max_body_bytes: 2048}\nretry: {max_attempts: 1}", ["server.port"]),
        ("", "server: {host: '::1', processes: 2, metrics_port: 1}", ["server.host", "server.metrics_port", "server.processes"]),
        ("", "workers: [{url: 'http://a'}]\nrouting: {policy: random}\nserver: {max_connections: 9}", []),
    ],
)
def test_only_some_changes_need_a_restart(before: str, after: str, paths: list[str]) -> None:
    """Sockets and processes are made once; everything else is taken over."""
    source = ConfigSource()
    found = compare(source.load_text(before), source.load_text(after))
    assert [change.path for change in needs_restart(found)] == paths


def test_switching_tls_needs_a_restart_and_another_certificate_does_not() -> None:
    """A running listener can take over a new chain, and cannot become one with TLS."""
    plain = GatewayConfig()
    one = GatewayConfig.model_validate({"server": {"tls": {"cert_file": "a", "key_file": "b"}}})
    other = GatewayConfig.model_validate({"server": {"tls": {"cert_file": "c", "key_file": "d"}}})
    mutual = GatewayConfig.model_validate({"server": {"tls": {"cert_file": "a", "key_file": "b", "client_ca_file": "e"}}})
    assert [change.path for change in needs_restart(compare(plain, one))] == ["server.tls"]
    assert [change.path for change in compare(one, other)] == ["server.tls.cert_file", "server.tls.key_file"]
    assert needs_restart(compare(one, other)) == ()
    assert [change.path for change in needs_restart(compare(one, mutual))] == ["server.tls.client_ca_file"]


def test_every_key_that_needs_a_restart_exists() -> None:
    """A key that was renamed in the model is noticed here."""
    known = set()
    for name, field in GatewayConfig.model_fields.items():
        known.add(name)
        known |= {dotted((name, below)) for below in getattr(field.annotation, "model_fields", {})}
    assert RESTART - {"server.tls.client_ca_file"} <= known
