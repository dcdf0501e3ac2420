"""Which pods are workers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.workers.discovery.pods import MAX_PORTS, ports, serving_address, workers_of

POD: dict[str, Any] = {
    "metadata": {"name": "vllm-0", "namespace": "ml", "uid": "u0", "labels": {"app": "vllm"}},
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.7",
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    pod = copy.deepcopy(POD)
    *steps, last = path.split(".")
    node: Any = pod
    for step in steps:
        node = node[step]
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value
    return pod


def test_a_ready_pod_is_a_worker() -> None:
    """Its address and the configured port, labelled with where it runs."""
    assert list(workers_of({"u0": POD}, "http", 8000)) == [("http://10.0.0.7:8000", {"labels": {"pod": "vllm-0", "namespace": "ml"}})]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("status.podIP", None),
        ("status.podIP", ""),
        ("status.phase", "Succeeded"),
        ("status.phase", "Pending"),
        ("status.conditions", None),
        ("status.conditions", [{"type": "Ready", "status": "False"}]),
        ("status.conditions", [{"type": "ContainersReady", "status": "True"}]),
        ("metadata.deletionTimestamp", "2026-11-24T00:00:00Z"),
        ("status", "odd"),
        ("metadata", None),
    ],
)
def test_pods_that_are_no_workers(path: str, value: Any) -> None:
    """Not ready, not running, without an address, or on its way out."""
    pod = changed(path, value)
    if path == "metadata":
        assert [url for url, _ in workers_of({"u": pod}, "http", 1)] == ["http://10.0.0.7:1"]
    else:
        assert serving_address(pod) is None


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (None, [8000]),
        ("", [8000]),
        ("9000", [9000]),
        ("9000, 9001,9000", [9000, 9001]),
        ("9000-9003", [9000, 9001, 9002, 9003]),
        ("9003-9000", [8000]),
        ("x,9000,-1,1-y,99999999", [9000]),
        ("0,65535,65536,70000-70001", [65535]),
        ("\u0661", [8000]),
        (5, [8000]),
    ],
)
def test_the_ports_of_a_pod(annotation: object, expected: list[int]) -> None:
    """`smg.ai/worker-ports` names ports and ranges; what cannot be read is passed over."""
    assert ports(annotation, 8000) == expected


def test_a_pod_has_a_bounded_number_of_workers() -> None:
    """A range over every port does not make every port a worker."""
    assert len(ports("1-65535", 8000)) == MAX_PORTS


def test_addresses_of_ipv6_are_bracketed() -> None:
    """The URL of an IPv6 pod is a URL."""
    assert [url for url, _ in workers_of({"u": changed("status.podIP", "fd00::7")}, "https", 1)] == ["https://[fd00::7]:1"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["metadata", "status", "podIP", "conditions", "type"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["metadata", "status"]), JSON))
def test_an_odd_pod_is_no_error(pod: dict[str, Any]) -> None:
    """Whatever the API server sends."""
    list(workers_of({"u": pod}, "http", 8000))
