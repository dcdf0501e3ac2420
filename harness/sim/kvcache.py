"""KV blocks with a prefix cache: blocks are found again by a hash chain, unused ones leave in LRU order.

A block holds `block_size` tokens. A full block gets the hash of its tokens chained to the hash of the block before it (vLLM's
scheme: a block is equal only where its whole prefix is). Blocks in use are counted by reference; a block that nobody uses
stays findable until room is needed. Nothing here knows requests, time or I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


def chain(tokens: Sequence[bytes], block_size: int, salt: str = "") -> list[int]:
    """Return the chained hashes of all whole blocks of a prompt; `salt` keeps adapters apart."""
    hashes: list[int] = []
    previous = hash(salt)
    for start in range(0, len(tokens) - block_size + 1, block_size):
        previous = hash((previous, tuple(tokens[start : start + block_size])))
        hashes.append(previous)
    return hashes


class BlockPool:
    """A fixed number of KV blocks.

    Invariant: `used + idle + free == capacity`, where used blocks are private or referenced, idle ones cached but unreferenced.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._references: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._private = 0

    def __repr__(self) -> str:
        return f"<BlockPool [{self.used} used, {self.idle} idle, {self.free} free]>"

    @property
    def used(self) -> int:
        """Blocks that some request needs."""
        return self._private + len(self._references)

    @property
    def idle(self) -> int:
        """Blocks kept only for the prefix cache."""
        return len(self._idle)

    @property
    def free(self) -> int:
        """Blocks with nothing in them."""
        return self.capacity - self.used - self.idle

    def match(self, hashes: Sequence[int]) -> int:
        """Count the leading blocks that are cached, without taking them."""
        for position, value in enumerate(hashes):
            if value not in self._references and value not in self._idle:
                return position
        return len(hashes)

    def take(self, hashes: Sequence[int]) -> None:
        """Reference cached blocks (all must be cached)."""
        for value in hashes:
            if value in self._references:
                self._references[value] += 1
            else:
                del self._idle[value]
                self._references[value] = 1

    def allocate(self, count: int) -> bool:
        """Take `count` private blocks, dropping idle ones in LRU order; on False nothing was taken."""
        if count > self.free + self.idle:
            return False
        for _ in range(count - self.free):
            self._idle.popitem(last=False)
        self._private += count
        return True

    def publish(self, value: int) -> None:
        """Turn one private block into a referenced cached block of this hash; a duplicate joins the one there is."""
        self._private -= 1
        if value in self._references:
            self._references[value] += 1
            return
        self._idle.pop(value, None)
        self._references[value] = 1

    def release(self, hashes: Sequence[int], private: int) -> None:
        """Give blocks back: referenced ones turn idle with their last user, deepest first out; private ones are free at once."""
        self._private -= private
        for value in reversed(hashes):
            left = self._references[value] - 1
            if left:
                self._references[value] = left
            else:
                del self._references[value]
                self._idle[value] = None

    def forget(self) -> None:
        """Drop every idle block (the engines' flush_cache)."""
        self._idle.clear()
