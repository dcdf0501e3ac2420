"""What must be documented is: dependencies, sessions, layers, news fragments."""

from __future__ import annotations

import re
import tomllib

from tests.support.tracked import ROOT, files

GIVEN = {"typer", "rich", "httpx", "grpcio", "pyyaml", "jinja2", "docker", "pytest", "locust", "toxiproxy-python"}
"""Libraries that were given with the project, and need no reason."""
KINDS = {"added", "changed", "fixed", "removed", "security"}


def pyproject() -> dict[str, dict[str, object]]:
    """The project's own settings."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def required() -> set[str]:
    """Every library that pyproject.toml asks for, by its name in lower case."""
    project: dict[str, object] = pyproject()["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    lines = [*project["dependencies"], *pyproject()["build-system"]["requires"], *(line for extra in extras.values() for line in extra)]  # type: ignore[misc]
    return {re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0].lower() for line in lines} - {"smgctl"}


def documented() -> set[str]:
    """Every library that docs/dependencies.md has a row for."""
    names = set()
    for line in (ROOT / "docs/dependencies.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| library", "| extra")):
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            names |= {name.strip().lower() for name in (cells[1] if cells[0].startswith("`") else cells[0]).split(",")}
    return names


def test_every_dependency_has_its_reason() -> None:
    """docs/dependencies.md says why each library is here, and of none that is not."""
    assert required() - GIVEN == documented()


def test_every_session_is_in_the_front_door() -> None:
    """`nox -l` offers every tier of tests that there is."""
    noxfile = (ROOT / "noxfile.py").read_text()
    sessions = set(re.findall(r"^@nox\.session\ndef (\w+)", noxfile, re.MULTILINE))
    assert {"lint", "types", "imports", "unit", "integration", "e2e", "bench", "fuzz", "docs"} <= sessions
    tiers = {path.parts[1] for path in files() if path.parts[0] == "tests" and len(path.parts) > 2} - {"support", "data"}
    assert {tier for tier in tiers if f'"tests/{tier}"' not in noxfile} == set()


def test_the_architecture_names_every_room() -> None:
    """The order of layers in docs/architecture.md is the one that is checked, and every room has a row."""
    text = (ROOT / "docs/architecture.md").read_text()
    contracts: list[dict[str, object]] = pyproject()["tool"]["importlinter"]["contracts"]  # type: ignore[index,call-overload]
    layers: list[str] = next(one["layers"] for one in contracts if one.get("containers") == ["gateway"])  # type: ignore[assignment]
    assert " > ".join(layers) in text
    rooms = {room for layer in layers for room in layer.split(" | ")}
    assert {room for room in rooms if not re.search(rf"^\| `gateway/{room}(\.py)?` \|", text, re.MULTILINE)} == set()


def test_every_decision_says_how_it_could_be_wrong() -> None:
    """A decision has a number of its own, a context, a decision, consequences, and a way to notice that it was wrong."""
    pages = [path for path in files() if path.parts[:2] == ("docs", "adr")]
    numbers = [path.name[:4] for path in pages]
    assert len(set(numbers)) == len(numbers) and all(number.isdigit() for number in numbers)
    for path in pages:
        text = (ROOT / path).read_text()
        assert text.startswith(f"# {path.name[:4]}: ")
        for part in ("**Context.**", "**Decision.**", "**Consequences.**", "**How we would notice that it is wrong.**"):
            assert part in text, f"{path} lacks {part}"


def test_news_fragments_have_a_kind() -> None:
    """Every fragment is `<slug>.<kind>.md` and says something."""
    for path in files():
        if path.parts[:2] == ("docs", "changes") and path.name not in ("README.md", "_template.md.j2"):
            _, kind, end = path.name.split(".")
            assert kind in KINDS and end == "md", path
            assert (ROOT / path).read_text().strip(), path
