"""What an engine refuses, before any dialect gave it a body."""

from __future__ import annotations


class Refusal(Exception):
    """A 4xx or 5xx answer: status, the engine's error type, message, and the field at fault."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    @classmethod
    def missing(cls, field: str) -> Refusal:
        """Return the refusal of a body that lacks a field."""
        problem = {"type": "missing", "loc": ("body", field), "msg": "Field required"}
        return cls(400, "Bad Request", f"1 validation error:\n  {problem}", field)

    @classmethod
    def invalid(cls, field: str, problem: str) -> Refusal:
        """Return the refusal of a field with a value of the wrong type."""
        return cls(400, "Bad Request", f"1 validation error:\n  {{'loc': ('body', '{field}'), 'msg': '{problem}'}}", field)
