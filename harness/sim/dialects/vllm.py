"""vLLM's chat and completions answers, as version 0.32 writes them (recorded in tests/data/wire/vllm-0.32-http)."""

from __future__ import annotations

from typing import Any

from harness.sim.dialects.wire import DONE, completion_logprobs, dumps, event, fingerprint, likely, octets
from harness.sim.job import Answer, Job, Part, logprob

FINGERPRINT = fingerprint("vllm")


def error_body(status: int, kind: str, message: str, param: str | None) -> bytes:
    """Return an error as vLLM nests it, `code` an int."""
    return dumps({"error": {"message": message, "type": kind, "param": param, "code": status}})


def chat_id(job: Job) -> str:
    """Return the id of a chat answer: the client's request id where it gave one."""
    return f"chatcmpl-{job.client_id or job.id[:16]}"


def completion_id(job: Job) -> str:
    """Return the id of a completions answer."""
    return f"cmpl-{job.client_id or job.id[:16]}"


def call_id(job: Job, answer: Answer, call: int) -> str:
    """Return the id of a tool call."""
    return f"chatcmpl-tool-{job.id[:14]}{answer.index:x}{call:x}"


def chat_logprobs(job: Job, texts: list[str]) -> dict[str, Any] | None:
    """Return the logprobs object of chat tokens."""
    if job.logprobs is None:
        return None
    return {
        "content": [
            {
                "token": text,
                "logprob": logprob(text),
                "bytes": octets(text),
                "top_logprobs": [{"token": other, "logprob": value, "bytes": octets(other)} for other, value in likely(text, job.logprobs)],
            }
            for text in texts
        ]
    }


def finish_reason(job: Job, answer: Answer) -> str:
    """Return the finish reason; a named tool ends with `stop` in vLLM."""
    return "stop" if answer.finish == "tool_calls" and job.named_tool else answer.finish


def chat_whole(job: Job) -> dict[str, Any]:
    """Return a whole chat answer."""
    choices = []
    for answer in job.answers:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        if answer.cut:
            name, arguments = answer.calls[0]
            message["content"] = f'<tool_call>{{"name": "{name}", "arguments": {arguments}'
        elif answer.calls:
            message["content"] = None
            message["tool_calls"] = [
                {"id": call_id(job, answer, place), "type": "function", "function": {"name": name, "arguments": arguments}}
                for place, (name, arguments) in enumerate(answer.calls)
            ]
        choices.append(
            {
                "index": answer.index,
                "message": message,
                "logprobs": chat_logprobs(job, [token.text for token in answer.tokens]),
                "finish_reason": finish_reason(job, answer),
                "stop_reason": answer.stop_match,
                "token_ids": None,
                "routed_experts": None,
            }
        )
    usage = usage_of(job)
    usage["prompt_tokens_details"]["created_cache_tokens"] = created_cache_tokens(job)
    usage["prompt_tokens_details"]["multimodal_tokens"] = None
    usage["completion_tokens_details"] = None
    return {
        "id": chat_id(job),
        "object": "chat.completion",
        "created": job.created_s,
        "model": job.model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def created_cache_tokens(job: Job) -> int:
    """Return the prompt tokens that later requests will find cached: whole blocks that were not cached before."""
    sequence = job.answers[0].sequence
    return max(0, sequence.cacheable - sequence.cached)


def usage_of(job: Job) -> dict[str, Any]:
    """Return the usage object, in vLLM's order."""
    return {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + job.completion_tokens,
        "completion_tokens": job.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": job.cached_tokens},
    }


class ChatStream:
    """A chat answer as events: role first, finish on the last token's event, usage in an event without choices."""

    done = DONE

    def __init__(self, job: Job) -> None:
        self._job = job
        self._base = {"id": chat_id(job), "object": "chat.completion.chunk", "created": job.created_s, "model": job.model}
        self._open = dumps({**self._base, "choices": []})[:-2]
        self._left = len(job.answers)

    def head(self) -> list[bytes]:
        """Return one role event a choice."""
        return [
            event(
                {
                    **self._base,
                    "choices": [
                        {"index": answer.index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
                    ],
                    "prompt_token_ids": None,
                    "prompt_text": None,
                }
            )
            for answer in self._job.answers
        ]

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the event of one token."""
        job = self._job
        token = answer.tokens[place]
        last = place == len(answer.tokens) - 1
        if token.part is Part.TEXT and not last and job.logprobs is None:
            return [
                b'data: %b{"index":%d,"delta":{"content":%b},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
                % (self._open, answer.index, dumps(token.text))
            ]
        delta: dict[str, Any]
        if token.part is Part.TEXT:
            delta = {"content": token.text}
        elif token.part is Part.CALL:
            call = {"id": call_id(job, answer, token.call), "type": "function", "index": token.call, "function": {"name": token.text}}
            delta = {"content": None, "tool_calls": [call]}
        else:
            delta = {"content": None, "tool_calls": [{"index": token.call, "function": {"arguments": token.text}}]}
        logprobs = chat_logprobs(job, [token.text]) if token.part is Part.TEXT else None
        choice: dict[str, Any] = {"index": answer.index, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        chunk: dict[str, Any] = {**self._base, "choices": [choice]}
        if last:
            choice["finish_reason"] = finish_reason(job, answer)
            choice["stop_reason"] = answer.stop_match
            self._left -= 1
            if self._left == 0 and not job.include_usage:
                chunk["system_fingerprint"] = FINGERPRINT
        choice["token_ids"] = None
        return [event(chunk)]

    def tail(self) -> list[bytes]:
        """Return the usage event if it was asked for."""
        if not self._job.include_usage:
            return []
        usage = usage_of(self._job)
        usage["prompt_tokens_details"]["created_cache_tokens"] = created_cache_tokens(self._job)
        return [event({**self._base, "choices": [], "usage": usage, "system_fingerprint": FINGERPRINT})]


def completions_whole(job: Job) -> dict[str, Any]:
    """Return a whole completions answer."""
    choices = []
    for answer in job.answers:
        texts = [token.text for token in answer.tokens]
        choices.append(
            {
                "index": answer.index,
                "text": answer.text,
                "logprobs": None if job.logprobs is None else completion_logprobs(texts, job.logprobs, 0),
                "finish_reason": answer.finish,
                "stop_reason": answer.stop_match,
                "token_ids": None,
                "prompt_logprobs": None,
                "prompt_token_ids": None,
                "routed_experts": None,
            }
        )
    usage = usage_of(job)
    usage["completion_tokens_details"] = None
    return {
        "id": completion_id(job),
        "object": "text_completion",
        "created": job.created_s,
        "model": job.model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage,
        "kv_transfer_params": None,
    }


class CompletionStream:
    """A completions answer as events."""

    done = DONE

    def __init__(self, job: Job) -> None:
        self._job = job
        self._base = {"id": completion_id(job), "object": "text_completion", "created": job.created_s, "model": job.model}
        self._offsets = [0] * len(job.answers)

    def head(self) -> list[bytes]:
        """Return nothing: completions have no role."""
        return []

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the event of one token."""
        job = self._job
        text = answer.tokens[place].text
        last = place == len(answer.tokens) - 1
        logprobs = None
        if job.logprobs is not None:
            logprobs = completion_logprobs([text], job.logprobs, self._offsets[answer.index])
            self._offsets[answer.index] += len(text)
        choice = {
            "index": answer.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": answer.finish if last else None,
            "stop_reason": answer.stop_match if last else None,
            "prompt_token_ids": None,
            "token_ids": None,
        }
        return [event({**self._base, "choices": [choice]})]

    def tail(self) -> list[bytes]:
        """Return the usage event if it was asked for."""
        if not self._job.include_usage:
            return []
        return [event({**self._base, "choices": [], "usage": usage_of(self._job), "system_fingerprint": FINGERPRINT})]
