"""Reads a YAML text into plain values and remembers the line of every key.

YAML 1.2's core schema, as editors have it: only `true` and `false` are booleans, `on`, `no` and dates stay strings. A key
that is given twice in one mapping is a mistake. Anchors and merge keys work; what they blow up is bounded. Every text
either becomes a `Document` or at least one mistake, never an exception.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from gateway.config.mistake import Mistake, Path

if TYPE_CHECKING:
    from yaml import SafeLoader as _Parser
else:
    _Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_TEXT_BYTES = 16 << 20
"""Largest text; 10 000 workers of ten keys are about 2 MiB."""
MAX_VALUES = 300_000
"""Values after aliases are written out: the limit that makes an alias bomb a mistake."""
MAX_DEPTH = 32
"""Nesting; the configuration itself needs six."""

_STR = "tag:yaml.org,2002:str"
_MAP = "tag:yaml.org,2002:map"
_SEQ = "tag:yaml.org,2002:seq"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(_Parser):
    """PyYAML's parser with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - the type that PyYAML gives it


_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])


@dataclass(slots=True)
class Document:
    """A text as values, with what is needed to point at a mistake in it."""

    name: str
    """What the text is called in mistakes, a file's name."""
    value: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    """Path of every value -> line of its key, from 1."""
    mistakes: list[Mistake] = field(default_factory=list)

    def origin(self, path: Path) -> str:
        """Say where a path is written, or else what holds it: `smg.yaml:12`."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return f"{self.name}:{line}"
        return self.name


def read(text: str, name: str, list_key: str | None = None) -> Document:
    """Read a text. What can be read of it is in the result even where there are mistakes.

    Args:
        text: YAML, or JSON, which is YAML too.
        name: what mistakes call it.
        list_key: a text that is a list counts as a mapping of this key to it; a mistake unless given.
    """
    document = Document(name)
    if len(text) > MAX_TEXT_BYTES:
        document.mistakes.append(Mistake(name, (), f"larger than {MAX_TEXT_BYTES >> 20} MiB"))
        return document
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part) or "cannot be read"
        document.mistakes.append(Mistake(name if mark is None else f"{name}:{mark.line + 1}", (), f"not valid YAML: {said}"))
        return document
    except (yaml.YAMLError, ValueError) as error:
        document.mistakes.append(Mistake(name, (), f"not valid YAML: {' '.join(str(error).split())}"))
        return document
    except RecursionError:
        document.mistakes.append(Mistake(name, (), "nested too deeply"))
        return document
    if node is None or node.tag == _NULL:
        return document
    reader = _Reader(document)
    try:
        if isinstance(node, yaml.MappingNode):
            document.value = reader.mapping(node, ())
        elif isinstance(node, yaml.SequenceNode) and list_key is not None:
            document.value = {list_key: reader.value(node, (list_key,))}
        else:
            document.mistakes.append(Mistake(f"{name}:{node.start_mark.line + 1}", (), "must be a mapping of keys to values"))
    except _TooMuch as error:
        document.mistakes.append(Mistake(error.origin, error.path, error.message))
        document.value = {}
    return document


class _TooMuch(Exception):
    def __init__(self, origin: str, path: Path, message: str) -> None:
        super().__init__(message)
        self.origin, self.path, self.message = origin, path, message


class _Reader:
    """Turns the nodes of one document into values."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._values = 0

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        inherited: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                inherited = self._merged(value_node, path) | inherited
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._mistake(line, path, "a key must be a plain word")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if key in own:
                self._mistake(line, here, f"is given twice, first in line {self._document.lines[here]}")
                continue
            self._document.lines[here] = line
            own[key] = self.value(value_node, here)
        return inherited | own

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.MappingNode) for item in node.value):
            result: dict[str, Any] = {}
            for item in node.value:
                result = self.mapping(item, path) | result
            return result
        self._mistake(node.start_mark.line + 1, (*path, "<<"), "merges mappings alone")
        return {}

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._values += 1
        line = node.start_mark.line + 1
        if self._values > MAX_VALUES:
            raise _TooMuch(f"{self._document.name}:{line}", path, f"more than {MAX_VALUES} values, aliases written out")
        if len(path) > MAX_DEPTH:
            raise _TooMuch(f"{self._document.name}:{line}", path[:2], "nested too deeply")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                here = (*path, index)
                self._document.lines[here] = item.start_mark.line + 1
                items.append(self.value(item, here))
            return items
        return self._scalar(node, path, line)

    def _scalar(self, node: yaml.Node, path: Path, line: int) -> Any:
        text = str(node.value)
        match node.tag:
            case "tag:yaml.org,2002:str":
                return text
            case "tag:yaml.org,2002:null":
                return None
            case "tag:yaml.org,2002:bool":
                return text.lower() == "true"
            case "tag:yaml.org,2002:int" | "tag:yaml.org,2002:float":
                number = _number(text, node.tag)
                if number is not None:
                    return number
        self._mistake(line, path, f"cannot read {text[:40]!r} as {node.tag.rpartition(':')[2] or node.tag}")
        return None

    def _mistake(self, line: int, path: Path, message: str) -> None:
        self._document.mistakes.append(Mistake(f"{self._document.name}:{line}", path, message))


def _number(text: str, tag: str) -> int | float | None:
    """Read a number; None where an explicit tag (`!!int word`) promised one that is not there, or it is absurdly long."""
    try:
        if tag == _INT:
            if text.startswith("0o"):
                return int(text[2:], 8)
            return int(text, 16) if text.startswith("0x") else int(text)
        word = text.lower()
        return float(word.replace(".", "") if word.endswith(("inf", "nan")) else word)
    except ValueError:
        return None
