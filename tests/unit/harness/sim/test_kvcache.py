"""KV blocks and the prefix cache."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from harness.sim.kvcache import BlockPool, chain

SIZE = 4


def words(text: str) -> list[bytes]:
    """Return one token a letter."""
    return [letter.encode() for letter in text]


def test_chain_names_whole_blocks_by_their_whole_prefix() -> None:
    """Equal blocks after different prefixes have different names; a last half block has none; salt keeps caches apart."""
    first, second = chain(words("aaaabbbbcc"), SIZE), chain(words("xxxxbbbbcc"), SIZE)
    assert len(first) == len(second) == 2
    assert first[1] != second[1]
    assert chain(words("aaaabbbbdddd"), SIZE)[:2] == first
    assert set(chain(words("aaaabbbb"), SIZE, "adapter")).isdisjoint(first)
    assert chain(words("aaa"), SIZE) == []


def test_released_blocks_are_found_again_until_room_is_needed() -> None:
    """A block without users stays findable; the one that was left longest ago goes first, the end of a prefix before its start."""
    pool = BlockPool(4)
    assert pool.allocate(2)
    pool.publish(1)
    pool.publish(2)
    pool.release([1, 2], 0)
    assert (pool.used, pool.idle, pool.free) == (0, 2, 2)
    assert pool.match([1, 2, 3]) == 2
    assert pool.allocate(3)
    assert (pool.match([1, 2]), pool.idle) == (1, 1)
    assert not pool.allocate(2)
    assert (pool.used, pool.idle, pool.free) == (3, 1, 0)


def test_blocks_in_use_are_counted_once_and_freed_by_their_last_user() -> None:
    """Two users of a block cost one block; it turns idle when both have let it go."""
    pool = BlockPool(2)
    assert pool.allocate(1)
    pool.publish(7)
    pool.take([7])
    assert pool.used == 1
    pool.release([7], 0)
    assert (pool.used, pool.idle) == (1, 0)
    pool.release([7], 0)
    assert (pool.used, pool.idle) == (0, 1)
    pool.forget()
    assert (pool.idle, pool.free, pool.match([7])) == (0, 2, 0)


class Pool(RuleBasedStateMachine):
    """Random users of a small pool."""

    users = Bundle("users")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(12)
        self.held = 0

    @rule(target=users, prompt=st.text("ab", min_size=1, max_size=30))
    def admit(self, prompt: str) -> tuple[list[int], int]:
        """Take what is cached of a prompt and allocate the rest; publish its whole blocks."""
        hashes = chain(words(prompt), SIZE)
        matched = self.pool.match(hashes)
        self.pool.take(hashes[:matched])
        private = -(-len(prompt) // SIZE) - matched
        if not self.pool.allocate(private):
            self.pool.release(hashes[:matched], 0)
            return ([], 0)
        for value in hashes[matched:]:
            self.pool.publish(value)
        return (hashes, private - (len(hashes) - matched))

    @rule(user=consumes(users))
    def leave(self, user: tuple[list[int], int]) -> None:
        """Give everything back."""
        self.pool.release(*user)

    @rule()
    def flush(self) -> None:
        """Drop idle blocks."""
        self.pool.forget()

    @invariant()
    def adds_up(self) -> None:
        """Used, idle and free blocks are the capacity, and none of them is negative."""
        pool = self.pool
        assert pool.used + pool.idle + pool.free == pool.capacity
        assert min(pool.used, pool.idle, pool.free) >= 0


TestPool = Pool.TestCase


@given(st.text("abc", max_size=40), st.text("abc", max_size=40))
def test_common_blocks_are_the_common_prefix(first: str, second: str) -> None:
    """Two prompts share exactly the whole blocks of their common prefix."""
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    pairs = zip(chain(words(first), SIZE), chain(words(second), SIZE), strict=False)
    assert sum(one == other for one, other in pairs) == shared // SIZE
