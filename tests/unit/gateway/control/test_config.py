"""`/config` and `/status`."""

import asyncio

import pytest

from .conftest import Opening

YAML = {"content-type": "application/yaml"}
DEBUG = "health: {enabled: false}\nlog: {level: debug}\n"


async def test_the_configuration_is_shown_without_secrets(opened: Opening) -> None:
    """Version, source and every section; keys are masked."""
    async with opened("workers: [{url: 'http://10.0.0.1:8000', api_key: t0p-s3cret}]\n") as client:
        answer = await client.get("/config")
        view = answer.json()
        assert (view["version"], view["source"], view["config"]["server"]["port"]) == (1, "start", 30000)
        assert view["config"]["workers"][0]["api_key"] == "********"
        assert "s3cret" not in answer.text


async def test_a_dry_run_shows_the_difference_alone(opened: Opening) -> None:
    """Nothing is applied; what needs a restart is named."""
    async with opened() as client:
        answer = await client.put("/config?dry_run=true", content=DEBUG + "server: {port: 1234}\n", headers=YAML)
        assert answer.json() == {
            "version": 1,
            "changes": [
                {"path": "server.port", "before": 30000, "after": 1234},
                {"path": "log.level", "before": "info", "after": "debug"},
            ],
            "applied": False,
            "needs_restart": ["server.port"],
        }
        assert (await client.get("/config")).json()["version"] == 1


async def test_a_configuration_is_applied_and_rolled_back(opened: Opening) -> None:
    """Each makes a new version; a rollback with nothing before it is 409."""
    async with opened() as client:
        applied = (await client.put("/config", content=DEBUG, headers=YAML)).json()
        assert (applied["version"], applied["applied"]) == (2, True)
        back = (await client.post("/config/rollback", json={})).json()
        assert (back["version"], back["applied"]) == (3, True)
        assert (await client.get("/config")).json()["config"]["log"]["level"] == "info"
        again = await client.post("/config/rollback", json={})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


async def test_every_mistake_of_a_configuration_is_named(opened: Opening) -> None:
    """400 with all problems and their lines, and nothing has changed."""
    async with opened() as client:
        answer = await client.put("/config", content="log: {level: loud}\nrouting: {policy: best}\n", headers=YAML)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "config_invalid")
        assert [problem.split(": ")[:2] for problem in error["problems"]] == [
            ["configuration:1", "log.level"],
            ["configuration:2", "routing.policy"],
        ]
        assert (await client.get("/status")).json()["last_error"] == error["message"]


async def test_json_is_taken_as_yaml_and_plain_text_is_not(opened: Opening) -> None:
    """The type must say what it is, as everywhere."""
    async with opened() as client:
        json_body = {"health": {"enabled": False}, "log": {"level": "debug"}}
        assert (await client.put("/config", json=json_body)).json()["version"] == 2
        assert (await client.put("/config", content=DEBUG, headers={"content-type": "text/plain"})).status_code == 415
        assert (await client.put("/config", content=b"\xff\xfe\xff", headers=YAML)).status_code == 400
        assert (await client.put("/config", content=b"#" * (1 << 20) + b"#", headers=YAML)).status_code == 413


@pytest.mark.parametrize("value", ["maybe", "2", "True "])
async def test_a_dry_run_that_is_neither_true_nor_false_changes_nothing(opened: Opening, value: str) -> None:
    """A typing mistake must not apply a configuration."""
    async with opened() as client:
        answer = await client.put(f"/config?dry_run={value}", content=DEBUG, headers=YAML)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dry_run")
        assert (await client.get("/config")).json()["version"] == 1


async def test_status_describes_the_gateway(opened: Opening) -> None:
    """State, configuration, workers by status, and processes."""
    async with opened("workers: [{url: 'http://10.0.0.1:8000'}]\n") as client:
        await asyncio.sleep(0)
        status = (await client.get("/status")).json()
        assert (status["state"], status["config_version"], status["workers"]) == ("serving", 1, {"ready": 1})
        assert [process["index"] for process in status["processes"]] == [0]
