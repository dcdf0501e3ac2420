"""Who takes part in a comparison: how each is found, installed where that is asked for, and started."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from harness.fleet.ports import HOST

OURS = "smgctl"
NGINX = "nginx"
PEERS = {"smg": "smg==1.13.0", "vllm-router": "vllm-router==0.1.17"}
"""Gateways that come from the package index -> what is installed."""
AGAINST = (NGINX, *PEERS)
"""Whom `smgctl` can be compared with, in the order of columns."""
INSTALL_S = 600.0
_SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where Debian has nginx, which is not on a user's PATH."""


class InstallFailed(Exception):
    """The peers could not be installed; the message says why."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a contestant is started on."""

    folder: pathlib.Path
    """For its files; gone after the run."""
    upstreams: tuple[str, ...]
    """URLs of the upstreams."""
    port: int
    spare_port: int
    """For its metrics."""
    processes: int


@dataclass(frozen=True, slots=True)
class Contestant:
    """A gateway that can be started here."""

    name: str
    version: str
    command: Callable[[Ground], list[str]]
    """Its command line; may write files into the ground's folder."""


def find(name: str, cache: pathlib.Path) -> Contestant | None:
    """Find a contestant by its name; None where it is not installed."""
    if name == OURS:
        return ours()
    if name == NGINX:
        path = shutil.which("nginx") or shutil.which("nginx", path=os.pathsep.join(_SBIN))
        return Contestant(NGINX, _nginx_version(path), lambda ground: nginx_command(path, ground)) if path is not None else None
    program = _bin(cache) / name
    if not program.exists():
        return None
    command = {"smg": smg_command, "vllm-router": vllm_router_command}[name]
    return Contestant(name, installed_version(name, cache), lambda ground: command(str(program), ground))


def how_to_get(name: str) -> str:
    """What brings a contestant that is not installed."""
    return "install Debian's nginx-light" if name == NGINX else "run once with --install-peers"


def install_peers(names: Iterable[str], cache: pathlib.Path) -> None:
    """Install those of `names` that come from the package index, into an environment of their own below `cache`.

    Raises:
        InstallFailed: they are not there now.
    """
    wanted = [PEERS[name] for name in names if name in PEERS and find(name, cache) is None]
    if not wanted:
        return
    cache.mkdir(parents=True, exist_ok=True)
    python = _bin(cache) / "python"
    steps: list[list[str]] = [] if python.exists() else [[sys.executable, "-m", "venv", str(cache / "venv")]]
    steps.append([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted])
    for step in steps:
        try:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.CalledProcessError as error:
            raise InstallFailed(f"{' '.join(wanted)} cannot be installed: {(error.stderr or error.stdout).strip()[-500:]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallFailed(f"{' '.join(wanted)} cannot be installed: {error}") from error


def installed_version(name: str, cache: pathlib.Path) -> str:
    """The version of a peer in the cache, by what its installer left there; empty where it left nothing."""
    for info in sorted((cache / "venv").glob(f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info")):
        return info.name.removesuffix(".dist-info").rpartition("-")[2]
    return ""


def ours() -> Contestant:
    """The gateway of this installation, with every default feature on."""
    return Contestant(OURS, version("smgctl"), our_command)


def our_command(ground: Ground) -> list[str]:
    """`smgctl serve`, deaf to the environment, which could configure it."""
    deaf = [word for name in os.environ if name.startswith("SMG_") for word in ("-u", name)]
    command = ["env", *deaf] if deaf else []
    command += [sys.executable, "-P", "-m", "smgctl", "serve", "--policy", "round_robin", "--host", HOST, "--port", str(ground.port)]
    command += ["--metrics-port", str(ground.spare_port), "--processes", str(ground.processes)]
    return [*command, *(word for url in ground.upstreams for word in ("--worker-url", url))]


def nginx_command(nginx: str, ground: Ground) -> list[str]:
    """A plain reverse proxy: what can be had at all."""
    file = ground.folder / "nginx.conf"
    file.write_text(nginx_config(ground))
    return [nginx, "-p", str(ground.folder), "-e", str(ground.folder / "nginx.err"), "-c", str(file)]


def nginx_config(ground: Ground) -> str:
    """Write its configuration: upstream connections kept, nothing buffered, nothing logged, its files in the ground's folder."""
    servers = " ".join(f"server {url.removeprefix('http://')};" for url in ground.upstreams)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"  {kind}_temp_path {ground.folder}/nginx-{kind};" for kind in kinds)
    return f"""\
worker_processes {ground.processes};
daemon off;
pid {ground.folder}/nginx.pid;
error_log {ground.folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{
  access_log off;
{temporary}
  upstream engines {{ {servers} keepalive 64; }}
  server {{
    listen {HOST}:{ground.port};
    location / {{
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_pass http://engines;
    }}
  }}
}}
"""


def smg_command(program: str, ground: Ground) -> list[str]:
    """The gateway of the SGLang project, written in Rust."""
    flags = ["--policy", "round_robin", "--port", str(ground.port), "--prometheus-port", str(ground.spare_port), "--log-level", "warn"]
    return [program, "launch", "--worker-urls", *ground.upstreams, *flags]


def vllm_router_command(program: str, ground: Ground) -> list[str]:
    """The router of the vLLM project, written in Rust."""
    flags = ["--policy", "round_robin", "--port", str(ground.port), "--prometheus-port", str(ground.spare_port)]
    return [program, "--worker-urls", *ground.upstreams, *flags]


def _bin(cache: pathlib.Path) -> pathlib.Path:
    return cache / "venv" / "bin"


def _nginx_version(path: str) -> str:
    try:
        told: Sequence[str] = re.findall(r"nginx/([\d.]+)", subprocess.run([path, "-v"], capture_output=True, text=True, timeout=10).stderr)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told[0] if told else ""
