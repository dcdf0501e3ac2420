"""Claim: whatever text is given as a configuration, it is either loaded or refused as `ConfigError` with its mistakes."""

import string

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.document import read
from gateway.config.load import ConfigSource
from gateway.config.model import GatewayConfig
from gateway.errors import ConfigError

KEYS = [
    *GatewayConfig.model_fields, "url", "kind", "name", "path", "worker", "health", "keys", "id", "sha256", "roles", "tls", "port", "host",
    "tenants", "system", "queue_size", "labels", "cost", "api_key", "aliases", "statuses", "nameservers", "record", "<<", "", "url\n",
]  # fmt: skip
WORDS = ["dns", "file", "kubernetes", "http://a:1", "http://A:1/", "grpc://a", "random", "data", "SRV", "a" * 64, "********", "on", "~"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=12),
)
TREES = st.recursive(
    SCALARS, lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(st.sampled_from(KEYS), below, max_size=5)), max_leaves=30
)


def claim(text: str) -> None:
    try:
        config = ConfigSource().load_text(text)
    except ConfigError as error:
        assert error.problems
        assert all(problem.startswith("configuration") for problem in error.problems)
    else:
        assert isinstance(config, GatewayConfig)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5))
def test_trees_with_known_keys(tree: dict[str, object]) -> None:
    """Well-formed YAML with the right words in wrong places."""
    claim(yaml.safe_dump(tree, allow_unicode=True))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=string.ascii_letters[:4] + "01.-~#&*!?|>%@`\"'[]{},: \n\t<", max_size=60))
def test_texts_of_yaml_signs(text: str) -> None:
    """Texts that are almost YAML."""
    claim(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """Texts of any characters, surrogates and controls too."""
    claim(text)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(string.ascii_lowercase + "_", min_size=1, max_size=8), TREES, max_size=4))
def test_lines_are_known_for_every_path(tree: dict[str, object]) -> None:
    """Every key of every mapping of the document has a line in it."""
    text = yaml.safe_dump(tree, allow_unicode=True)
    document = read(text, "f")
    if document.mistakes:
        return
    lines = text.count("\n") + 1
    paths = [(path, node) for path, node in [((), document.value)]]
    while paths:
        path, node = paths.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, below in items:
            here = (*path, key)
            assert 1 <= document.lines[here] <= lines
            paths.append((here, below))
