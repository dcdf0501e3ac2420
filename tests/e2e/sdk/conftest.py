"""The gateway that all client libraries are tried against, and the clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anthropic
import openai
import pytest

from harness.sim import FLAVOURS
from tests.support.flavours import Engine, Flavours, flavours, model_of


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flavours]:
    with flavours(tmp_path_factory.mktemp("flavours")) as found:
        yield found


@pytest.fixture
def fleet(started: Flavours) -> Iterator[Flavours]:
    """The gateway and its engines, of which none has a fault before or after the test."""
    yield started
    for engine in started.engines.values():
        engine.clear()


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(flavour: str) -> str:
    return model_of(flavour)


@pytest.fixture
def engine(fleet: Flavours, flavour: str) -> Engine:
    return fleet.engines[flavour]


@pytest.fixture
def client(fleet: Flavours) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="none", max_retries=0, timeout=30) as found:
        yield found


@pytest.fixture
async def aclient(fleet: Flavours) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="none", max_retries=0, timeout=30) as found:
        yield found


@pytest.fixture
def claude(fleet: Flavours) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=fleet.url, api_key="none", max_retries=0, timeout=30) as found:
        yield found


@pytest.fixture
async def aclaude(fleet: Flavours) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=fleet.url, api_key="none", max_retries=0, timeout=30) as found:
        yield found
