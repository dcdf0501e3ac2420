"""Frames, errors and configurations across a link."""

import msgspec
import pytest

from gateway.config.model import ApiKeyConfig, GatewayConfig, WorkerConfig
from gateway.errors import ClientError, Code, ConfigError, GatewayError, Retry, Source, UpstreamError
from gateway.processes import wire
from gateway.processes.wire import (
    Answer,
    Call,
    FrameReader,
    Notice,
    config_to_wire,
    decode_value,
    encode_value,
    error_of,
    failure_of,
    gateway_config_from_wire,
    pack,
    worker_config_from_wire,
)

MESSAGES = [
    Call(7, "worker", encode_value("w-1")),
    Notice("states", encode_value([1, 2, 3])),
    Answer(7, encode_value({"a": None})),
    failure_of(8, GatewayError(Code.CONFLICT, "exists")),
]


def test_messages_come_out_as_they_went_in() -> None:
    """A reader that gets several frames at once returns their messages in order."""
    assert FrameReader().feed(b"".join(map(pack, MESSAGES))) == MESSAGES


def test_a_reader_fed_byte_by_byte_returns_the_same_messages() -> None:
    """How the bytes are cut makes no difference."""
    reader = FrameReader()
    data = b"".join(map(pack, MESSAGES))
    assert [message for at in range(len(data)) for message in reader.feed(data[at : at + 1])] == MESSAGES


def test_a_length_above_the_limit_is_refused_before_the_body_has_come() -> None:
    """A peer cannot make a reader wait for, or hold, more than the limit."""
    with pytest.raises(ValueError, match="at most 10 are allowed"):
        FrameReader(max_bytes=10).feed((11).to_bytes(4, "big"))


@pytest.mark.parametrize("body", [b"\xc1", b"\x93\x01\x02\x03", b"\x91\xa3foo", b""])
def test_a_malformed_body_is_refused(body: bytes) -> None:
    """What is no message raises ValueError and nothing else."""
    with pytest.raises(ValueError, match="malformed"):
        FrameReader().feed(len(body).to_bytes(4, "big") + body)


def test_a_message_too_large_to_send_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender hears of it; the peer never sees it."""
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 100)
    with pytest.raises(GatewayError) as caught:
        pack(Notice("states", encode_value("x" * 101)))
    assert caught.value.code is Code.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize(
    "error",
    [
        GatewayError(Code.OVERLOADED, "busy", retry_after_s=2.5),
        ClientError(Code.INVALID_REQUEST, "bad", param="cost"),
        UpstreamError(Code.CONNECT_FAILED, "refused", retry=Retry.SAFE),
        GatewayError(Code.UPSTREAM_REJECTED, "no", source=Source.UPSTREAM, retry=Retry.NEVER),
        ConfigError("2 mistakes", ("smg.yaml:1: a", "smg.yaml:2: b")),
    ],
    ids=lambda error: type(error).__name__ + str(error.code),
)
def test_an_error_keeps_every_field(error: GatewayError) -> None:
    """Class, code, message, source, retry rule, retry-after, parameter and problems are those of the original."""
    (message,) = FrameReader().feed(pack(failure_of(1, error)))
    assert isinstance(message, wire.Failure)
    back = error_of(message)
    assert type(back) is type(error)
    assert vars(back) == vars(error)


def test_a_configuration_crosses_with_its_secrets() -> None:
    """Keys of workers arrive in clear, everything else equal."""
    config = GatewayConfig(
        workers=(WorkerConfig(url="http://a:1", api_key="s3cret", labels={"zone": "a"}),),  # type: ignore[arg-type]
        auth={"keys": [ApiKeyConfig(id="ops", sha256="0" * 64)]},  # type: ignore[arg-type]
    )
    back = gateway_config_from_wire(config_to_wire(config))
    assert back == config
    assert back.workers[0].api_key is not None
    assert back.workers[0].api_key.get_secret_value() == "s3cret"
    assert worker_config_from_wire(config_to_wire(config.workers[0])) == config.workers[0]


def test_a_value_of_the_wrong_type_is_refused() -> None:
    """A value is decoded as the type that its method declares, or not at all."""
    with pytest.raises(msgspec.ValidationError):
        decode_value(encode_value("x"), int)
