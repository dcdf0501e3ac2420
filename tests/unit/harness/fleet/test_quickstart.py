"""What the quick start tells, without starting anything."""

from __future__ import annotations

import ast
import json
import pathlib
import re
import sys

import pytest

from harness.fleet.quickstart import how_to_use, metrics_port


@pytest.mark.parametrize("simulated", [False, True])
def test_the_text_names_where_to_ask_and_what(simulated: bool) -> None:
    """Port, model and log folder are those in use, and whether a model answers is said."""
    text = how_to_use(30123, "some-model", simulated=simulated, logs=pathlib.Path(".run"))
    assert "http://127.0.0.1:30123/v1/chat/completions" in text and "http://127.0.0.1:29123/metrics" in text
    assert ("SIMULATED" in text) is simulated and ".run/" in text


def test_the_curl_body_is_json_and_the_snippet_is_python() -> None:
    """Both commands can be pasted as they stand."""
    text = how_to_use(30000, "m", simulated=False, logs=pathlib.Path(".run"))
    body = re.search(r"-d '(.*?)'", text, re.DOTALL)
    assert body is not None and json.loads(body[1])["model"] == "m"
    snippet = re.search(r"<<'END'\n(.*)\nEND", text, re.DOTALL)
    assert snippet is not None and ast.parse(snippet[1])
    assert sys.executable in text


def test_the_worker_command_fits_the_port() -> None:
    """A port of one's own is given to `smgctl` too."""
    assert "worker list --url http://127.0.0.1:30123" in how_to_use(30123, "m", simulated=False, logs=pathlib.Path(".run"))
    assert "worker list\n" in how_to_use(30000, "m", simulated=False, logs=pathlib.Path(".run"))


def test_the_metrics_port_is_a_port() -> None:
    """It lies a thousand below, and above where there is no room."""
    assert [metrics_port(port) for port in (30_000, 2001, 2000, 80, 65_535)] == [29_000, 1001, 3000, 1080, 64_535]
