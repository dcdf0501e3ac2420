"""SGLang's native `/generate` answers, as version 0.5.23 writes them (the stream is recorded)."""

from __future__ import annotations

from typing import Any

from harness.sim import tokens
from harness.sim.dialects.wire import DONE, event
from harness.sim.job import Answer, Job


class GenerateStream:
    """The native stream: every event carries all text and ids so far."""

    done = DONE

    def __init__(self, job: Job) -> None:
        self._job = job
        self._texts = [""] * len(job.answers)

    def head(self) -> list[bytes]:
        """Return nothing: the native stream has no opening event."""
        return []

    def token(self, answer: Answer, place: int) -> list[bytes]:
        """Return the event of one token."""
        value = native(self._job, answer, place + 1)
        if len(self._job.answers) > 1:
            value["index"] = answer.index
        return [event(value)]

    def tail(self) -> list[bytes]:
        """Return nothing: every event told the counts."""
        return []


def native(job: Job, answer: Answer, count: int) -> dict[str, Any]:
    """Return the native form of the first `count` tokens of an answer."""
    sequence = answer.sequence
    last = count == len(answer.tokens)
    text = "".join(token.text for token in answer.tokens[:count])
    finish: dict[str, Any] | None = None
    if last:
        finish = {"type": "length", "length": count} if answer.finish == "length" else {"type": "stop", "matched": matched(answer)}
    admitted = (sequence.admitted_s or sequence.arrived_s) - sequence.arrived_s
    first = (sequence.first_token_s or sequence.arrived_s) - sequence.arrived_s
    meta: dict[str, Any] = {
        "id": job.id,
        "finish_reason": finish,
        "prompt_tokens": len(sequence.prompt),
        "weight_version": "default",
        "num_retractions": 0,
        "storage_prefetch_wait": 0.0,
        "storage_staging_wait": 0.0,
        "forward_entry_time": job.wall_s + admitted,
        "prefill_finished_time": job.wall_s + first,
        "queue_time": admitted,
        "reasoning_tokens": 0,
        "completion_tokens": count,
        "cached_tokens": sequence.cached,
    }
    if last:
        meta["weight_versions"] = versions(count)
    meta["cached_tokens_details"] = {"device": sequence.cached, "host": 0}
    meta["dp_rank"] = None
    if last:
        e2e_s = sequence.last_token_s - sequence.arrived_s
        meta |= {
            "e2e_latency": e2e_s,
            "request_received_ts": job.wall_s,
            "first_token_latency": first,
            "api_server_dispatch_finish_ts": job.wall_s,
            "response_sent_to_client_ts": job.wall_s + first,
            "request_finished_ts": job.wall_s + e2e_s,
            "decode_throughput": (count - 1) / (e2e_s - first) if e2e_s > first else 0.0,
        }
    elif count == 1:
        meta["response_sent_to_client_ts"] = job.wall_s + first
    ids = [value for token in answer.tokens[:count] for value in tokens.encode(token.text)[:1]]
    return {"text": text, "output_ids": ids, "meta_info": meta}


def versions(end: int) -> list[dict[str, Any]]:
    """Return the weight versions of `end` tokens."""
    return [{"version": "default", "start": 0, "end": end}]


def matched(answer: Answer) -> str | int | None:
    """Return what stopped an answer: a stop string, the end token's id (2), or null for a cut one."""
    if answer.finish == "length":
        return None
    return answer.stop_match if answer.stop_match is not None else 2
