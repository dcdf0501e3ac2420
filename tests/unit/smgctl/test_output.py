import io

import msgspec
import pytest

from smgctl.output import Output


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_for_programs_is_plain() -> None:
    """Columns are aligned, nothing is cut, no line ends in spaces, and empty cells are dashes."""
    out = io.StringIO()
    Output(out).table(["NAME", "VALUE", "MORE"], [("a", "x" * 300, ""), ("long name", 1.5, ["p", "q"]), ("[bold]", True, {"k": "v"})])
    assert out.getvalue().splitlines() == [
        "NAME       VALUE" + " " * 297 + "MORE",
        "a          " + "x" * 300 + "  -",
        "long name  1.5" + " " * 299 + "p,q",
        "[bold]     yes" + " " * 299 + "k=v",
    ]


def test_a_table_on_a_terminal_fits() -> None:
    """A long cell is folded, not cut."""
    out = Terminal()
    Output(out).table(["URL"], [("http://" + "x" * 200,)])
    shown = out.getvalue()
    assert shown.replace("\n", "").replace(" ", "").count("x") == 200
    assert len(shown.splitlines()) > 3


def test_fields_are_aligned() -> None:
    """Names stand left, values in one column."""
    out = io.StringIO()
    Output(out).fields({"id": "w1", "long name": None, "cost": 1.0, "on": False})
    assert out.getvalue() == "id:        w1\nlong name: -\ncost:      1\non:        no\n"


def test_json_takes_structs_and_keeps_words() -> None:
    """Values are indented, and what is no ASCII stays readable."""

    class Point(msgspec.Struct):
        x: int
        name: str = "ü"

    out = io.StringIO()
    Output(out).json({"points": [Point(1)]})
    assert out.getvalue() == '{\n  "points": [\n    {\n      "x": 1,\n      "name": "ü"\n    }\n  ]\n}\n'


def test_errors_and_hints_go_to_stderr() -> None:
    """What other programs read has no word of them."""
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err)
    output.error("e")
    output.hint("h")
    output.problem("f:1: p")
    assert (out.getvalue(), err.getvalue()) == ("", "error: e\nhint: h\nf:1: p\n")


def test_nothing_that_was_sent_steers_the_terminal() -> None:
    """Escape sequences in messages and values are shown as what they are not."""
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err)
    output.line("a\x1b[2Jb")
    output.fields({"reason": "a\x1b]0;x\x07"})
    output.table(["REASON"], [("a\x1b[31mb\rc",)])
    output.error("a\x1b[2J")
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert "\r" not in out.getvalue()


def test_progress_for_programs_is_a_line_for_each_step() -> None:
    """On stderr; what happens meanwhile is not written."""
    out, err = io.StringIO(), io.StringIO()
    with Output(out, err).progress() as progress:
        progress.begin(2)
        progress.say("working")
        progress.step("one\x1b[2J")
        progress.step("two")
    assert (out.getvalue(), err.getvalue()) == ("", "one\N{REPLACEMENT CHARACTER}[2J\ntwo\n")


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of steps stay above it; what is said is no markup."""
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    with Output(io.StringIO(), err).progress() as progress:
        progress.begin(2)
        progress.say("[red]now")
        progress.step("first [bold]")
        progress.step("second")
    shown = err.getvalue()
    assert "first [bold]" in shown and "second" in shown
    assert "[red]now" in shown and "2/2" in shown
