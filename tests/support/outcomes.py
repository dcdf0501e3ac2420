"""What a client made of one request, whole or streamed: the verdicts that resilience tests count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

MODEL = "sim-model"
CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Outcome:
    """One request as its client saw it."""

    stream: bool
    status: int = 0
    """0: there was no answer."""
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    """The answer, all its pieces put together."""
    events: int = 0
    done: bool = False
    """The stream ended with its end mark."""
    error: str = ""
    """The code of the error, in an answer or in a stream."""
    broken: str = ""
    """The connection failed, so."""
    body: Any = None

    @property
    def began(self) -> bool:
        """Some of the answer was there."""
        return self.events > 0

    @property
    def ok(self) -> bool:
        """A complete success."""
        return self.status == 200 and not self.error and not self.broken and (self.done or not self.stream)


def body(content: str = "tell me something", *, stream: bool = False, max_tokens: int = 20, **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, "stream": stream, **more}


async def ask(client: httpx.AsyncClient, url: str, request: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Outcome:
    """Send a chat request to a gateway and read all that comes."""
    seen = Outcome(bool(request.get("stream")))
    try:
        async with client.stream("POST", url + CHAT, json=request, headers=headers) as answer:
            seen.status, seen.headers = answer.status_code, answer.headers
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                _whole(seen, await answer.aread())
                return seen
            async for line in answer.aiter_lines():
                _line(seen, line)
    except httpx.TransportError as error:
        seen.broken = repr(error)
    return seen


def _whole(seen: Outcome, content: bytes) -> None:
    seen.body = json.loads(content)
    if seen.status == 200:
        seen.text = seen.body["choices"][0]["message"]["content"]
        seen.done = not seen.stream
    else:
        seen.error = seen.headers.get("x-smg-error-code") or str(seen.body)


def _line(seen: Outcome, line: str) -> None:
    if line == "data: [DONE]":
        seen.done = True
    elif line.startswith("data: "):
        event = json.loads(line[6:])
        if "error" in event:
            seen.error = str(event["error"].get("code") or event["error"])
            return
        seen.events += 1
        for choice in event["choices"]:
            seen.text += choice["delta"].get("content") or ""


def client(**more: Any) -> httpx.AsyncClient:
    """A client that waits long enough for whatever a test does, and asks no proxy."""
    return httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=None), **more)


async def keep_asking(url: str, clients: int, stop: asyncio.Event, *, max_tokens: int = 20, **more: Any) -> list[Outcome]:
    """Ask with so many clients at once, whole and streamed in turn, until told to stop; every request is seen to its end."""
    outcomes: list[Outcome] = []

    async def one(number: int, http: httpx.AsyncClient) -> None:
        at = number
        while not stop.is_set():
            at += 1
            request = body(f"client {number} asks {at}", stream=at % 2 == 0, max_tokens=max_tokens, **more)
            outcomes.append(await ask(http, url, request))

    async with client() as http, asyncio.TaskGroup() as asking:
        for number in range(clients):
            asking.create_task(one(number, http))
    return outcomes
