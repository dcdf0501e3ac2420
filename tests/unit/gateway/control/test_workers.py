"""`/workers`."""

import asyncio
import json
import uuid

import httpx
import pytest

from .conftest import Opening

ONE = "workers: [{url: 'http://10.0.0.1:8000', models: [small], api_key: t0p-s3cret, labels: {zone: a}}]\n"
UNKNOWN = str(uuid.UUID(int=7))


async def _only(client: httpx.AsyncClient) -> str:
    return str((await client.get("/workers")).json()["workers"][0]["id"])


def _error(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert answer.headers["x-smg-error-code"] == error["code"]
    return answer.status_code, error["code"], error["param"]


async def test_the_list_has_workers_total_and_stats(opened: Opening) -> None:
    """Every worker with its status, load and breaker; its key only as a fact."""
    async with opened(ONE) as client:
        answer = await client.get("/workers")
        assert answer.headers["cache-control"] == "no-store"
        listed = answer.json()
        assert (listed["total"], listed["stats"]["regular_count"], listed["stats"]["load"]) == (1, 1, 5)
        (worker,) = listed["workers"]
        expected = {
            "url": "http://10.0.0.1:8000", "model_id": "small", "status": "ready", "is_healthy": True, "load": 5, "breaker": "closed",
            "priority": 50, "cost": 1.0, "labels": {"zone": "a"}, "source": "config", "has_api_key": True, "worker_type": "regular",
            "connection_mode": "http",
        }  # fmt: skip
        assert {name: worker[name] for name in expected} == expected
        assert [model["name"] for model in worker["models"]] == ["small"]
        assert "t0p-s3cret" not in answer.text
        assert (await client.get(f"/workers/{worker['id']}")).json() == worker


async def test_the_list_can_be_of_one_model(opened: Opening) -> None:
    """Workers of other models, and their counts, are left out."""
    async with opened(ONE) as client:
        assert (await client.get("/workers?model=small")).json()["total"] == 1
        assert (await client.get("/workers?model=large")).json() == {
            "workers": [],
            "total": 0,
            "stats": {"regular_count": 0, "prefill_count": 0, "decode_count": 0, "healthy_count": 0, "load": 0, "by_status": {}},
        }


async def test_a_worker_is_added_by_202_and_a_location(opened: Opening) -> None:
    """The location leads to it; the same URL again, however written, is 409."""
    async with opened() as client:
        answer = await client.post("/workers", json={"url": "http://10.0.0.2:8000", "api_key": "t0p-s3cret", "models": ["m"]})
        assert answer.status_code == 202
        body = answer.json()
        assert set(body) == {"status", "worker_id", "url", "location", "message"}
        assert (body["status"], body["location"]) == ("accepted", answer.headers["location"])
        shown = await client.get(answer.headers["location"])
        assert (shown.json()["url"], shown.json()["source"], shown.json()["has_api_key"]) == ("http://10.0.0.2:8000", "api", True)
        again = await client.post("/workers", json={"url": "http://10.0.0.2:8000/"})
        assert _error(again) == (409, "WORKER_ALREADY_EXISTS", "url")
        assert "t0p-s3cret" not in answer.text + shown.text


async def test_the_words_of_smg_clients_are_understood(opened: Opening) -> None:
    """A worker section of smg, model cards and all, adds the same worker."""
    async with opened() as client:
        spec = {
            "url": "http://10.0.0.2:1",
            "worker_type": "regular",
            "connection_mode": "http",
            "runtime_type": "vllm",
            "models": [{"id": "m"}],
        }
        answer = await client.post("/workers", json=spec)
        shown = (await client.get(answer.headers["location"])).json()
        assert (shown["engine"], shown["model_id"]) == ("vllm", "m")
        assert _error(await client.post("/workers", json={**spec, "worker_type": "prefill"})) == (400, "invalid_request", "worker_type")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "url"),
        ({"url": "http://a:1", "colour": "red"}, "colour"),
        ({"url": "http://a:1", "cost": -1}, "cost"),
        ({"url": "http://a:1", "health": {"interval_s": 0}}, "health.interval_s"),
        ({"url": "http://a:1", "labels": {"zone": 7}}, "labels.zone"),
        ({"url": "http://a:1", "models": [7]}, "models[0]"),
        ({"url": "ftp://a:1"}, "url"),
        ({"url": "http://a:1", "api_key_env": "HOME"}, "api_key_env"),
    ],
)
async def test_a_mistake_is_named_with_the_path_of_its_field(opened: Opening, fields: dict[str, object], param: str) -> None:
    """400 in the error envelope; `param` is the field."""
    async with opened() as client:
        answer = await client.post("/workers", json=fields)
        assert _error(answer) == (400, "invalid_request", param)
        assert param in answer.json()["error"]["message"]
        assert (await client.get("/workers")).json()["total"] == 0


async def test_a_mistake_does_not_repeat_a_secret(opened: Opening) -> None:
    """What was sent as a key is in no error."""
    async with opened(ONE) as client:
        answers = [
            await client.post("/workers", json={"url": "http://a:1", "api_key": ["t0p-s3cret-2"]}),
            await client.post("/workers", json={"url": "http://a:1", "api_key": "t0p-s3cret-2\n"}),
            await client.patch(f"/workers/{await _only(client)}", json={"api_key": {"t0p-s3cret-2": 1}}),
        ]
        assert [answer.status_code for answer in answers] == [400, 400, 400]
        assert all("s3cret" not in answer.text for answer in answers)


async def test_ids_that_are_wrong_or_unknown(opened: Opening) -> None:
    """No uuid is 400, no worker is 404, on every route."""
    async with opened() as client:
        for method, suffix in (("GET", ""), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/drain")):
            body = {"json": {}} if method in ("PUT", "PATCH", "POST") else {}
            answer = await client.request(method, f"/workers/nonsense{suffix}", **body)  # type: ignore[arg-type]
            assert _error(answer) == (400, "invalid_request", "worker_id"), method
            answer = await client.request(method, f"/workers/{UNKNOWN}{suffix}", **body)  # type: ignore[arg-type]
            assert _error(answer)[:2] == (404, "WORKER_NOT_FOUND"), method


async def test_patch_changes_what_it_names(opened: Opening) -> None:
    """Priority, cost, labels, key and health; another field is refused and nothing changes."""
    async with opened(ONE) as client:
        path = f"/workers/{await _only(client)}"
        answer = await client.patch(path, json={"priority": 7, "cost": 2.5, "labels": {"zone": "b"}, "api_key": None})
        assert answer.status_code == 202
        shown = (await client.get(path)).json()
        assert (shown["priority"], shown["cost"], shown["labels"], shown["has_api_key"]) == (7, 2.5, {"zone": "b"}, False)
        assert _error(await client.patch(path, json={"url": "http://b:1", "priority": 8})) == (400, "invalid_request", "url")
        assert _error(await client.patch(path, json={"health": {"interval_s": -1}}))[::2] == (400, "health.interval_s")
        assert (await client.get(path)).json()["priority"] == 7


async def test_put_replaces_all_but_the_url(opened: Opening) -> None:
    """What the body leaves out gets its default; another URL is refused."""
    async with opened(ONE) as client:
        path = f"/workers/{await _only(client)}"
        assert (await client.put(path, json={"cost": 3.0})).status_code == 202
        shown = (await client.get(path)).json()
        assert (shown["url"], shown["cost"], shown["labels"]) == ("http://10.0.0.1:8000", 3.0, {})
        assert _error(await client.put(path, json={"url": "http://10.0.0.9:8000"})) == (400, "invalid_request", "url")


async def test_drain_keeps_a_worker_and_delete_lets_it_leave(opened: Opening) -> None:
    """Both answer 202 at once; the worker drains first, and leaves when nothing is in flight on it."""
    async with opened(ONE) as client:
        path = f"/workers/{await _only(client)}"
        assert (await client.post(f"{path}/drain", json={})).status_code == 202
        assert (await client.get(path)).json()["status"] == "draining"
        assert (await client.delete(path)).status_code == 202
        assert (await client.get(path)).json()["status"] == "draining"
        await asyncio.sleep(0)
        assert (await client.get(path)).status_code == 200, "five requests are in flight on it"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_that_does_not_say_json_is_refused(opened: Opening, content_type: str | None) -> None:
    """What a web page can send without asking is 415, and does nothing."""
    async with opened(ONE) as client:
        headers = {} if content_type is None else {"content-type": content_type}
        body = json.dumps({"url": "http://a:1"}).encode()
        assert _error(await client.post("/workers", content=body, headers=headers))[:2] == (415, "unsupported_media_type")
        path = f"/workers/{await _only(client)}/drain"
        assert (await client.post(path, content=b"", headers=headers)).status_code == 415
        assert (await client.post("/config/rollback", content=b"", headers=headers)).status_code == 415
        assert (await client.get("/workers")).json()["stats"]["by_status"] == {"ready": 1}


@pytest.mark.parametrize("body", [b"[]", b"{", b"7", b'"x"', b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_400(opened: Opening, body: bytes) -> None:
    """Whatever it is instead."""
    async with opened() as client:
        answer = await client.post("/workers", content=body, headers={"content-type": "application/json"})
        assert _error(answer) == (400, "invalid_request", None)


async def test_a_body_above_the_limit_is_413_also_without_a_length(opened: Opening) -> None:
    """Declared or in pieces, no more than the limit is held."""
    read = 0

    async def pieces():  # type: ignore[no-untyped-def]
        nonlocal read
        for _ in range(100):
            read += 1
            yield b" " * 100_000

    headers = {"content-type": "application/json"}
    async with opened() as client:
        assert _error(await client.post("/workers", content=b" " * (1 << 20) + b"{}", headers=headers))[0] == 413
        assert _error(await client.post("/workers", content=pieces(), headers=headers))[0] == 413


async def test_a_wrong_method_names_the_right_ones(opened: Opening) -> None:
    """405 with every method that the path takes."""
    async with opened() as client:
        answer = await client.delete("/workers")
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
