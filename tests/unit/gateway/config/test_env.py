import pytest

from gateway.config import env
from gateway.config.load import ConfigSource, Flags
from gateway.config.model import WorkerConfig
from gateway.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("SMG_HOST", "0.0.0.0", "server.host", "0.0.0.0"),
        ("SMG_PORT", "8080", "server.port", 8080),
        ("SMG_METRICS_PORT", "9000", "server.metrics_port", 9000),
        ("SMG_METRICS_PORT", "null", "server.metrics_port", None),
        ("SMG_PROCESSES", "4", "server.processes", 4),
        ("SMG_POLICY", "random", "routing.policy", "random"),
        ("SMG_LOG_LEVEL", "debug", "log.level", "debug"),
        ("SMG_LOG_JSON", "true", "log.json_lines", True),
        ("SMG_LOG_ACCESS", "1", "log.access", True),
        ("SMG_RETRY_MAX_ATTEMPTS", "2", "retry.max_attempts", 2),
        ("SMG_RETRY_STATUSES", "500, 503", "retry.statuses", (500, 503)),
        ("SMG_UPSTREAM_FORWARD_HEADERS", "x-a,x-b", "upstream.forward_headers", ("x-a", "x-b")),
        ("SMG_ADMISSION_TENANT_LIMIT_REQUESTS_PER_MINUTE", "60", "admission.tenant_limit.requests_per_minute", 60),
        ("SMG_ADMISSION_MAX_CONCURRENT_REQUESTS", "none", "admission.max_concurrent_requests", None),
    ],
)
def test_a_variable_sets_its_key(monkeypatch: pytest.MonkeyPatch, name: str, text: str, path: str, value: object) -> None:
    """Short and long names set the keys they stand for."""
    monkeypatch.setenv(name, text)
    found: object = ConfigSource().load()
    for step in path.split("."):
        found = getattr(found, step)
    assert found == value


def test_workers_and_a_key_come_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """SMG_WORKER_URLS is split by commas, SMG_API_KEY becomes a key that opens everything, kept as a hash."""
    monkeypatch.setenv("SMG_WORKER_URLS", "http://a:1, http://b:2")
    monkeypatch.setenv("SMG_API_KEY", "abc")
    config = ConfigSource().load()
    assert [worker.url for worker in config.workers] == ["http://a:1", "http://b:2"]
    (key,) = config.auth.keys
    assert (key.id, key.roles) == ("api-key", ("data", "admin"))
    assert key.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_short_name_wins_over_the_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both are set, the variable that has a flag beside it decides."""
    monkeypatch.setenv("SMG_PORT", "1111")
    monkeypatch.setenv("SMG_SERVER_PORT", "2222")
    assert ConfigSource().load().server.port == 1111


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake says which variable it was."""
    monkeypatch.setenv("SMG_PORT", "many")
    monkeypatch.setenv("SMG_WORKER_URLS", "http://a:1,ftp://b")
    with pytest.raises(ConfigError) as caught:
        ConfigSource().load()
    assert caught.value.problems == (
        "SMG_PORT: server.port: must be a valid integer, unable to parse string as an integer, not 'many'",
        "SMG_WORKER_URLS: workers[1].url: begins with ftp://; use http://, https:// or grpc://",
    )


@pytest.mark.parametrize("value", ["tcp://10.0.0.1:80", "udp://10.0.0.1:80", ""])
def test_links_of_kubernetes_and_empty_variables_are_no_settings(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A pod beside a Service named `smg` has SMG_PORT=tcp://...; it must start all the same."""
    monkeypatch.setenv("SMG_PORT", value)
    assert ConfigSource().load().server.port == 30_000


def test_a_flag_wins_over_a_variable_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags, then the environment, then the file, then the defaults."""
    monkeypatch.setenv("SMG_PORT", "2")
    monkeypatch.setenv("SMG_HOST", "127.0.0.2")
    text = "server: {port: 1, host: 127.0.0.1, processes: 3}"
    server = ConfigSource(flags=Flags(port=3)).load_text(text).server
    assert (server.port, server.host, server.processes, server.max_connections) == (3, "127.0.0.2", 3, 20_000)


def test_a_misspelt_variable_is_hinted_at() -> None:
    """A name close to a known one is named; foreign ones, links and Kubernetes' own are not."""
    environ = {"SMG_PROT": "1", "SMG_RETRY_MAX_ATTEMTPS": "1", "SMG_SERVICE_HOST": "10.0.0.1", "SMG_PORTS": "tcp://1.1.1.1:1", "SMGX": "1"}
    assert env.hints(environ) == (
        "SMG_PROT is set but is no variable of the gateway; did you mean SMG_PORT?",
        "SMG_RETRY_MAX_ATTEMTPS is set but is no variable of the gateway; did you mean SMG_RETRY_MAX_ATTEMPTS?",
    )


def test_every_variable_stands_for_one_key() -> None:
    """No two keys share a variable, and none of them is a key of a list or a secret."""
    paths = [path for name, path in env.variables().items() if name not in env.SHORT]
    assert len(paths) == len(set(paths))
    assert not any("workers" in path or "api_key" in path for path in paths)


def test_the_key_of_a_worker_is_its_own_or_that_of_its_variable() -> None:
    """The key itself wins; a variable that is not set gives none."""
    environ = {"ENGINE_KEY": "from-env"}
    assert env.worker_api_key(WorkerConfig.model_validate({"url": "http://a", "api_key": "own"}), environ) == "own"
    assert env.worker_api_key(WorkerConfig(url="http://a", api_key_env="ENGINE_KEY"), environ) == "from-env"
    assert env.worker_api_key(WorkerConfig(url="http://a", api_key_env="OTHER"), environ) is None
    assert env.worker_api_key(WorkerConfig(url="http://a"), environ) is None
