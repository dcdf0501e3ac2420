"""The members of stream events that the gateway reads; `stream_events.py` is their only user."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from gateway.protocol.answer_wire import AnthropicUsage, OpenAIUsage, ResponsesUsage, SGLangMeta

NOTHING = Raw(b"")


class RunningChoice(Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None


class Running(Struct, gc=False):
    """A chunk of which nothing but the end matters."""

    choices: list[RunningChoice] | None = None
    usage: OpenAIUsage | None = None
    error: Raw = NOTHING


class Delta(Struct, gc=False):
    content: Raw = NOTHING
    reasoning_content: Raw = NOTHING
    reasoning: Raw = NOTHING
    tool_calls: Raw = NOTHING
    function_call: Raw = NOTHING
    refusal: Raw = NOTHING
    audio: Raw = NOTHING


class ChatChoice(Struct, gc=False):
    index: int = 0
    delta: Delta | None = None
    finish_reason: str | None = None


class ChatOpening(Struct, gc=False):
    choices: list[ChatChoice] | None = None
    usage: OpenAIUsage | None = None
    error: Raw = NOTHING


class TextChoice(Struct, gc=False):
    index: int = 0
    text: Raw = NOTHING
    finish_reason: str | None = None


class TextOpening(Struct, gc=False):
    choices: list[TextChoice] | None = None
    usage: OpenAIUsage | None = None
    error: Raw = NOTHING


class GenerateMeta(SGLangMeta, gc=False):
    finish_reason: Raw = NOTHING


class Generate(Struct, gc=False):
    index: int | None = None
    text: Raw = NOTHING
    output_ids: Raw = NOTHING
    meta_info: GenerateMeta | None = None
    error: Raw = NOTHING


class MessageStart(Struct, gc=False):
    usage: AnthropicUsage | None = None


class Message(Struct, gc=False):
    type: str = ""
    message: MessageStart | None = None
    usage: AnthropicUsage | None = None


class ResponseObject(Struct, gc=False):
    usage: ResponsesUsage | None = None


class Response(Struct, gc=False):
    type: str = ""
    sequence_number: int = -1
    response: ResponseObject | None = None


decode_running = msgspec.json.Decoder(Running).decode


decode_chat = msgspec.json.Decoder(ChatOpening).decode


decode_text = msgspec.json.Decoder(TextOpening).decode


decode_generate = msgspec.json.Decoder(Generate).decode


decode_message = msgspec.json.Decoder(Message).decode


decode_response = msgspec.json.Decoder(Response).decode
