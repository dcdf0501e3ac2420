"""The page of error codes: status, meaning, and what a client may do."""

from __future__ import annotations

import ast
import inspect
import itertools
import pathlib

from docs.pages.markdown import NOTE, code, table
from gateway import errors
from gateway.errors import Code, status_of

_INTRODUCTION = """\
An error comes in the shape of the client's dialect: OpenAI's `{"error": {"message", "type", "code", "param"}}`, or
Anthropic's `{"type": "error", "error": {"type", "message"}}` on `/v1/messages`.
The code stands in `error.code` where the shape has room for it, and always in the header `x-smg-error-code`.
Answers that may be asked for again later carry `Retry-After`.

A code keeps its name and its status; a new one is announced in the changelog.
What the worker itself says to a request that it refuses (a 400 for a context that is too long, say) reaches the client as it is.
"""


def page() -> str:
    """Write the page."""
    meanings = docstrings()
    rows = [(code(one.value), str(status_of(one)), meanings.get(one.name, "")) for one in Code]
    return "\n".join([NOTE, "# Error codes\n", _INTRODUCTION, table(["code", "status", "means"], rows)])


def docstrings() -> dict[str, str]:
    """Read the string under each code; Python does not keep it."""
    tree = ast.parse(pathlib.Path(inspect.getfile(errors)).read_text("utf-8"))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Code"]
    found = {}
    for node, after in itertools.pairwise(body):
        match node, after:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found
