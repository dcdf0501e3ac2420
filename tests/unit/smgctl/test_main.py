import subprocess
import sys


def test_the_package_runs_as_a_module() -> None:
    """`python -m smgctl` is `smgctl`, exit code included."""
    run = [sys.executable, "-m", "smgctl"]
    shown = subprocess.run([*run, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.startswith("smgctl ")
    assert subprocess.run([*run, "nonsense"], capture_output=True, timeout=60, check=False).returncode == 2
