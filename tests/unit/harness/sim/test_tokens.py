"""The toy tokenizer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.sim import tokens

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_decode_is_the_inverse_of_encode(text: str) -> None:
    """Every text comes back from its ids, and ids are small enough for anybody."""
    ids = tokens.encode(text)
    assert tokens.decode(ids) == text
    assert all(0 <= one <= tokens.MAX_ID for one in ids)


@given(TEXT)
def test_pieces_are_whole_characters(text: str) -> None:
    """Streamed pieces join to the text, and none cuts a character in two."""
    assert "".join(tokens.pieces(text)) == text


@given(TEXT, TEXT)
def test_a_longer_text_keeps_the_tokens_of_whole_words(first: str, second: str) -> None:
    """Tokens of lines stay when a line follows, which is what makes prefixes cacheable."""
    assert tokens.split(first + "\n" + second)[: len(tokens.split(first + "\n"))] == tokens.split(first + "\n")


def test_ids_that_no_token_has() -> None:
    """Unknown ids become a replacement character instead of an error."""
    assert tokens.decode([-1, 2**40]) == "\ufffd\ufffd"


def test_texts_in_every_form() -> None:
    """Strings, lists of them, ids and lists of ids are texts; anything else is none."""
    ids = tokens.encode("ab c")
    assert tokens.texts("x") == ["x"]
    assert tokens.texts(["x", "y"]) == ["x", "y"]
    assert tokens.texts(ids) == ["ab c"]
    assert tokens.texts([ids, ids]) == ["ab c", "ab c"]
    for wrong in (None, [], 5, [None], [[0.5]], [1, "x"], {"a": 1}):
        assert tokens.texts(wrong) is None
