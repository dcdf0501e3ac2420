"""Rewriting changes one member of a body; every other byte, or at least every other value, stays."""

from __future__ import annotations

import json

import pytest

from gateway.protocol.rewrite import ask_usage, replace_model

OPTIONS = b'"stream_options":{"include_usage":true}'


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b"{}", b"{" + OPTIONS + b"}"),
        (b"{ }", b"{" + OPTIONS + b" }"),
        (b' \n{\n}\n', b" \n{" + OPTIONS + b"\n}\n"),
        (b'{"a":1}', b"{" + OPTIONS + b',"a":1}'),
        (b'  {  "a" : 1e2 , "b":"\\u00fc{" } ', b"  {" + OPTIONS + b',  "a" : 1e2 , "b":"\\u00fc{" } '),
        (b'{"x":{"stream_options":{}}}', b"{" + OPTIONS + b',"x":{"stream_options":{}}}'),
        (b'{"x":"\\"stream_options\\":"}', b"{" + OPTIONS + b',"x":"\\"stream_options\\":"}'),
    ],
)  # fmt: skip
def test_usage_is_asked_for_without_touching_a_byte(body: bytes, after: bytes) -> None:
    """Without the member it is put behind the opening brace, and nothing else changes."""
    assert ask_usage(body) == ask_usage(body, False) == after
    json.loads(after)


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b'{"a":1.50,"stream_options":{"include_usage":false},"b":[ 1 ]}', b'{"a":1.50,"stream_options":{"include_usage":true},"b":[ 1 ]}'),
        (b'{"stream_options":null}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{"x":1e5}}', b'{"stream_options":{"x":1e5,"include_usage":true}}'),
        (b'{"stream_options":{"include_usage":true}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{"continuous_usage_stats":true}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":5e1,"stream_options":{"a":1}}', b'{"stream_options":{"a":1,"include_usage":true}}'),
    ],
)
def test_usage_is_asked_for_within_options(body: bytes, after: bytes) -> None:
    """With the member its other values, and those of the body, keep their bytes and order."""
    assert ask_usage(body) == ask_usage(body, True) == after


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b'{"model":"a","x":1.0}', b'{"model":"b","x":1.0}'),
        (b'{"x":"\\u00fc", "model" : "a"}', b'{"x":"\\u00fc","model":"b"}'),
        (b'{"x":[ 1, 2 ]}', b'{"x":[ 1, 2 ],"model":"b"}'),
        (b'{"model":"a","model":"c"}', b'{"model":"b"}'),
        (b'{"m\\u006fdel":"a"}', b'{"model":"b"}'),
    ],
)
def test_the_model_is_replaced(body: bytes, after: bytes) -> None:
    """The model has the new name, whatever it had; other values keep their bytes."""
    assert replace_model(body, "b") == after


def test_a_name_is_written_as_json() -> None:
    """A name with quotes or other letters stays one string."""
    name = 'a"},{"ü\\'
    assert json.loads(replace_model(b'{"model":"x"}', name))["model"] == name
