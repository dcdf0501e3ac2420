"""Phase route: one plan for all attempts, and refusals that say when to come back."""

from __future__ import annotations

from gateway.errors import Code
from gateway.pipeline.route import STARTING_RETRY_S, next_worker, no_candidate, replan, route
from gateway.workers.state import Status
from tests.support.exchange import Rig, state


def test_the_plan_yields_each_worker_once() -> None:
    """Every worker is taken once, in the policy's order; a new plan begins anew."""
    with Rig(3) as rig:
        x, _ = rig.ask()
        assert next_worker(x) is rig.workers[1] and next_worker(x) is rig.workers[2] and next_worker(x) is None
        replan(x)
        assert next_worker(x) is rig.workers[0]
        rig.driver.close()


def test_a_breaker_without_a_free_slot_is_passed_over() -> None:
    """A half-open worker whose probe is under way is skipped, and no slot is taken."""
    with Rig(2, {"breaker": {"min_requests": 1, "open_s": 1}}) as rig:
        breaker = rig.workers[0].breaker
        breaker.failure()
        rig.advance(2)
        breaker.tick(rig.loop.now_s)
        rig.ask()
        rig.ask()
        assert [call.headers["host"] for call in rig.calls] == ["w0:8000", "w1:8000"]
        rig.driver.close()
        assert breaker.admits


def test_refusals() -> None:
    """Each reason has its words, and its time to come back."""
    with Rig([state(0, models=("a",), status=Status.NOT_READY), state(1, models=("b",))], {"models": [{"name": "c"}]}) as rig:

        def refusal(model: str) -> tuple[str, float | None]:
            found = rig.rt.router.route(model)
            assert found is not None
            error = no_candidate(found.pool, rig.rt)
            assert error.code is Code.NO_CANDIDATE
            return error.message, error.retry_after_s

        assert refusal("a") == ("no worker of this model is ready", STARTING_RETRY_S)
        assert refusal("c") == ("no worker serves this model now", STARTING_RETRY_S)
        assert refusal("b") == ("every worker of this model failed lately and is being left alone", 10.0)


def test_a_long_name_is_cut_in_the_refusal() -> None:
    """An unknown model is named in the error, at most 128 characters of it."""
    with Rig() as rig:
        x, client = rig.ask(model="x" * 5000)
        assert client.status == 404 and len(client.json["error"]["message"]) < 200
        error = route(x, rig.rt)
        assert error is not None and error.code is Code.MODEL_NOT_FOUND
