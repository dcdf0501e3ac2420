"""SGLang's chat and completions answers, as version 0.5.23 writes them (recorded in tests/data/wire/sglang-0.5.23-http)."""

from __future__ import annotations

from typing import Any

from harness.sim.dialects.generate import matched, native, versions
from harness.sim.dialects.wire import DONE, completion_logprobs, dumps, event, likely, octets
from harness.sim.job import Answer, Job, Part, logprob


def error_body(status: int, kind: str, message: str, param: str | None) -> bytes:
    """Return an error as SGLang writes it, flat."""
    return dumps({"object": "error", "message": message, "type": kind, "param": param, "code": status})


def chat_logprobs(job: Job, texts: list[str]) -> dict[str, Any] | None:
    """Return the logprobs object of chat tokens, in SGLang's key order."""
    if job.logprobs is None:
        return None
    return {
        "content": [
            {
                "token": text,
                "bytes": octets(text),
                "logprob": logprob(text),
                "top_logprobs": [{"token": other, "bytes": octets(other), "logprob": value} for other, value in likely(text, job.logprobs)],
            }
            for text in texts
        ]
    }


def metadata(job: Job) -> dict[str, Any]:
    """Return the `metadata` object: which weights made which tokens."""
    return {"weight_version": "default", "weight_versions": versions(job.completion_tokens)}


def call_id(job: Job, answer: Answer, call: int) -> str:
    """Return the id of a tool call."""
    return f"call_{job.id[:20]}{answer.index:02x}{call:02x}"


class Sglang:
    """The codecs of one engine; `cache_report` decides whether usage tells of cached tokens."""

    def __init__(self, cache_report: bool) -> None:
        self._cache_report = cache_report

    def usage(self, job: Job) -> dict[str, Any]:
        """Return the usage object of a chat answer."""
        return {
            "prompt_tokens": job.prompt_tokens,
            "total_tokens": job.prompt_tokens + job.completion_tokens,
            "completion_tokens": job.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": job.cached_tokens} if self._cache_report else None,
            "reasoning_tokens": 0,
            "completion_tokens_details": None,
        }

    def completion_usage(self, job: Job) -> dict[str, Any]:
        """Return the usage object of a completions stream, which lacks what is null."""
        return {name: value for name, value in self.usage(job).items() if value is not None}

    def chat_whole(self, job: Job) -> dict[str, Any]:
        """Return a whole chat answer."""
        choices = []
        for answer in job.answers:
            message: dict[str, Any] = {"role": "assistant", "content": answer.text, "reasoning_content": None}
            if answer.calls and not answer.cut:
                message["content"] = None
                message["tool_calls"] = [
                    {
                        "id": call_id(job, answer, place),
                        "index": place,
                        "type": "function",
                        "function": {"name": name, "arguments": arguments},
                    }
                    for place, (name, arguments) in enumerate(answer.calls)
                ]
            choices.append(
                {
                    "index": answer.index,
                    "message": message,
                    "logprobs": chat_logprobs(job, [token.text for token in answer.tokens]),
                    "finish_reason": answer.finish,
                    "matched_stop": matched(answer),
                }
            )
        return {
            "id": job.id,
            "object": "chat.completion",
            "created": job.created_s,
            "model": job.model,
            "choices": choices,
            "usage": self.usage(job),
            "metadata": metadata(job),
        }

    def completions_whole(self, job: Job) -> dict[str, Any]:
        """Return a whole completions answer."""
        choices = [
            {
                "index": answer.index,
                "text": answer.text,
                "logprobs": None if job.logprobs is None else completion_logprobs([token.text for token in answer.tokens], job.logprobs, 0),
                "finish_reason": answer.finish,
                "matched_stop": matched(answer),
            }
            for answer in job.answers
        ]
        return {
            "id": job.id,
            "object": "text_completion",
            "created": job.created_s,
            "model": job.model,
            "choices": choices,
            "usage": self.usage(job),
            "metadata": metadata(job),
        }

    def generate_whole(self, job: Job) -> Any:
        """Return a whole native answer: an object, or a list where several were asked for."""
        found = [native(job, answer, len(answer.tokens)) for answer in job.answers]
        return found[0] if len(found) == 1 else found

    def chat_stream(self, job: Job) -> ChatStream:
        """Return the event codec of a chat answer."""
        return ChatStream(self, job)

    def completions_stream(self, job: Job) -> CompletionStream:
        """Return the event codec of a completions answer."""
        return CompletionStream(self, job)


class ChatStream:
    """A chat answer as events: role first, finish in an event of its own with an empty delta."""

    done = DONE

    def __init__(self, codec: Sglang, job: Job) -> None:
        self._codec = codec
        self._job = job
        self._base = {"id": job.id, "object": "chat.completion.chunk", "created": job.created_s, "model": job.model}
        self._open = dumps({**self._base, "choices": []})[:-2]

    def head(self) -> list[bytes]:
        """Return one role event a choice."""
        delta = {"reasoning_content": None, "role": "assistant", "content": ""}
        return [self._chunk(answer, delta, None) for answer in self._job.answers]

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the event of one token, and the finish event after the last."""
        job = self._job
        token = answer.tokens[place]
        if token.part is Part.TEXT:
            if job.logprobs is None:
                events = [
                    b'data: %b{"index":%d,"delta":{"reasoning_content":null,"content":%b},"logprobs":null,"finish_reason":null,'
                    b'"matched_stop":null}]}\n\n' % (self._open, answer.index, dumps(token.text))
                ]
            else:
                events = [self._chunk(answer, {"reasoning_content": None, "content": token.text}, chat_logprobs(job, [token.text]))]
        else:
            first = token.part is Part.CALL
            function = {"name": token.text, "arguments": ""} if first else {"name": None, "arguments": token.text}
            call = {
                "id": call_id(job, answer, token.call) if first else None,
                "index": token.call,
                "type": "function",
                "function": function,
            }
            delta = {"role": None, "content": None, "reasoning_content": None, "tool_calls": [call]}
            events = [self._chunk(answer, delta, None, usage=True)]
        if place == len(answer.tokens) - 1:
            choice = {
                "index": answer.index,
                "delta": {"reasoning_content": None},
                "logprobs": None,
                "finish_reason": answer.finish,
                "matched_stop": matched(answer),
            }
            events.append(event({**self._base, "choices": [choice]}))
        return events

    def tail(self) -> list[bytes]:
        """Return the usage event if it was asked for."""
        if not self._job.include_usage:
            return []
        return [event({**self._base, "choices": [], "usage": self._codec.usage(self._job)})]

    def _chunk(self, answer: Answer, delta: dict[str, Any], logprobs: dict[str, Any] | None, usage: bool = False) -> bytes:
        choice = {"index": answer.index, "delta": delta, "logprobs": logprobs, "finish_reason": None, "matched_stop": None}
        return event({**self._base, "choices": [choice], **({"usage": None} if usage else {})})


class CompletionStream:
    """A completions answer as events, each with `usage: null`."""

    done = DONE

    def __init__(self, codec: Sglang, job: Job) -> None:
        self._codec = codec
        self._job = job
        self._base = {"id": job.id, "object": "text_completion", "created": job.created_s, "model": job.model}
        self._offsets = [0] * len(job.answers)

    def head(self) -> list[bytes]:
        """Return nothing: completions have no role."""
        return []

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the event of one token."""
        text = answer.tokens[place].text
        last = place == len(answer.tokens) - 1
        logprobs = None
        if self._job.logprobs is not None:
            logprobs = completion_logprobs([text], self._job.logprobs, self._offsets[answer.index])
            self._offsets[answer.index] += len(text)
        choice = {
            "index": answer.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": answer.finish if last else None,
            "matched_stop": matched(answer) if last else None,
        }
        return [event({**self._base, "choices": [choice], "usage": None})]

    def tail(self) -> list[bytes]:
        """Return the usage event if it was asked for."""
        if not self._job.include_usage:
            return []
        return [event({**self._base, "choices": [], "usage": self._codec.completion_usage(self._job)})]
