"""Every secret that a gateway is given, looked for in everything that it says."""

from __future__ import annotations

import asyncio
import pathlib
import signal
from hashlib import sha256
from typing import Any

import httpx
import pytest

from harness.sim import running
from tests.support.gateway_process import GatewayProcess, gateway_process, until, until_holds
from tests.support.outcomes import CHAT, ask, body, client
from tests.support.subcommand import smgctl

# Of no known shape, so that nothing but not being written keeps them out of a log.
CLIENT_KEY = "3fqW8yPzR1client"
ADMIN_KEY = "Xo2mV7tKc9admin"
WRONG_KEY = "b6HdL0sQj4wrong"
INLINE_KEY = "Tn5gE1uAw8inline"
VARIABLE_KEY = "Zk9pC3rMx2variable"
ADDED_KEY = "Fy4hB6vNd7added"
PATCHED_KEY = "Jc8sG2xTq5patched"
APPLIED_KEY = "Mw1zR9kLe3applied"
PROMPT = "Hv7nD5bUo6prompt"
PASSWORD = "Qa3jY8fIs0password"
SECRETS = {
    "the client's key": CLIENT_KEY,
    "the admin's key": ADMIN_KEY,
    "a wrong key": WRONG_KEY,
    "a worker's key in the file": INLINE_KEY,
    "a worker's key in the environment": VARIABLE_KEY,
    "a key added over the api": ADDED_KEY,
    "a key patched over the api": PATCHED_KEY,
    "a key in an applied file": APPLIED_KEY,
    "a prompt": PROMPT,
    "a password in a url": PASSWORD,
    "the hash of the client's key": sha256(CLIENT_KEY.encode()).hexdigest(),
    "the hash of the admin's key": sha256(ADMIN_KEY.encode()).hexdigest(),
}
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
CLIENT = {"authorization": f"Bearer {CLIENT_KEY}"}


class Listener:
    """Keeps everything that the gateway answers, head and body."""

    def __init__(self, gateway: GatewayProcess, http: httpx.AsyncClient) -> None:
        self._gateway = gateway
        self._http = http
        self.said: dict[str, str] = {}

    async def request(self, method: str, path: str, headers: dict[str, str], **more: Any) -> httpx.Response:
        answer = await self._http.request(method, self._gateway.url + path, headers=headers, **more)
        self.said[f"{len(self.said)}: {method} {path} -> {answer.status_code}"] = f"{answer.headers}\n{answer.text}"
        return answer


@pytest.mark.parametrize("processes", [1, 2])
async def test_no_secret_is_ever_said(tmp_path: pathlib.Path, processes: int) -> None:
    """Answers, errors, metrics, configuration, status, logs at their most talkative and the command line hold no key, hash or prompt."""
    keys = [
        {"id": "app", "sha256": sha256(CLIENT_KEY.encode()).hexdigest()},
        {"id": "ops", "sha256": sha256(ADMIN_KEY.encode()).hexdigest(), "roles": ["admin"]},
    ]
    async with (
        running(api_key=INLINE_KEY) as inline,
        running(api_key=VARIABLE_KEY) as variable,
        running(api_key=ADDED_KEY) as added,
    ):
        config: dict[str, Any] = {
            "auth": {"keys": keys},
            "workers": [{"url": inline.url, "api_key": INLINE_KEY}, {"url": variable.url, "api_key_env": "TEST_VARIABLE_KEY"}],
            "log": {"level": "debug", "access": True, "json_lines": processes == 2},
            "routing": {"policy": "round_robin"},
            "retry": {"max_attempts": 2},
            "timeouts": {"first_byte_s": 1.0, "idle_s": 0.5},
        }
        environment = {"TEST_VARIABLE_KEY": VARIABLE_KEY}
        async with gateway_process(tmp_path, config, processes=processes, env=environment) as gateway, client() as http:
            listener = Listener(gateway, http)
            ask_for = listener.request
            # Workers: added, patched, with a key that they refuse, with mistakes beside a key.
            answer = await ask_for("POST", "/workers", ADMIN, json={"url": added.url, "api_key": ADDED_KEY})
            worker = answer.json()["location"]
            await until(lambda: ask_for("GET", worker, ADMIN), lambda answer: answer.json()["status"] == "ready")
            await ask_for("PATCH", worker, ADMIN, json={"cost": 2})
            wrong: list[dict[str, Any]] = [
                {"url": added.url, "api_key": ADDED_KEY},
                {"url": f"http://user:{PASSWORD}@127.0.0.1:9"},
                {"url": "http://127.0.0.1:9", "api_key": [PATCHED_KEY]},
                {"url": "http://127.0.0.1:9", "api_key": PATCHED_KEY, "priority": PATCHED_KEY},
                {"url": "http://127.0.0.1:9", "api_keys": PATCHED_KEY},
                {"url": "http://127.0.0.1:9", "api_key": f"{PATCHED_KEY}\n"},
            ]
            for fields in wrong:
                answer = await ask_for("POST", "/workers", ADMIN, json=fields)
                assert 400 <= answer.status_code < 500, (fields, answer.text)
            # Requests: good ones, and every way to fail that has a secret near.
            for stream in (False, True):
                for headers in (CLIENT, {"x-api-key": CLIENT_KEY}, {"authorization": f"Bearer {WRONG_KEY}"}, {"x-api-key": WRONG_KEY}):
                    await ask_for("POST", CHAT, headers, json=body(PROMPT, stream=stream))
            await ask_for("POST", CHAT, CLIENT, content=b'{"model": "' + PROMPT.encode())
            await ask_for("POST", CHAT, CLIENT, json={"model": "sim-model", "messages": PROMPT})
            await ask_for("POST", f"/v1/{PASSWORD}", ADMIN)
            await ask_for("GET", f"/health?api_key={CLIENT_KEY}", CLIENT)
            await ask_for("POST", f"{CHAT}?key={CLIENT_KEY}", CLIENT, json=body(PROMPT))
            for fault in ("error", "garbage", "reset", "wrong_json", "no_done", "stall", "short_body", "rate_limit"):
                for engine in (inline, variable, added):
                    engine.faults(kind=fault, times=1)
                for stream in (False, True):
                    await ask_for("POST", CHAT, CLIENT, json=body(PROMPT, stream=stream))
            for engine in (inline, variable, added):
                engine.clear_faults()
            await ask_for("PATCH", worker, ADMIN, json={"api_key": PATCHED_KEY})
            for _ in range(6):
                await ask_for("POST", CHAT, CLIENT, json=body(PROMPT))
            inline.crash()
            for _ in range(4):
                await ask_for("POST", CHAT, CLIENT, json=body(PROMPT))
            # The configuration: seen, compared, changed, refused, reloaded, taken back.
            yaml = {**ADMIN, "content-type": "application/yaml"}
            config["workers"][0] = {"url": inline.url, "api_key": APPLIED_KEY}
            await ask_for("PUT", "/config?dry_run=true", yaml, content=gateway.text(config))
            answer = await ask_for("PUT", "/config", yaml, content=gateway.text(config))
            assert answer.status_code == 200 and answer.json()["changes"]
            mistakes: list[dict[str, Any]] = [{"api_key": [APPLIED_KEY]}, {"api_key": APPLIED_KEY, "cost": "high"}, {"apikey": APPLIED_KEY}]
            for mistake in mistakes:
                wrong_config = {**config, "workers": [{"url": inline.url, **mistake}]}
                answer = await ask_for("PUT", "/config", yaml, content=gateway.text(wrong_config))
                assert answer.status_code == 400
            await ask_for("PUT", "/config", yaml, content=f"workers:\n  - url: {inline.url}\n    api_key: '{APPLIED_KEY}\n")
            gateway.file.write_text(
                f"auth: {{keys: [{{id: x, sha256: {CLIENT_KEY}}}]}}\nworkers: [{{url: 'http://a', api_key: {APPLIED_KEY}}}"
            )
            gateway.child.signal(signal.SIGHUP)
            await until(lambda: ask_for("GET", "/status", ADMIN), lambda answer: answer.json()["last_error"], 5.0)
            await ask_for("POST", "/config/rollback", ADMIN, json={})
            for path in ("/config", "/workers", "/status", worker):
                await ask_for("GET", path, ADMIN)
                await ask_for("GET", path, {"authorization": f"Bearer {WRONG_KEY}"})
            listener.said["metrics"] = (await http.get(gateway.metrics_url)).text
            commands = (["config", "show"], ["worker", "list"], ["worker", "show", added.url], ["status"], ["config", "show", "--json"])
            for arguments in commands:
                code, printed = await smgctl(gateway.url, *arguments, api_key=ADMIN_KEY)
                assert code == 0, printed
                listener.said[f"smgctl {' '.join(arguments)}"] = printed
            code, listener.said["smgctl with a wrong key"] = await smgctl(gateway.url, "status", api_key=WRONG_KEY)
            assert code != 0
            await until_holds(lambda: gateway.log.count("request_id") >= 20, 5.0)
        listener.said["log"] = gateway.log

    assert len(listener.said) > 70
    found = [f"{secret} in {where}" for where, text in listener.said.items() for secret, value in SECRETS.items() if value in text]
    echoes = [one for one in found if one.startswith("a prompt in") and "POST" in one and "-> 4" not in one and "-> 5" not in one]
    assert [one for one in found if one not in echoes] == []


async def test_the_client_s_key_is_not_handed_to_workers(tmp_path: pathlib.Path) -> None:
    """Where the gateway has keys, a client's credential ends at the gateway, whichever header it came in."""
    keys = [{"id": "app", "sha256": sha256(CLIENT_KEY.encode()).hexdigest()}]
    async with running() as engine:
        config = {"auth": {"keys": keys}, "workers": [{"url": engine.url}]}
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            for headers in (CLIENT, {"x-api-key": CLIENT_KEY}):
                assert (await ask(http, gateway.url, body(), headers)).ok
            assert await asyncio.to_thread(lambda: CLIENT_KEY not in str(engine.state().last))
            assert engine.state().paths[CHAT] == 2
