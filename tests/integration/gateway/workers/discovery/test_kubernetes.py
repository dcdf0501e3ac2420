"""Kubernetes discovery: the official client against an API server that lists and watches as the real one does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.model import KubernetesDiscovery
from gateway.workers.discovery import make
from tests.support.discovery import Ear, listening
from tests.support.kube_server import KubeServer, kube_server, pod


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., KubernetesDiscovery]:
    def made(server: KubeServer, **more: Any) -> KubernetesDiscovery:
        path = tmp_path / "kubeconfig"
        path.write_text(server.kubeconfig())
        return KubernetesDiscovery(kind="kubernetes", selector="app=vllm", kubeconfig=str(path), **more)

    return made


async def watching(server: KubeServer) -> None:
    async with asyncio.timeout(10):
        while not server.watching:
            await asyncio.sleep(0.01)


async def test_pods_are_listed_and_then_watched(config: Callable[..., KubernetesDiscovery]) -> None:
    """Pods come, get ready, lose it, are deleted: each is heard; the selector and the credentials go with the question."""
    async with kube_server() as server:
        server.put(pod("a", "10.0.0.1"))
        server.put(pod("b", "10.0.0.2", ready=False))
        async with listening(make(config(server))) as ear:
            await ear.until("http://10.0.0.1:8000")
            assert ear.said[0][0].labels == {"pod": "a", "namespace": "ml"}
            await watching(server)
            server.put(pod("b", "10.0.0.2"))
            await ear.until("http://10.0.0.1:8000", "http://10.0.0.2:8000")
            server.put(pod("a", "10.0.0.1", deletionTimestamp="2026-11-24T00:00:00Z"))
            await ear.until("http://10.0.0.2:8000")
            server.delete("a")
            server.put(pod("c", "10.0.0.3", annotations={"smg.ai/worker-ports": "9000-9001"}))
            await ear.until("http://10.0.0.2:8000", "http://10.0.0.3:9000", "http://10.0.0.3:9001")
            server.put(pod("b", "10.0.0.2", ready=False))
            await ear.until("http://10.0.0.3:9000", "http://10.0.0.3:9001")
            server.delete("c")
            await ear.until()
        paths = {path for path, _ in server.requests}
        assert paths == {"/api/v1/pods"}
        assert {query["labelSelector"] for _, query in server.requests} == {"app=vllm"}
        assert set(server.tokens) == {"Bearer sa-token"}


async def test_one_namespace_and_pages(config: Callable[..., KubernetesDiscovery]) -> None:
    """A namespace narrows the question; a long list is read page by page."""
    async with kube_server() as server:
        server.page = 2
        for index in range(5):
            server.put(pod(f"p{index}", f"10.0.0.{index}"))
        async with listening(make(config(server, namespace="ml", port=1, scheme="https", worker={"cost": 3}))) as ear:
            await ear.until(*(f"https://10.0.0.{index}:1" for index in range(5)))
            assert {spec.cost for spec in ear.said[0]} == {3.0}
        lists = [query for path, query in server.requests if path == "/api/v1/namespaces/ml/pods" and "watch" not in query]
        assert [query.get("continue") for query in lists] == [None, "2", "4"]


async def test_a_watch_that_ends_goes_on_from_where_it_was(config: Callable[..., KubernetesDiscovery]) -> None:
    """After the server's timeout the next watch starts at the last version seen, a bookmark's included, without a new list."""
    async with kube_server() as server:
        server.put(pod("a", "10.0.0.1"))
        async with listening(make(config(server))) as ear:
            await ear.until("http://10.0.0.1:8000")
            await watching(server)
            server.put(pod("b", "10.0.0.2"))
            await ear.until("http://10.0.0.1:8000", "http://10.0.0.2:8000")
            server.bookmark()
            reached = server.version
            server.end_watches()
            server.put(pod("c", "10.0.0.3"))
            await ear.until("http://10.0.0.1:8000", "http://10.0.0.2:8000", "http://10.0.0.3:8000")
        watches = [query for _, query in server.requests if "watch" in query]
        assert watches[1]["resourceVersion"] == str(reached)
        assert watches[0]["allowWatchBookmarks"] == "true"
        assert sum("watch" not in query for _, query in server.requests) == 1


@pytest.mark.parametrize("in_stream", [False, True])
async def test_a_forgotten_place_leads_to_a_new_list(config: Callable[..., KubernetesDiscovery], in_stream: bool) -> None:
    """410 Gone, as a status or as an event, starts over with a list: what happened meanwhile is not missed."""
    async with kube_server() as server:
        server.refuse_in_stream = in_stream
        server.put(pod("a", "10.0.0.1"))
        async with listening(make(config(server))) as ear:
            await ear.until("http://10.0.0.1:8000")
            await watching(server)
            server.end_watches()
            server.delete("a")
            server.put(pod("b", "10.0.0.2"))
            server.forget()
            await ear.until("http://10.0.0.2:8000")
            await watching(server)
            assert ear.said[1:] == [ear.said[1]]


async def test_a_broken_watch_and_a_server_that_is_away_keep_the_last_list(config: Callable[..., KubernetesDiscovery]) -> None:
    """The workers stay, the problem is said, and everything is right again once the server is back."""
    async with kube_server() as server:
        server.put(pod("a", "10.0.0.1"))
        async with listening(make(config(server))) as ear:
            await ear.until("http://10.0.0.1:8000")
            await watching(server)
            server.break_watches()
            await server.stop()
            await ear.until_problem("the api server cannot be asked")
            assert ear.urls == ["http://10.0.0.1:8000"]
            await server.start()
            server.put(pod("b", "10.0.0.2"))
            await ear.until("http://10.0.0.1:8000", "http://10.0.0.2:8000")
            assert ear.source.problem == ""


async def test_missing_rights_are_said(config: Callable[..., KubernetesDiscovery]) -> None:
    """An operator reads what the role needs."""
    async with kube_server() as server:
        server.status = 403
        async with listening(make(config(server))) as ear:
            await ear.until_problem("the api server answered 403: it needs the rights to list and watch pods")
            server.status = 200
            await ear.until()


async def test_the_thread_ends_at_once_with_its_source(config: Callable[..., KubernetesDiscovery]) -> None:
    """A watch that is silent for minutes does not hold up the end of the gateway, nor leave a thread behind."""
    async with kube_server() as server:
        async with listening(make(config(server))) as ear:
            await ear.until()
            await watching(server)
            begin_s = time.monotonic()
        assert time.monotonic() - begin_s < 2.0
        assert not any(thread.name.startswith("kubernetes:") for thread in threading.enumerate())


async def test_without_a_cluster_it_is_said_and_nothing_else_happens(tmp_path: Path) -> None:
    """Outside a cluster, and without a kubeconfig that can be read, the source has a problem and no workers."""
    for kubeconfig in (None, str(tmp_path / "none")):
        source = make(KubernetesDiscovery(kind="kubernetes", selector="a=b", kubeconfig=kubeconfig))
        async with listening(source) as ear:
            await ear.until_problem("the api server cannot be asked: ConfigException")
            assert ear.said == []
            assert isinstance(ear, Ear)
