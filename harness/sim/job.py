"""One request inside a simulated engine: what will be said, token by token, and what its codec needs to know."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from harness.sim.scheduler import Sequence


class Api(StrEnum):
    """The routes that compute something."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    MESSAGES = "messages"
    RESPONSES = "responses"
    GENERATE = "generate"
    POOL = "pool"
    """Embeddings and scores: a prefill without an answer of its own."""


class Part(IntEnum):
    """What a token is part of."""

    TEXT = 0
    CALL = 1
    """The token that names a tool."""
    ARGUMENTS = 2


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer as the client sees it."""

    part: Part
    text: str
    call: int = 0
    """Which tool call of the answer it belongs to."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the client offered, in any dialect."""

    name: str
    schema: Any


@dataclass(slots=True, eq=False)
class Answer:
    """One choice of a request."""

    index: int
    tokens: list[Token]
    finish: str
    """`stop`, `length` or `tool_calls`."""
    stop_match: str | None
    """The stop string that ended it."""
    sequence: Sequence
    cut: bool = False
    """max_tokens cut a tool call in two."""

    @property
    def text(self) -> str:
        """The whole text of the answer, without tool calls."""
        return "".join(token.text for token in self.tokens if token.part is Part.TEXT)

    @property
    def calls(self) -> list[tuple[str, str]]:
        """The tool calls, as name and JSON arguments."""
        calls: list[tuple[str, str]] = []
        for token in self.tokens:
            if token.part is Part.CALL:
                calls.append((token.text, ""))
            elif token.part is Part.ARGUMENTS:
                name, arguments = calls[-1]
                calls[-1] = (name, arguments + token.text)
        return calls


@dataclass(slots=True, eq=False)
class Job:
    """One generating request. Created by `requests.build`, run by `Driver`, encoded by a dialect."""

    api: Api
    body: dict[str, Any]
    id: str
    """Hex id without the prefix of a dialect."""
    client_id: str | None
    """The client's X-Request-Id."""
    created_s: int
    model: str
    stream: bool
    include_usage: bool
    logprobs: int | None
    """Alternatives to report with each token; None reports no logprobs."""
    prompt_text: str
    prompt_tokens: int
    answers: list[Answer]
    named_tool: bool = False
    """tool_choice names one function."""
    tools: tuple[Tool, ...] = ()
    max_tokens: int | None = None
    """What the client asked for."""
    on_token: Callable[[Answer, int], None] | None = None
    """Called with an answer and the place of its new token."""
    on_over: Callable[[], None] | None = None
    """Called once, after the last token of the last answer."""
    left: int = 0
    over: bool = False
    started_s: float = 0.0
    wall_s: float = field(default=0.0)
    """Wall-clock time of arrival, for the timestamps that SGLang reports."""

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the prefix cache gave to the first answer."""
        return self.answers[0].sequence.cached if self.answers else 0

    @property
    def completion_tokens(self) -> int:
        """Tokens made so far, all answers together."""
        return sum(answer.sequence.produced for answer in self.answers)


def logprob(text: str) -> float:
    """Return the made-up log probability of a token: the same for the same text, in (-10, 0)."""
    return -((zlib.crc32(text.encode()) % 9_973) + 1) / 1_000.0
