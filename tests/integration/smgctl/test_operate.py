"""A shift of an operator: `smgctl` before a real gateway and simulated engines."""

import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from smgctl.app import run
from tests.support.processes import Started, engines, gateway

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def sims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with engines(tmp_path_factory.mktemp("engines"), 2, "--model", "m") as started:
        yield started


@pytest.fixture
def smgctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(args)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_workers_come_and_go(sims: Started, smgctl: Call, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Add, list, show, drain and remove, each seen by the next command."""
    first, second = sims.urls
    with gateway(tmp_path, "--worker-url", first) as served:
        monkeypatch.setenv("SMG_URL", served.url)
        code, out, _ = smgctl("worker", "add", second, "--label", "zone=b", "--priority", "40", "--wait", "30")
        assert (code, out.split()[1], out.split()[-1]) == (0, second, "ready")
        code, out, _ = smgctl("worker", "list", "--json")
        listed = json.loads(out)["workers"]
        assert (code, [worker["url"] for worker in listed]) == (0, [first, second])
        code, out, _ = smgctl("worker", "show", second)
        assert code == 0
        assert "\nlabels:   zone=b\nsource:   api\n" in out
        assert smgctl("worker", "add", second)[0] == 1
        assert smgctl("worker", "drain", first) == (0, f"{first} drains, 0 in flight\n", "")
        assert json.loads(smgctl("worker", "show", first, "--json")[1])["status"] == "draining"
        assert smgctl("worker", "remove", second, "--wait", "30") == (0, f"removed {second}\n", "")
        assert smgctl("worker", "show", second)[0] == 1
        assert smgctl("status")[0] == 0
        assert served.child.stop() == 0
        assert smgctl("worker", "list")[0] == 3


def test_configuration_is_changed_and_taken_back(sims: Started, smgctl: Call, tmp_path: pathlib.Path) -> None:
    """Apply shows the difference, a mistake changes nothing, rollback goes back, and show tells which version it is."""
    path = tmp_path / "smg.yaml"
    path.write_text(f"workers: [{{url: {sims.url}}}]\n")
    with gateway(tmp_path, "--config", str(path)) as served:
        url = ("--url", served.url)
        path.write_text(f"workers: [{{url: {sims.url}, cost: 2}}]\nrouting: {{policy: random}}\n")
        code, out, err = smgctl("config", "apply", str(path), *url)
        assert (code, err) == (0, "")
        assert out == (
            "PATH             BEFORE       AFTER\n"
            "workers[0].cost  1            2\n"
            "routing.policy   cache_aware  random\n"
            "\n"
            "applied as version 2\n"
        )
        path.write_text("workers: [{url: nowhere}]\nrouting: {polcy: random}\n")
        code, out, err = smgctl("config", "apply", str(path), *url)
        assert (code, out) == (2, "")
        assert [line.partition(":")[2] for line in err.splitlines()[:2]] == [
            "1: workers[0].url: has no scheme; did you mean http://nowhere?",
            "2: routing.polcy: unknown key; did you mean `policy`?",
        ]
        assert smgctl("config", "show", *url)[1].startswith("# version 2, from api\n")
        assert smgctl("config", "rollback", *url)[1].endswith("applied as version 3\n")
        assert "policy: cache_aware" in smgctl("config", "show", *url)[1]


def test_keys_close_the_control_plane(smgctl: Call, tmp_path: pathlib.Path) -> None:
    """Without the key every command is refused with what to do; with it all is open."""
    with gateway(tmp_path, "--api-key", "secret") as served:
        code, out, err = smgctl("worker", "list", "--url", served.url)
        assert (code, out) == (2, "")
        assert err.endswith("hint: give a key with --api-key or SMG_API_KEY\n")
        assert smgctl("worker", "list", "--url", served.url, "--api-key", "secret") == (0, "no workers\n", "")


def test_hints_are_logged_at_the_start(tmp_path: pathlib.Path) -> None:
    """A gateway without workers says so, and starts."""
    with gateway(tmp_path, "--log-json") as served:
        lines = [json.loads(line) for line in served.child.log.read_text().splitlines()]
        assert any("there is no worker and no discovery" in str(line) for line in lines)
        assert served.child.stop() == 0


def test_a_mistake_ends_the_process_with_2(tmp_path: pathlib.Path) -> None:
    """`smgctl serve` does not begin to listen."""
    path = tmp_path / "smg.yaml"
    path.write_text("server: {prot: 1}\n")
    command = [sys.executable, "-P", "-m", "smgctl", "serve", "--config", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{path}:1: server.prot: unknown key; did you mean `port`?\nerror: 1 mistake in the configuration\n"


def test_output_that_nobody_reads_is_no_error(tmp_path: pathlib.Path) -> None:
    """`smgctl config schema | head -1` ends quietly."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "smgctl", "config", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) in (0, -signal.SIGPIPE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown(shell: str, tmp_path: pathlib.Path) -> None:
    """Each shell gets a script, and what it then asks is answered."""
    run_it = [sys.executable, "-c", "from smgctl.__main__ import main; main()"]
    shown = subprocess.run([*run_it, "--show-completion", shell], capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "_SMGCTL_COMPLETE" in shown.stdout
