import pathlib
import subprocess

import pytest

from harness.bench import contestants
from harness.bench.contestants import AGAINST, OURS, PEERS, Ground, InstallFailed, find, install_peers, nginx_config, our_command

URLS = ("http://127.0.0.1:1", "http://127.0.0.1:2")


@pytest.fixture
def ground(tmp_path: pathlib.Path) -> Ground:
    return Ground(tmp_path, URLS, port=3, spare_port=4, processes=2)


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> pathlib.Path:
    """An environment with one peer in it."""
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/vllm-router").touch()
    (tmp_path / "venv/lib/python3.11/site-packages/vllm_router-0.1.17.dist-info").mkdir(parents=True)
    return tmp_path


def test_what_is_not_installed_is_not_found(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but the own gateway is there by itself."""
    monkeypatch.setattr(contestants.shutil, "which", lambda name, path=None: None)
    assert find("nginx", cache) is None
    assert find("smg", cache) is None
    assert find(OURS, cache) is not None


def test_a_peer_is_found_with_its_version(cache: pathlib.Path, ground: Ground) -> None:
    """In the environment of the cache, by what its installer left."""
    found = find("vllm-router", cache)
    assert found is not None and found.version == "0.1.17"
    command = found.command(ground)
    assert command[0] == str(cache / "venv/bin/vllm-router")
    assert command[1:4] == ["--worker-urls", *URLS]


def test_the_own_gateway_hears_nothing_of_the_environment(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """What configures a gateway of the user's does not configure the one that is measured."""
    monkeypatch.setenv("SMG_CONFIG", "mine.yaml")
    command = our_command(ground)
    assert command[: command.index("SMG_CONFIG") + 1][-2:] == ["-u", "SMG_CONFIG"] and command[0] == "env"
    serve = command[command.index("serve") :]
    assert serve == [
        "serve", "--policy", "round_robin", "--host", "127.0.0.1", "--port", "3", "--metrics-port", "4", "--processes", "2",
        "--worker-url", URLS[0], "--worker-url", URLS[1],
    ]  # fmt: skip


def test_nginx_writes_nothing_elsewhere(ground: Ground) -> None:
    """Every file of its configuration lies in the folder of the run, so that no rights are needed."""
    text = nginx_config(ground)
    files = [
        line.split()[1].rstrip(";") for line in text.splitlines() if line.split()[:1] and line.split()[0].endswith(("_path", "pid", "_log"))
    ]
    assert len(files) == 8
    assert {file for file in files if not file.startswith(f"{ground.folder}/")} == {"off"}
    assert "server 127.0.0.1:1; server 127.0.0.1:2; keepalive" in text
    assert "worker_processes 2;" in text


def test_only_missing_peers_are_installed(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment is made once, and what is there is left alone."""
    ran: list[list[str]] = []
    monkeypatch.setattr(contestants.subprocess, "run", lambda step, **_: ran.append(step))
    install_peers(AGAINST, cache)
    assert [step[1:3] for step in ran] == [["-m", "venv"], ["-m", "pip"]]
    assert ran[1][-1:] == [PEERS["smg"]] and PEERS["vllm-router"] not in ran[1]
    (cache / "venv/bin/python").touch()
    (cache / "venv/bin/smg").touch()
    ran.clear()
    install_peers(AGAINST, cache)
    assert ran == []


def test_a_failed_install_is_told(cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the installer said."""

    def fail(step: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, step, stderr="no matching distribution")

    monkeypatch.setattr(contestants.subprocess, "run", fail)
    with pytest.raises(InstallFailed, match=r"smg==\S+ cannot be installed: no matching distribution"):
        install_peers(["smg"], cache)
