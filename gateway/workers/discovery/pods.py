"""Which workers a set of Kubernetes pods makes. Values in, values out; an odd pod is no worker, never an error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

PORTS_ANNOTATION: Final = "smg.ai/worker-ports"
MAX_PORTS: Final = 256
"""Workers of one pod."""

Pods = dict[str, dict[str, Any]]
"""Uid -> the pod as the API server's JSON has it."""


def workers_of(pods: Pods, scheme: str, port: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the URL and the worker keys of every worker in the pods."""
    for pod in pods.values():
        address = serving_address(pod)
        if address is None:
            continue
        meta = _mapping(pod.get("metadata"))
        labels = {"pod": str(meta.get("name", "")), "namespace": str(meta.get("namespace", ""))}
        host = f"[{address}]" if ":" in address else address
        for one in ports(_mapping(meta.get("annotations")).get(PORTS_ANNOTATION), port):
            yield f"{scheme}://{host}:{one}", {"labels": labels}


def serving_address(pod: Mapping[str, Any]) -> str | None:
    """Return the address of a pod that may get requests; None if it may not."""
    status = _mapping(pod.get("status"))
    address = status.get("podIP")
    conditions = status.get("conditions")
    if not isinstance(address, str) or not address or not isinstance(conditions, list):
        return None
    if _mapping(pod.get("metadata")).get("deletionTimestamp") is not None or status.get("phase") != "Running":
        return None
    ready = any(_mapping(one).get("type") == "Ready" and _mapping(one).get("status") == "True" for one in conditions)
    return address if ready else None


def ports(annotation: object, port: int) -> list[int]:
    """Return the ports that an annotation names (`8000,8001,9000-9007`); the configured one where it names none rightly."""
    if not isinstance(annotation, str):
        return [port]
    found: dict[int, None] = {}
    for part in annotation.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit() and len(first) <= 5):
            continue
        begin = end = int(first)
        if dash:
            if not (last.isascii() and last.isdigit() and len(last) <= 5):
                continue
            end = int(last)
        for one in range(max(begin, 1), min(end, 65_535) + 1):
            if len(found) == MAX_PORTS:
                break
            found[one] = None
    return list(found) or [port]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
