"""Usage is a plain immutable value."""

from __future__ import annotations

import pytest

from gateway.protocol.usage import Usage


def test_usage_is_a_value() -> None:
    """Equal counts are equal, nothing is counted by default, and nothing can be changed."""
    assert Usage(3, 2, 1) == Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1)
    assert Usage() == Usage(0, 0, 0)
    with pytest.raises(AttributeError):
        Usage().prompt_tokens = 1  # type: ignore[misc]
