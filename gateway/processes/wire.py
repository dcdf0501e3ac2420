"""What crosses a link: frames of length and msgpack, four kinds of message, errors and configurations whole.

Sans-IO: `pack` and `FrameReader` turn messages into bytes and back, and know no socket.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from pydantic import SecretStr

from gateway.config.model import GatewayConfig, WorkerConfig
from gateway.errors import ClientError, Code, ConfigError, GatewayError, Retry, Source, UpstreamError

MAX_MESSAGE_BYTES = 32 << 20
"""Largest message; 4096 workers with 20 models each are about 8 MiB."""

_LENGTH = Layout("!I")

A = TypeVar("A")
R = TypeVar("R")


class Method(NamedTuple, Generic[A, R]):
    """A question that one end of a link may ask of the other: its name, the types it carries, and how long it may take."""

    name: str
    argument: Any
    """Type of the argument, for msgspec; `None` where there is none."""
    result: Any
    timeout_s: float


class Call(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """A question that waits for an answer."""

    id: int
    method: str
    argument: msgspec.Raw


class Notice(msgspec.Struct, frozen=True, array_like=True, tag="notice"):
    """A message that nobody answers."""

    method: str
    argument: msgspec.Raw


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """The result of a call."""

    id: int
    result: msgspec.Raw


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    """The error that a call ended in, every field of it."""

    id: int
    kind: str
    code: Code
    message: str
    source: Source
    retry: Retry
    retry_after_s: float | None = None
    param: str | None = None
    problems: tuple[str, ...] = ()


Message = Call | Notice | Answer | Failure

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_value(value: object) -> msgspec.Raw:
    """Encode an argument or a result."""
    return msgspec.Raw(_encoder.encode(value))


def decode_value(raw: msgspec.Raw, kind: Any) -> Any:
    """Decode an argument or a result; raises `msgspec.DecodeError` when it is not of that type."""
    return msgspec.msgpack.decode(raw, type=kind)


def pack(message: Message) -> bytes:
    """Return a message as a frame; raises `GatewayError(payload_too_large)` when it is too big to send."""
    body = _encoder.encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise GatewayError(
            Code.PAYLOAD_TOO_LARGE,
            f"a message of {len(body)} bytes is above the {MAX_MESSAGE_BYTES} that processes exchange",
            retry=Retry.NEVER,
        )
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Bytes in, messages out. Raises `ValueError` when the peer does not keep to the format; the link is of no use then."""

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes as they come, return the messages that are complete."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer, start)
            if size > self._max_bytes:
                raise ValueError(f"a message of {size} bytes, at most {self._max_bytes} are allowed")
            end = start + _LENGTH.size + size
            if len(buffer) < end:
                break
            try:
                messages.append(_decoder.decode(bytes(memoryview(buffer)[start + _LENGTH.size : end])))
            except msgspec.DecodeError as error:
                raise ValueError(f"a malformed message: {error}") from error
            start = end
        if start:
            del buffer[:start]
        return messages


def failure_of(call_id: int, error: GatewayError) -> Failure:
    """Return an error as a message."""
    return Failure(
        id=call_id,
        kind=type(error).__name__,
        code=error.code,
        message=error.message,
        source=error.source,
        retry=error.retry,
        retry_after_s=error.retry_after_s,
        param=error.param,
        problems=error.problems if isinstance(error, ConfigError) else (),
    )


def error_of(failure: Failure) -> GatewayError:
    """Return the error that a message carries, of the same class, every field equal."""
    if failure.kind == ConfigError.__name__:
        config_error = ConfigError(failure.message, failure.problems)
        config_error.code, config_error.source, config_error.retry = failure.code, failure.source, failure.retry
        config_error.retry_after_s, config_error.param = failure.retry_after_s, failure.param
        return config_error
    kind = {ClientError.__name__: ClientError, UpstreamError.__name__: UpstreamError}.get(failure.kind, GatewayError)
    return kind(
        failure.code,
        failure.message,
        source=failure.source,
        retry=failure.retry,
        retry_after_s=failure.retry_after_s,
        param=failure.param,
    )


def config_to_wire(config: GatewayConfig | WorkerConfig) -> bytes:
    """Return a configuration as JSON with its secrets in clear: for a link, never for a log or a client."""
    return msgspec.json.encode(config.model_dump(mode="python"), enc_hook=_reveal)


def gateway_config_from_wire(data: bytes) -> GatewayConfig:
    """Return the configuration that `config_to_wire` wrote."""
    return GatewayConfig.model_validate_json(data)


def worker_config_from_wire(data: bytes) -> WorkerConfig:
    """Return the worker section that `config_to_wire` wrote."""
    return WorkerConfig.model_validate_json(data)


def _reveal(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    raise NotImplementedError(f"{type(value).__name__} in a configuration")
