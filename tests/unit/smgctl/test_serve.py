import pathlib

import pytest

from gateway.config.load import Flags
from tests.support.cli import Smgctl


def test_flags_become_the_configuration(smgctl: Smgctl, tmp_path: pathlib.Path) -> None:
    """Every flag reaches the gateway, and the source remembers them for a reload."""
    path = tmp_path / "smg.yaml"
    path.write_text("server: {port: 1}\nretry: {max_attempts: 2}\nworkers: [{url: 'http://file:1'}]")
    result = smgctl(
        "serve", "-c", str(path), "--worker-url", "http://a:1", "--worker-url", "https://b", "--policy", "round_robin",
        "--host", "127.0.0.2", 
        "--port", "2", "--metrics-port", "3", "--processes", "2", "--model-path", str(tmp_path), "--log-level", "debug", "--log-json",
        "--api-key", "k",
    )  # fmt: skip
    assert (result.exit_code, result.output, result.errors) == (0, "", "")
    ((config, source, hints),) = smgctl.started
    assert hints == ()
    assert source.path == str(path)
    assert source.flags == Flags(
        worker_urls=("http://a:1", "https://b"), policy="round_robin", host="127.0.0.2", port=2, metrics_port=3, processes=2,
        model_path=str(tmp_path), log_level="debug", log_json=True, api_key="k",
    )  # fmt: skip
    assert source.load() == config
    assert [worker.url for worker in config.workers] == ["http://a:1", "https://b"]
    assert (config.retry.max_attempts, config.server.port, config.log.json_lines) == (2, 2, True)


def test_the_exit_code_is_that_of_the_gateway(smgctl: Smgctl) -> None:
    """What the gateway ended with is passed on."""
    smgctl.ends_with = 1
    assert smgctl("serve", "--worker-url", "http://a:1").exit_code == 1


def test_a_gateway_starts_without_workers_and_says_so(smgctl: Smgctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may come later; a misspelt variable is pointed out too."""
    monkeypatch.setenv("SMG_WORKER_URL", "http://a:1")
    assert smgctl("serve").exit_code == 0
    ((config, _, hints),) = smgctl.started
    assert config.workers == ()
    assert hints == (
        "SMG_WORKER_URL is set but is no variable of the gateway; did you mean SMG_WORKER_URLS?",
        "there is no worker and no discovery; add workers with `smgctl worker add URL`",
    )


def test_the_file_may_come_from_the_environment(smgctl: Smgctl, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SMG_CONFIG is what --config is."""
    path = tmp_path / "smg.yaml"
    path.write_text("server: {port: 1}")
    monkeypatch.setenv("SMG_CONFIG", str(path))
    assert smgctl("serve").exit_code == 0
    assert smgctl.started[0][0].server.port == 1


def test_nothing_starts_with_a_mistake(smgctl: Smgctl, tmp_path: pathlib.Path) -> None:
    """Every mistake of file and flags is named, and the exit code is 2."""
    path = tmp_path / "smg.yaml"
    path.write_text("server:\n  prot: 1\nworkers:\n  - url: a:1\n")
    result = smgctl("serve", "--config", str(path), "--policy", "fast")
    assert (result.exit_code, result.output, smgctl.started) == (2, "", [])
    assert result.errors.splitlines() == [
        "--policy: routing.policy: must be one of round_robin, random, power_of_two, least_load, cache_aware, prefix_hash, "
        "consistent_hashing, bucket, sticky or passthrough, not 'fast'",
        f"{path}:2: server.prot: unknown key; did you mean `port`?",
        f"{path}:4: workers[0].url: has no scheme; did you mean http://a:1?",
        "error: 3 mistakes in the configuration",
    ]


def test_a_missing_file_is_the_mistake(smgctl: Smgctl) -> None:
    """A file that is not there is not taken for an empty one."""
    result = smgctl("serve", "--config", "/nonexistent/smg.yaml")
    assert (result.exit_code, result.errors) == (2, "/nonexistent/smg.yaml: no such file\nerror: 1 mistake in the configuration\n")
