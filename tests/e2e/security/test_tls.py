"""TLS in front of the gateway and towards its workers, with certificates made on the spot."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import ssl
from typing import Any

import httpx
import pytest

from gateway.sdk import AsyncClient
from harness.sim import running
from tests.support.certificates import authority
from tests.support.gateway_process import GatewayProcess, gateway_process, until, until_holds
from tests.support.outcomes import ask, body, client

ENGINE_KEY = "engine-key-58c1d0"


async def serial(gateway: GatewayProcess, context: ssl.SSLContext) -> str:
    """The serial number of the certificate that a new connection is shown."""
    host, port = gateway.url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    writer.close()
    await writer.wait_closed()
    return str(shown)


@pytest.mark.parametrize("processes", [1, 2])
async def test_clients_over_tls(tmp_path: pathlib.Path, processes: int) -> None:
    """Whole answers, streams, the control plane and a drain over TLS; plain HTTP and strangers' certificates get nowhere."""
    ca, stranger = authority(tmp_path / "ca"), authority(tmp_path / "stranger")
    async with running(decode_base_ms=2.0, max_model_len=100_000) as engine:
        config = {"workers": [{"url": engine.url}], "server": {"tls": ca.issue("server", "127.0.0.1")}}
        async with gateway_process(tmp_path, config, processes=processes, tls=ca.trusting()) as gateway:
            assert gateway.url.startswith("https://")
            async with client(verify=ca.trusting()) as http:
                requests = [body(f"{n}", stream=n % 2 == 0, max_tokens=40) for n in range(24)]
                outcomes = await asyncio.gather(*(ask(http, gateway.url, request) for request in requests))
                assert all(one.ok for one in outcomes), [one for one in outcomes if not one.ok]
                large = await ask(http, gateway.url, body("x" * 100_000, max_tokens=4))
                assert large.ok
            async with AsyncClient(gateway.url, ca_file=ca.ca_file) as control:
                assert [one.status for one in (await control.workers()).workers] == ["ready"]
            async with client(verify=stranger.trusting()) as http:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    await http.get(f"{gateway.url}/health")
            async with client() as http:
                with pytest.raises(httpx.TransportError):
                    await http.get(f"{gateway.url.replace('https', 'http')}/health")
            old = ca.trusting()
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            async with client(verify=old) as http:
                assert (await http.get(f"{gateway.url}/health")).status_code == 200

            async with client(verify=ca.trusting()) as http:
                last = asyncio.ensure_future(ask(http, gateway.url, body(stream=True, max_tokens=150, ignore_eos=True)))
                await until_holds(lambda: engine.state().running == 1)
                gateway.child.signal(signal.SIGTERM)
                assert (await last).events == 151 and (await last).ok
            assert await gateway.ended(5) == 0


async def test_a_client_certificate_is_demanded(tmp_path: pathlib.Path) -> None:
    """With `client_ca_file` only clients that it has signed are served; others do not get past the handshake."""
    ca, stranger = authority(tmp_path / "ca"), authority(tmp_path / "stranger")
    async with running() as engine:
        tls = {**ca.issue("server", "127.0.0.1"), "client_ca_file": ca.ca_file}
        known = ca.trusting(ca.issue("client", "client.example"))
        config = {"workers": [{"url": engine.url}], "server": {"tls": tls}}
        async with gateway_process(tmp_path, config, tls=known) as gateway:
            async with client(verify=known) as http:
                assert (await ask(http, gateway.url, body())).ok
            for context in (ca.trusting(), ca.trusting(stranger.issue("client", "client.example"))):
                async with client(verify=context) as http:
                    with pytest.raises(httpx.TransportError):
                        await http.get(f"{gateway.url}/health")
                    with pytest.raises(httpx.TransportError):
                        await http.get(f"{gateway.url}/workers")
            assert engine.state().paths["/v1/chat/completions"] == 1


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_renewed_certificate_is_taken_over(tmp_path: pathlib.Path, processes: int) -> None:
    """Files that were replaced in place are shown after SIGHUP, and a stream goes on; files that cannot be used change nothing."""
    ca = authority(tmp_path / "ca")
    async with running(decode_base_ms=20.0) as engine:
        config: dict[str, Any] = {"workers": [{"url": engine.url}], "server": {"tls": ca.issue("server", "127.0.0.1")}}
        async with gateway_process(tmp_path, config, processes=processes, tls=ca.trusting()) as gateway:
            first = await serial(gateway, ca.trusting())
            async with client(verify=ca.trusting()) as http:
                stream = asyncio.ensure_future(ask(http, gateway.url, body(stream=True, max_tokens=100, ignore_eos=True)))
                await until_holds(lambda: engine.state().running == 1)
                ca.issue("server", "127.0.0.1")
                gateway.child.signal(signal.SIGHUP)
                second = await until(lambda: serial(gateway, ca.trusting()), lambda shown: shown != first, 5.0)
                shown = {await serial(gateway, ca.trusting()) for _ in range(12)}
                assert shown == {second}, "every process shows the new one"

                (tmp_path / "ca" / "server.key").write_text("no key")
                gateway.child.signal(signal.SIGHUP)
                async with AsyncClient(gateway.url, ca_file=ca.ca_file) as control:
                    status = await until(control.status, lambda status: status.last_error, 5.0)
                assert "key_file" in status.last_error
                assert {await serial(gateway, ca.trusting()) for _ in range(12)} == {second}
                assert (await stream).ok


async def test_workers_over_tls_with_a_key(tmp_path: pathlib.Path) -> None:
    """The worker's own authority and bearer token are used; without them it is not ready and says why, and clients hear no detail."""
    ca = authority(tmp_path / "ca")
    issued = ca.issue("engine", "127.0.0.1")
    tls = {"tls_cert": issued["cert_file"], "tls_key": issued["key_file"]}
    async with running(api_key=ENGINE_KEY, decode_base_ms=1.0, **tls) as engine:
        known = {"url": engine.url, "ca_file": ca.ca_file, "api_key_env": "TEST_ENGINE_KEY"}
        async with gateway_process(tmp_path, {"workers": [known]}, env={"TEST_ENGINE_KEY": ENGINE_KEY}) as gateway, client() as http:
            requests = [body(f"{n}", stream=n % 2 == 0, max_tokens=40) for n in range(24)]
            outcomes = await asyncio.gather(
                *(ask(http, gateway.url, one, {"authorization": "Bearer the-client-s-own"}) for one in requests)
            )
            assert all(one.ok for one in outcomes), [one for one in outcomes if not one.ok]
            sent = {request.header("authorization") for request in engine.state().last if request.method == "POST"}
            assert sent == {f"Bearer {ENGINE_KEY}"}
            engine.faults(kind="reset", after_events=3, times=1)
            assert (await ask(http, gateway.url, body(stream=True))).error == "stream_broken"

        distrusted = {"url": engine.url, "api_key": ENGINE_KEY}
        async with gateway_process(tmp_path, {"workers": [distrusted]}, ready=False, name="distrusted") as gateway, client() as http:
            async with AsyncClient(gateway.url) as control:
                workers = await until(control.workers, lambda found: "certificate" in found.workers[0].reason, 5.0)
                assert workers.workers[0].status == "pending"
            outcome = await ask(http, gateway.url, body())
            assert (outcome.status, outcome.error) == (503, "no_candidate")

        locked = {"url": engine.url, "ca_file": ca.ca_file, "api_key": "not-its-key"}
        async with (
            gateway_process(tmp_path, {"workers": [locked]}, ready=False, name="asked") as gateway,
            AsyncClient(gateway.url) as control,
        ):
            workers = await until(control.workers, lambda found: "refuses the api_key" in found.workers[0].reason, 5.0)
            assert workers.workers[0].status == "pending"
        locked = {**locked, "models": ["sim-model"]}
        async with gateway_process(tmp_path, {"workers": [locked]}, name="locked") as gateway, client() as http:
            outcome = await ask(http, gateway.url, body())
            assert (outcome.status, outcome.error) == (502, "credential_failed") and "not-its-key" not in str(outcome)

        unverified = {"url": engine.url, "verify_tls": False, "api_key": ENGINE_KEY}
        async with gateway_process(tmp_path, {"workers": [unverified]}, name="unverified") as gateway, client() as http:
            assert (await ask(http, gateway.url, body())).ok


async def test_a_worker_that_stops_taking_our_key_is_no_fault_of_the_client(tmp_path: pathlib.Path) -> None:
    """A worker's 401 to the gateway's own key goes on to the next worker, or is a 502 of the gateway; never the client's 401."""
    async with running() as first, running() as second:
        workers = [{"url": one.url, "api_key": ENGINE_KEY} for one in (first, second)]
        config = {"workers": workers, "routing": {"policy": "round_robin"}, "health": {"interval_s": 60}, "breaker": {"enabled": False}}
        async with gateway_process(tmp_path, config) as gateway, client() as http:
            first.faults(kind="error", status=401)
            outcomes = [await ask(http, gateway.url, body(stream=n % 2 == 0)) for n in range(6)]
            assert all(one.ok for one in outcomes) and first.state().fault_hits >= 3
            second.faults(kind="error", status=403)
            outcome = await ask(http, gateway.url, body())
            assert (outcome.status, outcome.error) == (502, "credential_failed")
