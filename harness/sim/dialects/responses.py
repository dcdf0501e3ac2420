"""OpenAI's responses API as vLLM 0.32 and SGLang 0.5.23 write it (whole answers recorded, events by the API's own order).

TensorRT-LLM's is written with SGLang's fields, since no recording of it exists.
"""

from __future__ import annotations

from typing import Any

from harness.sim.dialects.wire import named_event
from harness.sim.job import Answer, Job, Part
from harness.sim.settings import Flavour


class Responses:
    """The codecs of one engine."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour

    def whole(self, job: Job) -> dict[str, Any]:
        """Return a whole answer."""
        return self.response(job, over=True)

    def stream(self, job: Job) -> ResponseStream:
        """Return the event codec of an answer."""
        return ResponseStream(self, job)

    def response(self, job: Job, *, over: bool) -> dict[str, Any]:
        """Return the response object, as it is before the first token or after the last."""
        answer = job.answers[0]
        cut = over and answer.finish == "length"
        status = "incomplete" if cut else "completed" if over else "in_progress"
        incomplete = {"reason": "max_output_tokens"} if cut else None
        output = self.output(job, answer) if over else []
        usage = self.usage(job) if over else None
        return (
            self._vllm(job, status, incomplete, output, usage)
            if self.flavour == "vllm"
            else self._flat(job, status, incomplete, output, usage)
        )

    def output(self, job: Job, answer: Answer) -> list[dict[str, Any]]:
        """Return the items of a finished answer: a message, or the calls."""
        if answer.calls and not answer.cut:
            return [self.call_item(job, place, name, arguments, "completed") for place, (name, arguments) in enumerate(answer.calls)]
        return [self.message_item(job, [self.text_part(answer.text)], "completed")]

    def text_part(self, text: str) -> dict[str, Any]:
        """Return a content part."""
        return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}

    def message_item(self, job: Job, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
        """Return a message item."""
        phase = None if self.flavour == "vllm" else "final_answer"
        item_id = f"msg_{self._short(job)}"
        return {"id": item_id, "content": content, "role": "assistant", "status": status, "type": "message", "phase": phase}

    def call_item(self, job: Job, place: int, name: str, arguments: str, status: str) -> dict[str, Any]:
        """Return a function call item."""
        return {
            "arguments": arguments,
            "call_id": f"call_{job.id[:22]}{place:02x}",
            "name": name,
            "type": "function_call",
            "id": f"fc_{job.id[:22]}{place:02x}",
            "status": status,
        }

    def usage(self, job: Job) -> dict[str, Any]:
        """Return the usage object."""
        inputs: dict[str, Any] = {"cached_tokens": job.cached_tokens, "cache_write_tokens": 0}
        outputs: dict[str, Any] = {"reasoning_tokens": 0}
        if self.flavour == "vllm":
            inputs |= {"input_tokens_per_turn": [], "cached_tokens_per_turn": []}
            outputs |= {"tool_output_tokens": 0, "output_tokens_per_turn": [], "tool_output_tokens_per_turn": []}
        return {
            "input_tokens": job.prompt_tokens,
            "input_tokens_details": inputs,
            "output_tokens": job.completion_tokens,
            "output_tokens_details": outputs,
            "total_tokens": job.prompt_tokens + job.completion_tokens,
        }

    def _short(self, job: Job) -> str:
        return job.id[:16] if self.flavour == "vllm" else job.id

    def _vllm(
        self, job: Job, status: str, incomplete: dict[str, Any] | None, output: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        body = job.body
        choice = body.get("tool_choice", "auto") if job.tools else "none"
        return {
            "id": f"resp_{job.client_id or self._short(job)}",
            "created_at": job.created_s,
            "incomplete_details": incomplete,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "model": job.model,
            "object": "response",
            "output": output,
            "parallel_tool_calls": bool(body.get("parallel_tool_calls", True)),
            "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
            "tool_choice": choice,
            "tools": body.get("tools") or [],
            "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
            "background": False,
            "max_output_tokens": job.max_tokens,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": body.get("text"),
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": usage,
            "user": body.get("user"),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }

    def _flat(
        self, job: Job, status: str, incomplete: dict[str, Any] | None, output: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        body = job.body
        return {
            "id": f"resp_{job.id}",
            "object": "response",
            "created_at": job.created_s,
            "model": job.model,
            "output": output,
            "status": status,
            "usage": usage,
            "parallel_tool_calls": bool(body.get("parallel_tool_calls", True)),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools") or [],
            "error": None,
            "incomplete_details": incomplete,
            "instructions": body.get("instructions"),
            "max_output_tokens": job.max_tokens,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": bool(body.get("store", True)),
            "temperature": body.get("temperature"),
            "text": body.get("text") or {"format": {"type": "text"}},
            "top_p": body.get("top_p"),
            "truncation": "disabled",
            "user": body.get("user"),
            "metadata": body.get("metadata") or {},
        }


class ResponseStream:
    """An answer as named, numbered events; the last one carries the whole response and is the end mark."""

    def __init__(self, codec: Responses, job: Job) -> None:
        self._codec = codec
        self._job = job
        self._number = 0
        self._item = -1
        self._part: tuple[Part, int] | None = None
        self._text = ""
        self._name = ""

    @property
    def done(self) -> bytes:
        """The event with the finished response."""
        return self._event("response.completed", response=self._codec.response(self._job, over=True))

    def head(self) -> list[bytes]:
        """Return the events before the first token."""
        response = self._codec.response(self._job, over=False)
        return [self._event("response.created", response=response), self._event("response.in_progress", response=response)]

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the events of one token."""
        token = answer.tokens[place]
        events: list[bytes] = []
        part = (Part.TEXT if token.part is Part.TEXT else Part.CALL, token.call)
        if part != self._part:
            events += self._close()
            self._part, self._text, self._name = part, "", token.text
            self._item += 1
            events += self._open()
        if token.part is Part.TEXT:
            self._text += token.text
            events.append(self._delta("response.output_text.delta", delta=token.text, content_index=0, logprobs=[]))
        elif token.part is Part.ARGUMENTS:
            self._text += token.text
            events.append(self._delta("response.function_call_arguments.delta", delta=token.text))
        return events

    def tail(self) -> list[bytes]:
        """Return the end of the last item."""
        return self._close()

    def _item_now(self, status: str) -> dict[str, Any]:
        assert self._part is not None
        if self._part[0] is Part.TEXT:
            content = [self._codec.text_part(self._text)] if status == "completed" else []
            return self._codec.message_item(self._job, content, status)
        return self._codec.call_item(self._job, self._part[1], self._name, self._text, status)

    def _open(self) -> list[bytes]:
        item = self._item_now("in_progress")
        events = [self._event("response.output_item.added", output_index=self._item, item=item)]
        if self._part is not None and self._part[0] is Part.TEXT:
            events.append(self._delta("response.content_part.added", content_index=0, part=self._codec.text_part("")))
        return events

    def _close(self) -> list[bytes]:
        if self._part is None:
            return []
        item = self._item_now("completed")
        if self._part[0] is Part.TEXT:
            events = [
                self._delta("response.output_text.done", content_index=0, text=self._text, logprobs=[]),
                self._delta("response.content_part.done", content_index=0, part=self._codec.text_part(self._text)),
            ]
        else:
            events = [self._delta("response.function_call_arguments.done", name=self._name, arguments=self._text)]
        return [*events, self._event("response.output_item.done", output_index=self._item, item=item)]

    def _delta(self, kind: str, /, **fields: Any) -> bytes:
        return self._event(kind, item_id=self._item_now("in_progress")["id"], output_index=self._item, **fields)

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return named_event(kind, {"type": kind, "sequence_number": number, **fields})
