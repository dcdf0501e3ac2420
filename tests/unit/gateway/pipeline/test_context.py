"""The exchange itself: what policies see of it, and what it says of itself."""

from __future__ import annotations

from tests.support.exchange import ANSWER, Rig


def test_a_header_is_found_by_its_name() -> None:
    """The first line of a name counts; a name that is not there is None."""
    with Rig() as rig:
        x, _ = rig.ask(headers=[(b"x-a", b"1"), (b"x-a", b"2")])
        assert x.header(b"x-a") == b"1" and x.header(b"x-b") is None


def test_the_prompt_is_the_clients_bytes() -> None:
    """Policies see the raw JSON of the prompt."""
    with Rig() as rig:
        x, _ = rig.ask(b'{"model":"m","messages":[ {"role":"user"} ]}')
        assert x.prompt == b'[ {"role":"user"} ]'


def test_it_says_where_it_stands() -> None:
    """`repr` shows path, id and state, and no prompt."""
    with Rig(1, {"admission": {"max_concurrent_requests": 1}}) as rig:
        first, _ = rig.ask(headers=[(b"x-request-id", b"a")], messages=["secret"])
        second, _ = rig.ask(headers=[(b"x-request-id", b"b")])
        assert repr(first) == "<Exchange /v1/chat/completions a [open, 1 attempts]>"
        assert repr(second) == "<Exchange /v1/chat/completions b [waiting, 0 attempts]>"
        rig.call.answer(200, ANSWER)
        assert repr(first) == "<Exchange /v1/chat/completions a [over, 1 attempts]>"
