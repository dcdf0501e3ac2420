import math

import pytest

from gateway.config.document import MAX_TEXT_BYTES, read


def mistakes(text: str) -> list[str]:
    return [str(mistake) for mistake in read(text, "f").mistakes]


def test_scalars_are_those_of_the_core_schema() -> None:
    """`on`, `no`, dates and sexagesimals stay strings; numbers, true, false and null are values."""
    text = """
a: [1, -2, 0x1f, 0o17, 1e3, .5, 2., .inf]
b: [true, False, TRUE]
c: [null, ~, ]
d: [on, no, yes, y, 2024-01-01, "12:30:45", 1_000, "1", 0b1]
e:
"""
    assert read(text, "f").value == {
        "a": [1, -2, 31, 15, 1000.0, 0.5, 2.0, math.inf],
        "b": [True, False, True],
        "c": [None, None],
        "d": ["on", "no", "yes", "y", "2024-01-01", "12:30:45", "1_000", "1", "0b1"],
        "e": None,
    }


def test_every_value_has_the_line_of_its_key() -> None:
    """The origin of a path is its line, or that of what holds it."""
    document = read("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n", "smg.yaml")
    assert document.origin(("a",)) == "smg.yaml:1"
    assert document.origin(("a", "b")) == "smg.yaml:2"
    assert document.origin(("a", "c", 0)) == "smg.yaml:4"
    assert document.origin(("a", "c", 1, "d")) == "smg.yaml:5"
    assert document.origin(("a", "missing", "below")) == "smg.yaml:1"
    assert document.origin(("z",)) == "smg.yaml"


def test_a_key_that_is_given_twice_is_a_mistake() -> None:
    """The first value stays, the second is named with both lines."""
    document = read("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", "f")
    assert document.value == {"a": 1, "b": {"c": 1}}
    assert [str(one) for one in document.mistakes] == [
        "f:4: b.c: is given twice, first in line 3",
        "f:5: a: is given twice, first in line 1",
    ]


def test_anchors_and_merge_keys_work() -> None:
    """An alias repeats a value; a merged mapping gives keys that the mapping's own win over, wherever `<<` stands."""
    text = "base: &b {x: 1, y: 2}\none: {x: 9, <<: *b}\ntwo: {<<: [{z: 3, x: 5}, *b]}\nthree: *b\n"
    document = read(text, "f")
    assert document.mistakes == []
    assert document.value["one"] == {"x": 9, "y": 2}
    assert document.value["two"] == {"x": 5, "y": 2, "z": 3}
    assert document.value["three"] == {"x": 1, "y": 2}
    assert document.origin(("one", "x")) == "f:2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\nb: 2", "f:2: not valid YAML: "),
        ("a: b: c", "f:1: not valid YAML: "),
        ("a: 1\n\tb: 2", "f:2: not valid YAML: "),
        ("a: *nowhere", "f:1: not valid YAML: "),
        ("a: 1\n---\nb: 2", "f:2: not valid YAML: "),
        ("- a", "f:1: must be a mapping of keys to values"),
        ("just words", "f:1: must be a mapping of keys to values"),
        ("? [a]\n: b", "f:1: a key must be a plain word"),
        ("a: !!int word", "f:1: a: cannot read 'word' as int"),
        ("a: !!python/object:os.system ls", "f:1: a: cannot read 'ls' as os.system"),
        ("<<: word", "f:1: <<: merges mappings alone"),
        ("a: &a [*a]", "f:1: a[0]: nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_a_mistake_with_its_line(text: str, said: str) -> None:
    """Broken syntax and strange nodes are named, never raised."""
    (found,) = mistakes(text)
    assert found.startswith(said) if said.endswith(" ") else found == said


@pytest.mark.parametrize("text", ["", "---", "# nothing", "~", "null"])
def test_an_empty_text_is_an_empty_configuration(text: str) -> None:
    """A file with nothing but comments is right."""
    document = read(text, "f")
    assert (document.value, document.mistakes) == ({}, [])


def test_an_alias_bomb_is_a_mistake() -> None:
    """What aliases blow up is counted, not built."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (said,) = mistakes("\n".join(lines))
    assert said.endswith("more than 300000 values, aliases written out")


def test_depth_and_size_are_bounded() -> None:
    """A text that nests without end or is absurdly large is a mistake."""
    assert len(mistakes("[" * 50_000)) == 1
    assert mistakes("a: " + "[" * 40 + "]" * 40) == ["f:1: a[0]: nested too deeply"]
    assert mistakes("#" * (MAX_TEXT_BYTES + 1)) == ["f: larger than 16 MiB"]
