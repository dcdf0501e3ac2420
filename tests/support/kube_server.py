"""A Kubernetes API server as far as pods are concerned: lists in pages, and watches that a test feeds, ends and breaks.

It keeps what the real one promises: every change has a resource version; a watch starts after the version that it names, or is
refused with 410 where that is forgotten; bookmarks move a watch on without a change.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit


def pod(name: str, address: str = "127.0.0.1", *, ready: bool = True, labels: dict[str, str] | None = None, **meta: Any) -> dict[str, Any]:
    """A pod."""
    return {
        "metadata": {"name": name, "namespace": "ml", "uid": f"uid-{name}", "labels": labels or {"app": "vllm"}, **meta},
        "status": {
            "phase": "Running",
            "podIP": address,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


class KubeServer:
    """Pods by name, and the watches that are open."""

    def __init__(self) -> None:
        self.version = 100
        self.oldest = 0
        """Watches from before this version are refused."""
        self.pods: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and query of every request."""
        self.tokens: list[str] = []
        self.status = 200
        """Anything else is answered to every request."""
        self.refuse_in_stream = False
        """Say 410 as an event of the watch, as real servers do once it has begun."""
        self.page = 1000
        self.port = 0
        self._watches: dict[asyncio.StreamWriter, int] = {}
        self._connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def watching(self) -> int:
        """Watches that are open."""
        return len(self._watches)

    def put(self, value: dict[str, Any]) -> None:
        """Add or change a pod."""
        name = value["metadata"]["name"]
        kind = "MODIFIED" if name in self.pods else "ADDED"
        self.version += 1
        value["metadata"]["resourceVersion"] = str(self.version)
        self.pods[name] = value
        self._tell({"type": kind, "object": value})

    def delete(self, name: str) -> None:
        """Delete a pod."""
        self.version += 1
        value = self.pods.pop(name)
        value["metadata"]["resourceVersion"] = str(self.version)
        self._tell({"type": "DELETED", "object": value})

    def bookmark(self) -> None:
        """Move every watch on."""
        self.version += 1
        self._tell({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}})

    def forget(self) -> None:
        """Forget the past, as a compaction of etcd does: watches from now on need a fresh list."""
        self.version += 1
        self.oldest = self.version
        self.events.clear()

    def end_watches(self) -> None:
        """End every watch, whole, as the server does after its timeout."""
        for writer in tuple(self._watches):
            del self._watches[writer]
            writer.write(b"0\r\n\r\n")

    def break_watches(self) -> None:
        """Reset every watch in the middle."""
        for writer in tuple(self._watches):
            del self._watches[writer]
            writer.write(b"ffff\r\n{half")
            writer.transport.abort()

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        assert self._server is not None
        self._server.close()
        for writer in tuple(self._connections):
            writer.transport.abort()
        await self._server.wait_closed()
        while self._connections:
            await asyncio.sleep(0.001)

    def kubeconfig(self) -> str:
        """A kubeconfig for this server."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                "users": [{"name": "u", "user": {"token": "sa-token"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )

    def _tell(self, event: dict[str, Any]) -> None:
        self.events.append((self.version, event))
        for writer in self._watches:
            self._send(writer, event)

    @staticmethod
    def _send(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
        data = json.dumps(event).encode() + b"\n"
        half = len(data) // 2  # events do not keep to chunks
        for part in (data[:half], data[half:]):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                token = re.search(r"(?i)^authorization: (.*)\r$", head, re.M)
                self.tokens.append(token[1] if token else "")
                target = urlsplit(head.split(" ")[1])
                query = {key: values[0] for key, values in parse_qs(target.query).items()}
                self.requests.append((target.path, query))
                if self.status != 200:
                    self._whole(writer, self.status, {"kind": "Status", "code": self.status})
                elif query.get("watch") == "true":
                    self._watch(writer, int(query["resourceVersion"]))
                else:
                    self._list(writer, query)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            self._watches.pop(writer, None)
            writer.close()

    def _watch(self, writer: asyncio.StreamWriter, since: int) -> None:
        gone = since < self.oldest
        if gone and not self.refuse_in_stream:
            self._whole(writer, 410, {"kind": "Status", "code": 410, "reason": "Expired"})
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        if gone:
            self._send(writer, {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
            writer.write(b"0\r\n\r\n")
            return
        for version, event in self.events:
            if version > since:
                self._send(writer, event)
        self._watches[writer] = since

    def _list(self, writer: asyncio.StreamWriter, query: dict[str, str]) -> None:
        begin = int(query.get("continue", "0"))
        end = begin + min(self.page, int(query.get("limit", "1000")))
        pods = list(self.pods.values())
        meta = {"resourceVersion": str(self.version)} | ({"continue": str(end)} if end < len(pods) else {})
        self._whole(writer, 200, {"kind": "PodList", "metadata": meta, "items": pods[begin:end]})

    @staticmethod
    def _whole(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data))


@asynccontextmanager
async def kube_server() -> AsyncIterator[KubeServer]:
    """Run a server."""
    server = KubeServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
