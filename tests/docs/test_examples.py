"""Configurations that people copy are right."""

import pathlib
import re

import pytest

from gateway.config.document import read
from gateway.config.load import ConfigSource
from gateway.config.model import GatewayConfig
from tests.support.cli import Smgctl

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs" / "how-to").glob("*.md"))
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S))
    if 0 < len(keys := read(block, page.name).value.keys()) == len(keys & GatewayConfig.model_fields.keys())
]
"""YAML of the guides whose keys are those of a configuration; there are manifests and lists of workers too."""


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_an_example_passes_the_check(path: pathlib.Path) -> None:
    """`smgctl config check` finds nothing, not even a hint."""
    result = Smgctl()("config", "check", str(path))
    assert (result.exit_code, result.errors) == (0, "")


def test_commented_parts_of_the_example_are_right() -> None:
    """What is commented out in smg.yaml is right once the comment is taken away."""
    text = (ROOT / "examples" / "smg.yaml").read_text("utf-8")
    for name in ("discovery", "auth"):
        (block,) = re.findall(rf"^(# {name}:\n(?:#   .*\n)+)", text, re.M)
        ConfigSource().load_text(re.sub(r"^# ", "", block, flags=re.M))


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_a_guide_is_a_configuration(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a how-to shows as YAML can be loaded as it stands."""
    for name in re.findall(r"api_key_env: (\w+)", block):
        monkeypatch.setenv(name, "x")
    ConfigSource().load_text(block)
