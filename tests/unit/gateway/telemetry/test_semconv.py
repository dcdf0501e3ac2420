"""Our names are OpenTelemetry's."""

from __future__ import annotations

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.attributes import http_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes

from gateway.protocol.dialect import Dialect
from gateway.telemetry import semconv


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (semconv.OPERATION_NAME, gen_ai.GEN_AI_OPERATION_NAME),
        (semconv.PROVIDER_NAME, gen_ai.GEN_AI_PROVIDER_NAME),
        (semconv.REQUEST_MODEL, gen_ai.GEN_AI_REQUEST_MODEL),
        (semconv.REQUEST_STREAM, gen_ai.GEN_AI_REQUEST_STREAM),
        (semconv.INPUT_TOKENS, gen_ai.GEN_AI_USAGE_INPUT_TOKENS),
        (semconv.OUTPUT_TOKENS, gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS),
        (semconv.CACHE_READ_INPUT_TOKENS, gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
        (semconv.TIME_TO_FIRST_CHUNK, gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK),
        (semconv.SERVER_ADDRESS, server_attributes.SERVER_ADDRESS),
        (semconv.SERVER_PORT, server_attributes.SERVER_PORT),
        (semconv.HTTP_REQUEST_METHOD, http_attributes.HTTP_REQUEST_METHOD),
        (semconv.HTTP_RESPONSE_STATUS_CODE, http_attributes.HTTP_RESPONSE_STATUS_CODE),
        (semconv.HTTP_REQUEST_RESEND_COUNT, http_attributes.HTTP_REQUEST_RESEND_COUNT),
        (semconv.ERROR_TYPE, error_attributes.ERROR_TYPE),
    ],
)
def test_an_attribute_has_the_conventions_name(ours: str, theirs: str) -> None:
    """A change of the conventions is noticed here."""
    assert ours == theirs


def test_every_dialect_names_an_operation() -> None:
    """No request is traced without one, and the conventions' own are used where they fit."""
    assert set(semconv.OPERATIONS) == set(Dialect)
    known = {value.value for value in gen_ai.GenAiOperationNameValues}
    assert {semconv.OPERATIONS[dialect] for dialect in (Dialect.CHAT, Dialect.COMPLETIONS, Dialect.EMBEDDINGS)} <= known
