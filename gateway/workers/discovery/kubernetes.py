"""Workers in Kubernetes: the ready pods that a label selector finds, listed once and then watched.

A pod is a worker while it is `Ready`, has an address and is not being deleted. The annotation `smg.ai/worker-ports` names its
ports (`8000,8001,9000-9007`), a worker each; without it the configured port counts.

The official client blocks, so it runs in a thread of the source's own, which lists, watches from there, and starts over where
the server says that it has forgotten the place (410 Gone). The thread ends when the source is cancelled: its connection is
shut down under it. Answers are read as plain JSON; the client's models cost more than the rest of it together.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from gateway.config.model import KubernetesDiscovery, WorkerConfig
from gateway.errors import ConfigError
from gateway.workers.discovery.pods import Pods, workers_of
from gateway.workers.discovery.source import Hear, Voice, from_urls, template_of

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Pods of one page of a list (kubectl's chunk)."""
CONNECT_S: Final = 5.0
LIST_S: Final = 30.0
WATCH_S: Final = 60
"""The server ends a watch after this time; then it goes on from the same place."""
WATCH_GRACE_S: Final = 10.0
"""A watch that is silent for longer than this beyond its time has lost its server."""
MIN_WATCH_S: Final = 1.0
"""Watches that the server ends at once follow each other no faster."""
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
JOIN_S: Final = 10.0
MAX_LINE_BYTES: Final = 8 << 20
"""Largest event; etcd holds objects up to 1.5 MiB."""
GONE: Final = 410


class KubernetesSource:
    """The workers of one selector."""

    def __init__(self, config: KubernetesDiscovery) -> None:
        """Construct without side effects.

        Raises:
            ConfigError: the client is not installed, or the template makes no worker.
        """
        if importlib.util.find_spec("kubernetes") is None:
            raise ConfigError("kubernetes discovery needs the kubernetes extra: pip install 'smgctl[kubernetes]'")
        self.name = f"kubernetes:{config.namespace or '*'}/{config.selector}:{config.port}"
        self._config = config
        self._template = template_of(config.worker)
        self._voice = Voice(self.name)

    @property
    def problem(self) -> str:
        """Why the last look failed."""
        return self._voice.problem

    async def run(self, hear: Hear) -> None:
        """List and watch the pods until cancelled."""
        loop = asyncio.get_running_loop()
        said: tuple[WorkerConfig, ...] | None = None

        def listen(pods: Pods) -> None:
            nonlocal said
            self._voice.works()
            specs = from_urls(self._template, workers_of(pods, self._config.scheme, self._config.port), self.name)
            if specs != said:
                said = specs
                hear(specs)

        def call(function: Callable[[Any], None], value: Any) -> None:
            try:
                loop.call_soon_threadsafe(function, value)
            except RuntimeError:
                pass  # the loop has closed under a thread that outlived its join

        watch = _Watch(self._config, lambda pods: call(listen, pods), lambda problem: call(self._voice.fails, problem))
        thread = threading.Thread(target=watch.run, name=self.name, daemon=True)
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            watch.stop()
            await asyncio.shield(asyncio.to_thread(thread.join, JOIN_S))


class _Forgotten(Exception):
    """The server no longer knows the place from which to watch."""


class _Watch:
    """Lists and watches in a thread; `stop` may be called from any other."""

    def __init__(self, config: KubernetesDiscovery, pods: Callable[[Pods], None], problem: Callable[[str], None]) -> None:
        self._config = config
        self._say_pods = pods
        self._say_problem = problem
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._answer: Any = None
        """The answer that is being read, to be shut down by `stop`."""

    def stop(self) -> None:
        """End as soon as possible."""
        with self._lock:
            self._stopped.set()
            if self._answer is not None:
                _shut_down(self._answer)

    def run(self) -> None:
        """List, watch, and start over, until stopped."""
        pause_s = FIRST_PAUSE_S
        api: Any = None
        while not self._stopped.is_set():
            try:
                api = self._connect() if api is None else api
                place, pods = self._list(api)
                self._say_pods(dict(pods))
                pause_s = FIRST_PAUSE_S
                while not self._stopped.is_set():
                    began_s = time.monotonic()
                    place = self._follow(api, place, pods)
                    self._stopped.wait(max(0.0, MIN_WATCH_S - (time.monotonic() - began_s)))
            except _Forgotten:
                self._stopped.wait(FIRST_PAUSE_S)
                continue
            except Exception as error:  # whatever the client and its libraries raise: said, and tried again
                if self._stopped.is_set():
                    break
                log.debug("kubernetes: %s", error, exc_info=True)
                self._say_problem(_why(error))
                api = None  # with fresh credentials
            self._stopped.wait(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(MAX_PAUSE_S, pause_s * 2)

    def _connect(self) -> Any:
        from kubernetes import client, config  # heavy: half a second, in this thread alone

        configuration = client.Configuration()
        load: Any = config
        if self._config.kubeconfig is not None:
            load.load_kube_config(config_file=self._config.kubeconfig, client_configuration=configuration, persist_config=False)
        else:
            load.load_incluster_config(client_configuration=configuration)
        configuration.retries = False
        return client.CoreV1Api(client.ApiClient(configuration))

    def _ask(self, api: Any, read_s: float, **query: Any) -> Any:
        """Send a request; the caller reads the answer's body, and leaves it by `_left`."""
        options = {
            "label_selector": self._config.selector,
            "_preload_content": False,
            "_request_timeout": (CONNECT_S, read_s),
            **query,
        }
        if self._config.namespace is None:
            answer = api.list_pod_for_all_namespaces(**options)
        else:
            answer = api.list_namespaced_pod(self._config.namespace, **options)
        with self._lock:
            self._answer = answer
            if self._stopped.is_set():
                _shut_down(answer)
        return answer

    def _left(self, answer: Any) -> None:
        with self._lock:
            self._answer = None
        answer.close()
        answer.release_conn()

    def _list(self, api: Any) -> tuple[str, Pods]:
        pods: Pods = {}
        token: str | None = None
        while True:
            more = {} if token is None else {"_continue": token}
            answer = self._ask(api, LIST_S, limit=PAGE, **more)
            try:
                page = orjson.loads(answer.data)
            finally:
                self._left(answer)
            for pod in page.get("items") or ():
                pods[pod["metadata"]["uid"]] = pod
            meta = page.get("metadata") or {}
            token = meta.get("continue")
            if not token:
                return str(meta.get("resourceVersion", "")), pods

    def _follow(self, api: Any, place: str, pods: Pods) -> str:
        """Watch from a place until the server ends the watch; return the place that was reached."""
        answer = self._ask(
            api, WATCH_S + WATCH_GRACE_S, watch=True, resource_version=place, allow_watch_bookmarks=True, timeout_seconds=WATCH_S
        )
        try:
            for line in _lines(answer):
                event = orjson.loads(line)
                kind, thing = event.get("type"), event.get("object") or {}
                if kind == "ERROR":
                    if thing.get("code") == GONE:
                        raise _Forgotten
                    raise RuntimeError(f"the watch broke off: {thing.get('reason', 'unknown reason')}")
                place = thing["metadata"]["resourceVersion"]
                if kind == "DELETED":
                    pods.pop(thing["metadata"]["uid"], None)
                elif kind in ("ADDED", "MODIFIED"):
                    pods[thing["metadata"]["uid"]] = thing
                else:
                    continue
                self._say_pods(dict(pods))
        finally:
            self._left(answer)
        return place


def _lines(answer: Any) -> Iterator[bytes]:
    """Yield the lines of an answer as they come."""
    rest = b""
    for piece in answer.stream(amt=None, decode_content=False):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > MAX_LINE_BYTES:
            raise RuntimeError("an event is larger than 8 MiB")


def _shut_down(answer: Any) -> None:
    """Wake the thread that reads an answer."""
    try:
        answer.shutdown()
    except (ValueError, OSError, RuntimeError):
        pass  # it has ended by itself


def _why(error: Exception) -> str:
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        hint = {401: ": the credentials are not accepted", 403: ": it needs the rights to list and watch pods"}.get(status, "")
        return f"the api server answered {status}{hint}"
    return f"the api server cannot be asked: {type(error).__name__}"
