"""The one door to every check: `nox -l` lists them, `nox -s unit` runs one. Sessions run in the environment nox runs in.

`make lint` and `make test` make that environment (`.venv`), so that no session needs a network once it is there.
"""

import pathlib
import sys

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "imports", "unit"]


def _python(session: nox.Session, *arguments: str) -> None:
    session.run(sys.executable, "-m", *arguments, *session.posargs, external=True)


def _pytest(session: nox.Session, *arguments: str) -> None:
    _python(session, "pytest", "-ra", "--timeout", "180", *arguments)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, banned calls, format, and that every news fragment can be read."""
    session.run(sys.executable, "-m", "ruff", "check", external=True)
    session.run(sys.executable, "-m", "ruff", "format", "--check", external=True)
    session.run(sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next", external=True, silent=True)


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly."""
    _python(session, "mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """The direction of imports."""
    session.run(str(pathlib.Path(sys.executable).with_name("lint-imports")), external=True)


@nox.session
def unit(session: nox.Session) -> None:
    """Tests without sockets and sleeps."""
    _pytest(session, "tests/unit", "--benchmark-disable")


@nox.session
def integration(session: nox.Session) -> None:
    """Tests of one real seam each, on the loopback address."""
    _pytest(session, "tests/integration")


@nox.session
def e2e(session: nox.Session) -> None:
    """Tests of a whole `smgctl serve`, from outside."""
    _pytest(session, "tests/e2e")


@nox.session
def bench(session: nox.Session) -> None:
    """Measurements; compare with `--benchmark-compare`."""
    _pytest(session, "tests/bench", "--benchmark-only")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Property tests of every parser and of admission."""
    _pytest(session, "tests/fuzz")


@nox.session
def docs(session: nox.Session) -> None:
    """Links, code blocks and completeness of the documentation."""
    _pytest(session, "tests/docs")


@nox.session
def news(session: nox.Session) -> None:
    """Gather the news fragments into CHANGELOG.md: `nox -s news -- --version 0.2.0`."""
    _python(session, "towncrier", "build")
