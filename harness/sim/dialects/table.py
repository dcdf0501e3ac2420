"""Which codec writes which route's answer, by flavour: the one place that knows all dialects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.sim.dialects import messages, responses, trtllm, vllm
from harness.sim.dialects.generate import GenerateStream
from harness.sim.dialects.sglang import Sglang
from harness.sim.dialects.sglang import error_body as sglang_error
from harness.sim.job import Api, Job
from harness.sim.replies import StreamCodec
from harness.sim.settings import SimSettings

ErrorBody = Callable[[int, str, str, str | None], bytes]


@dataclass(frozen=True, slots=True)
class Codecs:
    """How one engine writes; an `Api` that is in neither table has no route there."""

    error: ErrorBody
    """An error body from status, type, message and field at fault."""
    whole: dict[Api, Callable[[Job], Any]]
    """The JSON value of a whole answer."""
    stream: dict[Api, Callable[[Job], StreamCodec]]
    """The event codec of a streamed answer."""
    chunk_header: str
    """`transfer-encoding` in the case in which the engine writes it."""


def codecs(settings: SimSettings) -> Codecs:
    """Return the codecs of a flavour."""
    match settings.flavour:
        case "vllm":
            return Codecs(
                error=vllm.error_body,
                whole={
                    Api.CHAT: vllm.chat_whole,
                    Api.COMPLETIONS: vllm.completions_whole,
                    Api.MESSAGES: messages.Messages("vllm").whole,
                    Api.RESPONSES: responses.Responses("vllm").whole,
                },
                stream={
                    Api.CHAT: vllm.ChatStream,
                    Api.COMPLETIONS: vllm.CompletionStream,
                    Api.MESSAGES: messages.Messages("vllm").stream,
                    Api.RESPONSES: responses.Responses("vllm").stream,
                },
                chunk_header="transfer-encoding",
            )
        case "sglang":
            own = Sglang(settings.cache_report)
            return Codecs(
                error=sglang_error,
                whole={
                    Api.CHAT: own.chat_whole,
                    Api.COMPLETIONS: own.completions_whole,
                    Api.GENERATE: own.generate_whole,
                    Api.MESSAGES: messages.Messages("sglang").whole,
                    Api.RESPONSES: responses.Responses("sglang").whole,
                },
                stream={
                    Api.CHAT: own.chat_stream,
                    Api.COMPLETIONS: own.completions_stream,
                    Api.GENERATE: GenerateStream,
                    Api.MESSAGES: messages.Messages("sglang").stream,
                    Api.RESPONSES: responses.Responses("sglang").stream,
                },
                chunk_header="Transfer-Encoding",
            )
        case "trtllm":
            return Codecs(
                error=trtllm.error_body,
                whole={
                    Api.CHAT: trtllm.chat_whole,
                    Api.COMPLETIONS: trtllm.completions_whole,
                    Api.RESPONSES: responses.Responses("trtllm").whole,
                },
                stream={
                    Api.CHAT: trtllm.ChatStream,
                    Api.COMPLETIONS: trtllm.CompletionStream,
                    Api.RESPONSES: responses.Responses("trtllm").stream,
                },
                chunk_header="transfer-encoding",
            )
