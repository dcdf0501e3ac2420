"""Files of workers: what is a list of workers, and what is a mistake."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.workers.discovery.file import parse


@pytest.mark.parametrize(
    "text",
    [
        "- http://a:1\n- url: http://b:2\n  cost: 2\n",
        "---\n- http://a:1\n- {url: http://b:2, cost: 2}\n",
        "workers:\n  - http://a:1\n  - url: http://b:2\n    cost: 2\n",
        json.dumps(["http://a:1", {"url": "http://b:2", "cost": 2}]),
        json.dumps({"workers": ["http://a:1", {"url": "http://b:2", "cost": 2}]}, indent=2),
    ],
)
def test_shapes_of_a_list(text: str) -> None:
    """YAML or JSON, a list or one under `workers`, of URLs and of worker sections."""
    specs = parse(text, "w.yaml")
    assert not isinstance(specs, str), specs
    assert [(spec.url, spec.cost) for spec in specs] == [("http://a:1", 1.0), ("http://b:2", 2.0)]


@pytest.mark.parametrize("text", ["[]", "workers: []", "# none\n[]\n"])
def test_an_empty_list_asks_for_none(text: str) -> None:
    """`[]` is an answer."""
    assert parse(text, "w.yaml") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty; write [] for no workers"),
        ("  \n\n", "the file is empty; write [] for no workers"),
        ("null", "must be a list of urls or of workers"),
        ("a: 1", "must be a list of urls or of workers"),
        ("workers: 5", "must be a list of urls or of workers"),
        ("workers: []\nmore: 1", "must be a list of urls or of workers"),
        ("- [\n\n", "not valid YAML"),
        ("hello", "must be a mapping"),
        ("- http://a:1\n- 5\n", "w.yaml:2: must be a url or a worker"),
        ("- http://a:1\n\n- a:1\n", "w.yaml:3: url: has no scheme"),
        ("- url: http://a:1\n  cots: 2\n", "w.yaml:1: cots: unknown key; did you mean `cost`?"),
        ("- cost: 2\n", "w.yaml:1: url: is missing"),
        ("- url: http://a:1\n  cost: -2\n", "w.yaml:1: cost: must be greater than 0"),
        ("- url: http://a:1\n  ca_file: /no/such/file\n", "w.yaml:1: ca_file"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, said: str) -> None:
    """One wrong entry makes the whole text wrong: half a list would drain workers."""
    problem = parse(text, "w.yaml")
    assert isinstance(problem, str)
    assert said in problem


@given(st.text() | st.text(alphabet="-[]{}:,\n urlhtp/\"'&*<1"))
def test_any_text_is_a_list_or_a_mistake(text: str) -> None:
    """No text raises."""
    result = parse(text, "w.yaml")
    assert isinstance(result, str | tuple)
