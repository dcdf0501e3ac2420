"""What the documentation tells to type exists, and what it tells to configure is a configuration."""

from __future__ import annotations

import ast
import pathlib
import re
import shlex
from collections.abc import Iterator

import pytest
import typer
import yaml

from gateway.config.load import ConfigSource
from gateway.config.model import GatewayConfig
from smgctl.app import app
from tests.support.tracked import ROOT, pages

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
SMGCTL = typer.main.get_command(app)


def blocks(*languages: str) -> list[tuple[str, str]]:
    """(place, text) of every block in one of the languages."""
    return [
        (f"{path}:{text.count(chr(10), 0, block.start()) + 1}", re.sub(rf"^{block[1]}", "", block[3], flags=re.MULTILINE))
        for path, text in pages()
        for block in _BLOCK.finditer(text)
        if block[2] in languages
    ]


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """(place, arguments) of every call of a program in a shell block."""
    for place, text in blocks("bash", "sh", "console"):
        for line in text.replace("\\\n", " ").splitlines():
            try:
                words = shlex.split(line.removeprefix("$ "), comments=True)
            except ValueError:
                continue
            for at, word in enumerate(words):
                if pathlib.Path(word).name == program and (at == 0 or words[at - 1] in ("&&", "|", "sudo", ";") or "=" in words[at - 1]):
                    yield place, words[at + 1 :]


def fault_of(arguments: list[str]) -> str | None:
    """What is wrong with the arguments of a `smgctl` call; None if its command and options exist."""
    command = SMGCTL
    walked = ["smgctl"]
    for word in arguments:
        if word in ("|", "&&", "&", ">", "<", ";"):
            break
        subcommands = getattr(command, "commands", None)
        if word.startswith("-") and word != "-":
            name = word.partition("=")[0]
            known = {opt for param in command.params for opt in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
            if name not in known:
                return f"{' '.join(walked)} has no option {name}"
        elif subcommands is not None:
            if word not in subcommands:
                return f"{' '.join(walked)} has no command {word}"
            command = subcommands[word]
            walked.append(word)
    return None


def test_smgctl_commands_exist() -> None:
    """Every `smgctl` command in a shell block exists, with every option that is used."""
    calls = list(commands("smgctl"))
    assert calls, "the documentation shows smgctl"
    assert [f"{place}: {fault}" for place, arguments in calls if (fault := fault_of(arguments))] == []


@pytest.mark.parametrize("call", [["nosuch"], ["serve", "--nosuch"], ["worker", "nosuch"], ["worker", "list", "--nosuch=1"]])
def test_a_command_that_does_not_exist_is_found(call: list[str]) -> None:
    """The check above can fail."""
    assert fault_of(call) is not None


def test_make_targets_and_nox_sessions_exist() -> None:
    """Every `make` target and `nox` session in a shell block exists."""
    makefile = (ROOT / "Makefile").read_text()
    sessions = re.findall(r"^@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    missing = []
    for place, arguments in commands("make"):
        targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
        missing += [f"{place}: make {target}" for target in targets if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE)]
    for place, arguments in commands("nox"):
        if "-s" in arguments:
            missing += [f"{place}: nox -s {name}" for name in arguments[arguments.index("-s") + 1 :][:1] if name not in sessions]
    assert missing == []


def test_configurations_are_valid() -> None:
    """Every YAML block that looks like a configuration of the gateway loads without a mistake."""
    checked = 0
    for place, text in blocks("yaml"):
        value = yaml.safe_load(text)
        if isinstance(value, dict) and value and set(value) <= set(GatewayConfig.model_fields):
            ConfigSource().load_text(text, place)
            checked += 1
    assert checked > 0


def test_python_blocks_parse() -> None:
    """Every Python block is Python."""
    for place, text in blocks("python"):
        ast.parse(text, place)
