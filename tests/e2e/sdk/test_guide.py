"""docs/how-to/use-the-sdks.md does what it says."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.flavours import Flavours
from tests.support.tracked import ROOT

GUIDE = (ROOT / "docs" / "how-to" / "use-the-sdks.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_snippets_run(fleet: Flavours, block: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Every snippet of the guide prints an answer, before a gateway at another address with another model."""
    language, text = BLOCKS[block]
    text = text.replace("http://127.0.0.1:30000", fleet.url).replace("smollm2-135m-instruct", "sim-vllm")
    if language == "python":
        exec(compile(text, "use-the-sdks.md", "exec"), {})
        said = capsys.readouterr().out
        assert said.count("This is a simulated answer") == 2
    else:
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.endswith("data: [DONE]\n\n")


def test_there_are_snippets() -> None:
    """The guide has one for each client."""
    assert [language for language, _ in BLOCKS] == ["python", "python", "bash"]
