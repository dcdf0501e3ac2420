"""TensorRT-LLM's chat and completions answers, by the source of `trtllm-serve` (1.x); no recording exists, it needs a GPU.

Events leave null fields out, the role event carries a space before its line ends, and usage comes by default where
`stream_options` is given (its `include_usage` is true unless said otherwise).
"""

from __future__ import annotations

from typing import Any

from harness.sim.dialects.wire import DONE, completion_logprobs, dumps, event, likely, octets
from harness.sim.job import Answer, Job, Part, logprob


def error_body(status: int, kind: str, message: str, param: str | None) -> bytes:
    """Return an error as trtllm-serve writes it: flat, or a bare `error` string for a body that does not validate."""
    if kind == "Bad Request":
        return dumps({"error": message})
    return dumps({"object": "error", "message": message, "type": kind, "param": None, "code": status})


def usage_of(job: Job) -> dict[str, Any]:
    """Return the usage object."""
    return {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + job.completion_tokens,
        "completion_tokens": job.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": job.cached_tokens},
    }


def chat_logprobs(job: Job, texts: list[str]) -> dict[str, Any] | None:
    """Return the logprobs object of chat tokens."""
    if job.logprobs is None:
        return None
    content = []
    for text in texts:
        top = [{"token": other, "logprob": value, "bytes": octets(other)} for other, value in likely(text, job.logprobs)]
        content.append({"token": text, "logprob": logprob(text), "bytes": octets(text), "top_logprobs": top})
    return {"content": content}


def call_id(job: Job, answer: Answer, call: int) -> str:
    """Return the id of a tool call."""
    return f"chatcmpl-tool-{job.id[:28]}{answer.index:02x}{call:02x}"


def chat_whole(job: Job) -> dict[str, Any]:
    """Return a whole chat answer."""
    choices = []
    for answer in job.answers:
        calls = [] if answer.cut else answer.calls
        message = {
            "role": "assistant",
            "content": answer.text,
            "reasoning_content": None,
            "reasoning": None,
            "tool_calls": [
                {"id": call_id(job, answer, place), "type": "function", "function": {"name": name, "arguments": arguments}}
                for place, (name, arguments) in enumerate(calls)
            ],
        }
        choices.append(
            {
                "index": answer.index,
                "message": message,
                "logprobs": chat_logprobs(job, [token.text for token in answer.tokens]),
                "finish_reason": answer.finish,
                "stop_reason": answer.stop_match,
                "mm_embedding_handle": None,
                "disaggregated_params": None,
                "avg_decoded_tokens_per_iter": 1.0,
            }
        )
    return {
        "id": f"chatcmpl-{job.id}",
        "object": "chat.completion",
        "created": job.created_s,
        "model": job.model,
        "choices": choices,
        "usage": usage_of(job),
        "prompt_token_ids": None,
    }


class ChatStream:
    """A chat answer as events."""

    done = DONE

    def __init__(self, job: Job) -> None:
        self._job = job
        self._base = {"id": f"chatcmpl-{job.id}", "object": "chat.completion.chunk", "created": job.created_s, "model": job.model}

    def head(self) -> list[bytes]:
        """Return one role event a choice, with the engine's stray space."""
        return [
            b"data: " + dumps({**self._base, "choices": [{"index": answer.index, "delta": {"role": "assistant"}}]}) + b" \n\n"
            for answer in self._job.answers
        ]

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the event of one token; the last one carries the finish reason."""
        job = self._job
        token = answer.tokens[place]
        delta: dict[str, Any] = {"content": token.text, "reasoning_content": ""}
        if token.part is not Part.TEXT:
            call: dict[str, Any] = {"index": token.call, "type": "function"}
            if token.part is Part.CALL:
                call = {"id": call_id(job, answer, token.call), **call, "function": {"name": token.text, "arguments": ""}}
            else:
                call["function"] = {"arguments": token.text}
            delta = {"content": "", "reasoning_content": "", "tool_calls": [call]}
        choice: dict[str, Any] = {"index": answer.index, "delta": delta}
        logprobs = chat_logprobs(job, [token.text])
        if logprobs is not None:
            choice["logprobs"] = logprobs
        if place == len(answer.tokens) - 1:
            choice["finish_reason"] = answer.finish
            if answer.stop_match is not None:
                choice["stop_reason"] = answer.stop_match
        choice["avg_decoded_tokens_per_iter"] = 1.0
        return [event({**self._base, "choices": [choice]})]

    def tail(self) -> list[bytes]:
        """Return the usage event if it was asked for."""
        if not self._job.include_usage:
            return []
        return [event({**self._base, "choices": [], "usage": usage_of(self._job)})]


def completions_whole(job: Job) -> dict[str, Any]:
    """Return a whole completions answer."""
    choices = [
        {
            "index": answer.index,
            "text": answer.text,
            "token_ids": None,
            "logprobs": None if job.logprobs is None else completion_logprobs([token.text for token in answer.tokens], job.logprobs, 0),
            "context_logits": None,
            "finish_reason": answer.finish,
            "stop_reason": answer.stop_match,
            "disaggregated_params": None,
            "avg_decoded_tokens_per_iter": 1.0,
        }
        for answer in job.answers
    ]
    return {
        "id": f"cmpl-{job.id}",
        "object": "text_completion",
        "created": job.created_s,
        "model": job.model,
        "choices": choices,
        "usage": usage_of(job),
        "prompt_token_ids": None,
    }


class CompletionStream:
    """A completions answer as events; unlike in chat, null fields are written."""

    done = DONE

    def __init__(self, job: Job) -> None:
        self._job = job
        self._base = {"id": f"cmpl-{job.id}", "object": "text_completion", "created": job.created_s, "model": job.model}

    def head(self) -> list[bytes]:
        """Return nothing: completions have no role."""
        return []

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the event of one token."""
        last = place == len(answer.tokens) - 1
        text = answer.tokens[place].text
        choice = {
            "index": answer.index,
            "text": text,
            "token_ids": None,
            "logprobs": None if self._job.logprobs is None else completion_logprobs([text], self._job.logprobs, 0),
            "finish_reason": answer.finish if last else None,
            "stop_reason": answer.stop_match if last else None,
            "avg_decoded_tokens_per_iter": 1.0,
        }
        return [event({**self._base, "choices": [choice], "usage": None})]

    def tail(self) -> list[bytes]:
        """Return the usage event if it was asked for."""
        if not self._job.include_usage:
            return []
        return [event({**self._base, "choices": [], "usage": usage_of(self._job)})]
