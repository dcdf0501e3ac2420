"""Discovery through the fleet: what sources say becomes workers, and a change of sources drains nobody that both ask for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.config.model import FileDiscovery, GatewayConfig, KubernetesDiscovery, WorkerConfig
from gateway.errors import ConfigError
from harness.sim import running
from tests.support.fleet import QUICK, watched
from tests.support.kube_server import kube_server, pod


def watching(*paths: Path, interval_s: float = 0.02, workers: tuple[WorkerConfig, ...] = ()) -> GatewayConfig:
    found = tuple(FileDiscovery(kind="file", path=str(path), interval_s=interval_s) for path in paths)
    return GatewayConfig(discovery=found, workers=workers, health=QUICK)


async def test_workers_of_a_file_come_and_go(tmp_path: Path) -> None:
    """A line more is a worker more, a line less is a drain; grpc lines are left out; removal by hand holds against the file."""
    path = tmp_path / "workers.yaml"
    async with running(flavour="vllm") as a, running(flavour="vllm") as b:
        path.write_text(f"- {a.url}\n- grpc://127.0.0.1:1\n")
        async with watched(watching(path)) as one:
            await one.until_status(a.url, "ready")
            assert [state.source for state in one.states] == [f"file:{path}"]
            path.write_text(f"- {a.url}\n- url: {b.url}\n  priority: 7\n")
            await one.until_status(b.url, "ready")
            assert one.at(b.url).priority == 7  # type: ignore[union-attr]
            await one.fleet.remove_worker(one.at(a.url).id)  # type: ignore[union-attr]
            await one.until_status(a.url, "")
            path.write_text(f"- {a.url}\n- url: {b.url}\n  priority: 8\n")
            await one.until(lambda: one.at(b.url).priority == 8)  # type: ignore[union-attr]
            assert one.status(a.url) == ""
            path.write_text(f"- url: {b.url}\n  priority: 9\n")
            await one.until(lambda: one.at(b.url).priority == 9)  # type: ignore[union-attr]
            path.write_text(f"- {a.url}\n")
            await one.until_status(a.url, "ready")
            await one.until_status(b.url, "")
            path.write_text("- [")
            await one.until(lambda: True)
            async with asyncio.timeout(5):
                while not one.fleet.problems()[f"file:{path}"]:
                    await asyncio.sleep(0.01)
            assert one.status(a.url) == "ready"


async def test_a_worker_that_comes_back_while_it_drains_is_called_back(tmp_path: Path) -> None:
    """A source that drops a worker for a moment interrupts its service, not its requests: same slot, same id, ready again."""
    path = tmp_path / "workers.yaml"
    async with running(flavour="vllm") as a:
        path.write_text(f"- {a.url}\n")
        async with watched(watching(path)) as one:
            await one.until_status(a.url, "ready")
            before = one.states[0]
            one.in_flight[before.slot] = 1
            path.write_text("[]")
            await one.until_status(a.url, "draining")
            path.write_text(f"- {a.url}\n")
            await one.until_status(a.url, "ready")
            assert (one.states[0].slot, one.states[0].id) == (before.slot, before.id)


async def test_a_source_that_is_replaced_hands_its_workers_over(tmp_path: Path) -> None:
    """Another file, another interval, the configuration itself: a worker that is asked for before and after never drains."""
    one_path, two_path = tmp_path / "one.yaml", tmp_path / "two.yaml"
    async with running(flavour="vllm") as a, running(flavour="vllm") as b:
        one_path.write_text(f"- {a.url}\n- {b.url}\n")
        two_path.write_text(f"- {a.url}\n")
        async with watched(watching(one_path)) as one:
            await one.until_status(a.url, "ready")
            await one.until_status(b.url, "ready")
            await one.fleet.apply(watching(one_path, interval_s=0.03))
            await one.fleet.apply(watching(two_path))
            await one.until_status(b.url, "")
            await one.fleet.apply(watching(workers=(WorkerConfig(url=a.url),)))
            assert one.at(a.url).source == "config"  # type: ignore[union-attr]
            await asyncio.sleep(0.1)
            assert one.statuses(a.url) == ["pending", "ready"]
            await one.fleet.apply(watching())
            await one.until_status(a.url, "")


async def test_a_configuration_that_cannot_be_made_changes_nothing(tmp_path: Path) -> None:
    """A template that makes no worker refuses the whole configuration; what ran goes on."""
    path = tmp_path / "workers.yaml"
    async with running(flavour="vllm") as a:
        path.write_text(f"- {a.url}\n")
        async with watched(watching(path)) as one:
            await one.until_status(a.url, "ready")
            broken = KubernetesDiscovery(kind="kubernetes", selector="a=b", worker={"cots": 1})
            with pytest.raises(ConfigError, match="did you mean `cost`"):
                await one.fleet.apply(GatewayConfig(discovery=(broken,), health=QUICK))
            await asyncio.sleep(0.2)
            assert one.statuses(a.url) == ["pending", "ready"]
            assert list(one.fleet.problems()) == [f"file:{path}"]


async def test_pods_become_workers(tmp_path: Path) -> None:
    """From the API server's watch to a ready worker, and back out of the fleet when the pod ends."""
    async with kube_server() as server, running(flavour="sglang") as sim:
        (tmp_path / "kubeconfig").write_text(server.kubeconfig())
        section = KubernetesDiscovery(
            kind="kubernetes", selector="app=vllm", kubeconfig=str(tmp_path / "kubeconfig"), worker={"labels": {"tier": "x"}}
        )
        async with watched(GatewayConfig(discovery=(section,), health=QUICK)) as one:
            server.put(pod("a", "127.0.0.1", annotations={"smg.ai/worker-ports": str(sim.port)}))
            await one.until_status(sim.url, "ready")
            assert one.states[0].labels == {"tier": "x", "pod": "a", "namespace": "ml"}
            server.delete("a")
            await one.until_status(sim.url, "")
