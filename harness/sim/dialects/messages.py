"""Anthropic's messages API as vLLM 0.32 and SGLang 0.5.23 write it (streams recorded, whole answers by their sources)."""

from __future__ import annotations

from typing import Any

import orjson

from harness.sim.dialects.wire import dumps, named_event
from harness.sim.job import Answer, Job, Part
from harness.sim.settings import Flavour

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


def error_body(status: int, message: str) -> bytes:
    """Return an error in Anthropic's shape."""
    return dumps({"type": "error", "error": {"type": ERROR_TYPES.get(status, "api_error"), "message": message}})


def stop_reason(answer: Answer) -> str:
    """Return Anthropic's word for why an answer ended."""
    return "stop_sequence" if answer.stop_match is not None else STOP_REASONS[answer.finish]


def call_id(job: Job, call: int) -> str:
    """Return the id of a tool use."""
    return f"toolu_{job.id[:22]}{call:02x}"


class Messages:
    """The codecs of one engine."""

    def __init__(self, flavour: Flavour) -> None:
        self.vllm = flavour == "vllm"

    def id(self, job: Job) -> str:
        """Return the id of an answer: vLLM keeps the one of its chat answer."""
        return f"chatcmpl-{job.client_id or job.id[:16]}" if self.vllm else f"msg_{job.id}"

    def usage(self, job: Job) -> dict[str, Any]:
        """Return the usage of a finished answer; vLLM leaves cached tokens out of `input_tokens`, as Anthropic does."""
        usage = {"input_tokens": job.prompt_tokens, "output_tokens": job.completion_tokens}
        if self.vllm:
            cached = job.cached_tokens
            usage["input_tokens"] -= cached
            usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}
        return usage

    def whole(self, job: Job) -> dict[str, Any]:
        """Return a whole answer."""
        answer = job.answers[0]
        content: list[dict[str, Any]] = []
        if answer.text or not answer.calls:
            content.append({"type": "text", "text": answer.text})
        content += [
            {"type": "tool_use", "id": call_id(job, place), "name": name, "input": _object(arguments)}
            for place, (name, arguments) in enumerate(answer.calls)
        ]
        body: dict[str, Any] = {"id": self.id(job), "type": "message", "role": "assistant", "content": content, "model": job.model}
        body["stop_reason"] = stop_reason(answer)
        if self.vllm or answer.stop_match is not None:
            body["stop_sequence"] = answer.stop_match
        body["usage"] = self.usage(job)
        return body

    def stream(self, job: Job) -> MessageStream:
        """Return the event codec of an answer."""
        return MessageStream(self, job)


class MessageStream:
    """An answer as named events: a content block for the text, one for each tool call."""

    done = named_event("message_stop", {"type": "message_stop"})

    def __init__(self, codec: Messages, job: Job) -> None:
        self._codec = codec
        self._job = job
        self._block = -1
        self._part: tuple[Part, int] | None = None

    def head(self) -> list[bytes]:
        """Return the event that opens the message."""
        message: dict[str, Any] = {
            "id": self._codec.id(self._job),
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._job.model,
        }
        if self._codec.vllm:
            message |= {"stop_reason": None, "stop_sequence": None}
        message["usage"] = {"input_tokens": self._job.prompt_tokens, "output_tokens": 0}
        return [named_event("message_start", {"type": "message_start", "message": message})]

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the events of one token; a new part closes the block before it and opens its own."""
        token = answer.tokens[place]
        events: list[bytes] = []
        part = (Part.TEXT if token.part is Part.TEXT else Part.CALL, token.call)
        if part != self._part:
            events += self._stop()
            self._part = part
            self._block += 1
            block = (
                {"type": "text", "text": ""}
                if token.part is Part.TEXT
                else {"type": "tool_use", "id": call_id(self._job, token.call), "name": token.text, "input": {}}
            )
            events.append(self._event("content_block_start", "content_block", block))
        if token.part is Part.TEXT:
            events.append(self._event("content_block_delta", "delta", {"type": "text_delta", "text": token.text}))
        elif token.part is Part.ARGUMENTS:
            events.append(self._event("content_block_delta", "delta", {"type": "input_json_delta", "partial_json": token.text}))
        return events

    def tail(self) -> list[bytes]:
        """Return the end of the last block, and the event with the stop reason and usage."""
        answer = self._job.answers[0]
        delta: dict[str, Any] = {"stop_reason": stop_reason(answer)}
        if self._codec.vllm or answer.stop_match is not None:
            delta["stop_sequence"] = answer.stop_match
        usage = self._codec.usage(self._job) if self._codec.vllm else {"output_tokens": self._job.completion_tokens}
        return [*self._stop(), named_event("message_delta", {"type": "message_delta", "delta": delta, "usage": usage})]

    def _stop(self) -> list[bytes]:
        if self._part is None:
            return []
        return [named_event("content_block_stop", {"type": "content_block_stop", "index": self._block})]

    def _event(self, name: str, key: str, value: dict[str, Any]) -> bytes:
        if self._codec.vllm:
            return named_event(name, {"type": name, key: value, "index": self._block})
        return named_event(name, {"type": name, "index": self._block, key: value})


def _object(arguments: str) -> Any:
    """Read tool arguments; what max_tokens cut in two is no JSON and becomes an empty object."""
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}
