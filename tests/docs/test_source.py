"""What holds for every source file: a charter, a place for its tests, nothing of the machine it was written on."""

from __future__ import annotations

import ast
import re

from tests.support.tracked import ROOT, texts

PACKAGES = ("smgctl", "gateway", "harness")
MAX_CHARTER = 132
"""Characters of a module's first line; it must fit one line of the editor."""


def test_every_module_has_a_charter() -> None:
    """The first line of a module's docstring says in one sentence what the module is for."""
    wrong = []
    for path, text in texts("*.py"):
        if path.parts[0] not in PACKAGES or not text.strip() or "/proto/" in str(path):
            continue
        docstring = ast.get_docstring(ast.parse(text))
        charter = docstring.splitlines()[0] if docstring else ""
        if not charter or len(charter) > MAX_CHARTER or not charter.endswith((".", ":", "`", '"', ")")):
            wrong.append(f"{path}: {charter!r}")
    assert wrong == []


def test_unit_tests_mirror_the_source() -> None:
    """A unit test lies where its module does: tests/unit/<package>/test_<module>[_<aspect>].py."""
    astray = []
    for path, _ in texts("tests/unit/**/test_*.py", "tests/unit/test_*.py"):
        package = ROOT.joinpath(*path.parts[2:-1])
        stem = path.stem.removeprefix("test_")
        modules = {module.stem.strip("_") for module in package.glob("*.py")} | {
            folder.name for folder in package.glob("*") if folder.is_dir()
        }
        modules |= {package.name}
        if not package.is_dir() or not any(stem == module or stem.startswith(f"{module}_") for module in modules):
            astray.append(str(path))
    assert astray == []


def test_nothing_of_this_machine_is_in_the_project() -> None:
    """No tracked file names a package registry's host or a path of the machine that it was written on."""
    hosts = ("py" + "pi.org", "python" + "hosted.org", "registry." + "npmjs", "deb." + "debian", "proxy." + "golang")
    places = ("/" + "work/", "/" + "farm/", "/home/" + "user/", "/" + "root/")
    forbidden = re.compile("|".join(re.escape(text) for text in (*hosts, *places)))
    found = [f"{path}:{number}" for path, text in texts("*") for number, line in enumerate(text.splitlines(), 1) if forbidden.search(line)]
    assert found == []


def test_no_mark_of_unfinished_work() -> None:
    """What is in the project is finished; what is not is in the tracker."""
    mark = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    found = [
        f"{path}:{number}"
        for path, text in texts("*.py", "*.md", "*.yml", "*.yaml", "*.toml", "Makefile")
        for number, line in enumerate(text.splitlines(), 1)
        if mark.search(line)
    ]
    assert found == []
