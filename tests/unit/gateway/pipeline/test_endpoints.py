"""The table of endpoints."""

from __future__ import annotations

from gateway.config.model import Engine
from gateway.pipeline.endpoints import BY_PATH, ENDPOINTS
from gateway.protocol.dialect import Dialect


def test_every_path_is_there_once() -> None:
    """Each endpoint is found by its path, in bytes, and each dialect is served."""
    assert len(BY_PATH) == len(ENDPOINTS) == len({endpoint.path for endpoint in ENDPOINTS})
    assert {endpoint.dialect for endpoint in ENDPOINTS} == set(Dialect)
    for endpoint in ENDPOINTS:
        assert BY_PATH[endpoint.path.encode()] is endpoint and endpoint.target == endpoint.path.encode()
        assert {endpoint.target_at(engine)[:1] for engine in Engine} == {b"/"}
        assert endpoint.id_prefix and endpoint.read(b"{}").model == ""


def test_usage() -> None:
    """Usage is asked for in the two dialects that need it, and read everywhere but where there is none."""
    assert [endpoint.path for endpoint in ENDPOINTS if endpoint.asks_usage] == ["/v1/chat/completions", "/v1/completions"]
    assert {endpoint.dialect for endpoint in ENDPOINTS if not endpoint.tells_usage} == {Dialect.TOKENIZE, Dialect.DETOKENIZE}
