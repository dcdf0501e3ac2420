"""Phase admit: who may ask, in which class, and for how many tokens."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from tests.support.exchange import ANSWER, Rig


def _auth(**more: Any) -> dict[str, Any]:
    return {"auth": {"keys": [{"id": "k", "sha256": sha256(b"secret").hexdigest(), **more}]}}


BEARER = [(b"authorization", b"Bearer secret")]


def test_a_key_is_needed_where_there_are_keys() -> None:
    """No key and a wrong key are 401, a key without the data role is 403, and no worker hears of them."""
    with Rig(1, _auth()) as rig:
        for headers in ([], [(b"authorization", b"Bearer wrong")]):
            _, client = rig.ask(headers=headers)
            assert client.status == 401 and client.headers["x-smg-error-code"] == "unauthenticated"
        x, _ = rig.ask(headers=BEARER)
        assert x.identity is not None and x.identity.tenant == "k"
        assert "authorization" not in rig.call.headers, "the gateway's keys are not the worker's"
        rig.call.answer(200, ANSWER)
        rig.check_idle()
    with Rig(1, _auth(roles=["admin"])) as rig:
        _, client = rig.ask(headers=BEARER)
        assert client.status == 403 and not rig.sent
        rig.check_idle()


@pytest.mark.parametrize(
    ("wanted", "most", "expected"),
    [
        (None, "interactive", "default"),
        (b"bulk", "interactive", "bulk"),
        (b" Interactive ", "interactive", "interactive"),
        (b"system", "interactive", "interactive"),
        (b"interactive", "bulk", "bulk"),
        (b"nonsense", "interactive", "default"),
        (None, "bulk", "bulk"),
    ],
)
def test_the_priority_class(wanted: bytes | None, most: str, expected: str) -> None:
    """A client gets the class that it asks for, no higher than its key allows."""
    with Rig(1, {**_auth(max_priority=most), "admission": {"max_concurrent_requests": 1}}) as rig:
        rig.ask(headers=BEARER)
        x, _ = rig.ask(headers=[*BEARER, *([(b"x-smg-priority", wanted)] if wanted is not None else [])])
        assert x.waiting is not None and dict(rig.rt.admission.queue.depth()) == {expected: 1, **_zeros(rig, expected)}
        rig.driver.close()


def _zeros(rig: Rig, but: str) -> dict[str, int]:
    return {name: 0 for name in dict(rig.rt.admission.queue.depth()) if name != but}


def test_a_full_queue_refuses() -> None:
    """Beyond the queue a request is 429 at once, with a time to come back; a queue's timeout is 503."""
    config = {"admission": {"max_concurrent_requests": 1, "default": {"queue_size": 1, "queue_timeout_s": 5}}}
    with Rig(1, config) as rig:
        rig.ask()
        x, waits = rig.ask()
        _, refused = rig.ask()
        assert refused.status == 429 and refused.headers["x-smg-error-code"] == "rate_limited" and refused.headers["retry-after"]
        rig.advance(6)
        rig.rt.admission.tick(rig.loop.now_s)
        assert waits.status == 503 and x.waiting is None
        rig.call.answer(200, ANSWER)
        rig.advance()
        rig.check_idle()


def test_a_tenants_limit_refuses() -> None:
    """Beyond the tenant's requests a minute a request is 429, with a time to come back."""
    with Rig(1, {"admission": {"tenant_limit": {"requests_per_minute": 1}}}) as rig:
        rig.ask()
        _, client = rig.ask()
        assert client.status == 429 and client.headers["x-smg-error-code"] == "rate_limited" and int(client.headers["retry-after"]) >= 1
        rig.call.answer(200, ANSWER)
        rig.check_idle()
