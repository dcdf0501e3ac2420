"""Every dialect has its reader and its shapes."""

from __future__ import annotations

import pytest

from gateway.errors import Code, GatewayError
from gateway.protocol.answer import MALFORMED, read_usage
from gateway.protocol.dialect import Dialect
from gateway.protocol.error_body import error_body, error_event
from gateway.protocol.request import READERS
from gateway.protocol.sse import StreamScanner


@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_codec_knows_every_dialect(dialect: Dialect) -> None:
    """Requests, whole answers, streams and errors can be read or written in each dialect."""
    assert READERS[dialect](b"{}").model == ""
    assert read_usage(dialect, b"{}") is None and read_usage(dialect, b"{") is MALFORMED
    assert StreamScanner(dialect).feed(b": ping\n\n") == b": ping\n\n"
    error = GatewayError(Code.OVERLOADED, "full")
    assert b"full" in error_body(dialect, error) and error_event(dialect, error).endswith(b"\n\n")


def test_names_are_stable() -> None:
    """The values are labels of metrics and spans: they do not change unnoticed."""
    assert [str(one) for one in Dialect] == [
        "chat", "completions", "embeddings", "rerank", "responses", "messages", "generate", "tokenize", "detokenize",
    ]  # fmt: skip
