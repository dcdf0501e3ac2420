from collections.abc import Callable

import pytest

from gateway.config.mask import MASK
from gateway.config.shape import check_shape, check_template

Problems = Callable[[str], list[str]]


def test_every_mistake_is_named_in_one_run(problems: Problems) -> None:
    """Unknown keys, missing ones, wrong types, wrong values and mistakes across sections come together, by line."""
    text = """\
server:
  hots: 0.0.0.0
  port: 99999
workers:
  - url: http://a:1
    priorty: 3
  - urll: http://x
  - http://b
  - url: http://A:1/
    health: {interval_s: -1}
routing: {policy: round_robbin}
retry: 3
discovery:
  - {kind: dns, nam: x}
  - {kind: consul}
  - {path: x}
models: [{name: m, aliases: [m]}]
admission: {tenants: {a: {requests_per_min: 3}}}
log: {json_lines: maybe}
"""
    policies = "round_robin, random, power_of_two, least_load, cache_aware, prefix_hash, consistent_hashing, bucket, sticky or passthrough"
    assert problems(text) == [
        "2: server.hots: unknown key; did you mean `host`?",
        "3: server.port: must be less than or equal to 65535, not 99999",
        "6: workers[0].priorty: unknown key; did you mean `priority`?",
        "7: workers[1].url: is missing",
        "7: workers[1].urll: unknown key; did you mean `url`?",
        "8: workers[2]: must be a mapping of keys to values, not 'http://b'",
        "9: workers[3].url: is the same worker as workers[0]",
        "10: workers[3].health.interval_s: must be greater than 0, not -1",
        f"11: routing.policy: must be one of {policies}, not 'round_robbin'; did you mean round_robin?",
        "12: retry: must be a mapping of keys to values, not 3",
        "14: discovery[0].name: is missing",
        "14: discovery[0].nam: unknown key; did you mean `name`?",
        "15: discovery[1]: unknown `kind` 'consul': one of file, dns, kubernetes",
        "16: discovery[2]: `kind` is missing: one of file, dns, kubernetes",
        "17: models[0].aliases[0]: 'm' is the name of models[0]",
        "18: admission.tenants.a.requests_per_min: unknown key; did you mean `requests_per_minute`?",
        "19: log.json_lines: must be a valid boolean, unable to interpret input, not 'maybe'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workers: {url: x}", "1: workers: must be a list, not a mapping"),
        ("workers: http://a", "1: workers: must be a list, not 'http://a'"),
        ("workers:\n  - [a]", "2: workers[0]: must be a mapping of keys to values, not a list"),
        ("server:", "1: server: must be a mapping of keys to values, not null"),
        ("server: {host: 8}", "1: server.host: must be a string, not 8; put it in quotes"),
        ("server: {port: 1.5}", "1: server.port: must be a valid integer, got a number with a fractional part, not 1.5"),
        ("server: {port: true}", "1: server.port: must be a number, not true"),
        ("auth: {keys: [{id: a b, sha256: " + "a" * 64 + "}]}", "1: auth.keys[0].id: must match ^[A-Za-z0-9._-]{1,64}$, not 'a b'"),
        ("breaker: {window_s: .nan}", "1: breaker.window_s: must be a finite number, not nan"),
        ("workers: [{url: 'http://a', api_key: 12}]", "1: workers[0].api_key: must be a string; put it in quotes"),
        ("server: {tls: {cert_file: x}}", "1: server.tls.key_file: is missing"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(problems: Problems, text: str, said: str) -> None:
    """Every kind of mistake names the key and the value."""
    assert problems(text) == [said]


def test_a_switch_is_no_number(problems: Problems) -> None:
    """`false` does not mean port 0, beside other mistakes and alone."""
    assert problems("server: {metrics_port: false}\nretry:\n  statuses: [500, true]\n  colour: red\n") == [
        "1: server.metrics_port: must be a number, not false",
        "3: retry.statuses[1]: must be a number, not true",
        "3: retry.statuses[1]: 1 is no status of an answer; only 408, 425, 429 and 500 to 599 may be tried elsewhere",
        "4: retry.colour: unknown key: one of budget_min_per_s, budget_ratio, budget_window_s, initial_backoff_s, jitter, "
        "max_attempts, max_backoff_s, multiplier, resend, statuses",
    ]


def test_a_mistake_never_quotes_a_secret(problems: Problems) -> None:
    """A key in the wrong place or of the wrong type is not repeated."""
    text = "auth: {keys: [{id: a, sha256: hunter2}]}\nworkers: [{url: 'http://a', api_key: [hunter2]}]"
    found = problems(text)
    assert len(found) == 2
    assert "hunter2" not in "".join(found)


def test_a_mask_is_no_secret(problems: Problems) -> None:
    """The output of `config show` cannot be applied as it is."""
    text = f"auth: {{keys: [{{id: a, sha256: '{MASK}'}}]}}\nworkers: [{{url: 'http://a', api_key: '{MASK}'}}]"
    assert problems(text) == [
        "1: auth.keys[0].sha256: is the mask that stands for a secret; write the secret itself",
        "2: workers[0].api_key: is the mask that stands for a secret; write the key itself, or use `api_key_env`",
    ]


def test_what_is_left_keeps_its_positions() -> None:
    """Items with a mistake are taken out, and paths in the rest still lead to the tree as it was."""
    shape = check_shape({"workers": [{"url": "http://a"}, {"urll": 1}, {"url": "http://b", "x": 1}, 3, {"url": "http://c"}]})
    assert shape.config is not None
    assert [worker.url for worker in shape.config.workers] == ["http://a", "http://b", "http://c"]
    assert [shape.place(("workers", index, "url")) for index in range(3)] == [("workers", index, "url") for index in (0, 2, 4)]


def test_a_tree_without_mistakes_is_the_configuration() -> None:
    """Nothing is pruned where nothing is wrong, and only what was given counts as set."""
    shape = check_shape({"server": {"port": 1}})
    assert shape.mistakes == []
    assert shape.config is not None
    assert shape.config.server.model_fields_set == {"port"}
    assert shape.place(("workers", 7)) == ("workers", 7)


def test_templates_of_discovery_are_checked_like_workers() -> None:
    """All keys but the URL, with the mistakes of a worker."""
    worker, found = check_template({"cost": 2, "labels": {"zone": "a"}})
    assert worker is not None
    assert (worker.cost, found) == (2.0, [])
    worker, found = check_template({"url": "http://a", "prority": 1})
    assert worker is None
    assert found == [
        (("url",), "is found by discovery; leave it out"),
        (("prority",), "unknown key; did you mean `priority`?"),
    ]
