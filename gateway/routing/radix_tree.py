"""A bounded radix tree over prompt bytes: which workers were sent a prompt that begins like this one.

1. The tree is cut at pages of 64 bytes (about 16 tokens, a block of an engine's cache): an edge is whole pages, children are
   told apart by their first page, so that a prompt costs steps by the edges it crosses and comparisons of whole edges in C,
   never a step a byte. What is left of a prompt behind its last whole page is not kept; a prompt below one page is one edge.
2. A node knows its workers as bits of one number. Whoever holds a node holds all above it.
3. A leaf that only one worker holds grows in place when that worker gets the longer prompt: a conversation is one node.
4. Nodes are kept in order of use, a node always after those below it, so that the oldest is a leaf. Each insertion evicts until
   `max_bytes` holds again: a few nodes at most, since an insertion adds two nodes and at most `MAX_PROMPT` bytes.
5. A forgotten worker is out of every answer at once; its bits are wiped off the nodes a few at a time, by later insertions.

One tree a pool, in one process, on one event loop.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

PAGE = 64
MAX_PROMPT = 128 << 10
"""Bytes of a prompt that count (about 32k tokens); prompts that share this much share nearly all of the work there is to save."""
MAX_DEPTH = 128
"""Edges from the root; deeper ones are not made, so that a walk is bounded whatever clients send."""
NODE_BYTES = 620
"""What a node takes besides its label: struct, key, place among its siblings and in the order of use (measured, see the tests)."""
HOT_USES = 16
"""Prompts that ended or branched off at a node, from which on it is hot: many share it, so that a copy of it pays."""
SWEPT = 32
"""Nodes that one insertion wipes of forgotten workers."""


class Node(msgspec.Struct, gc=False, eq=False):
    """An edge and what is below it. No garbage collector tracks it: nothing below points up, so counting references is enough."""

    label: bytes
    holders: int
    children: dict[bytes, Node] | None = None
    uses: int = 0
    """Prompts that ended or branched off here since it last grew."""


class RadixTree:
    """Prompts of one pool. `holders` asks, `add` tells, `forget` drops a worker."""

    __slots__ = ("_asked", "_bits", "_dead", "_free", "_limit", "_parents", "_root", "_sweep", "_walked", "max_bytes", "size_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        """Labels and nodes as they are counted against `max_bytes`."""
        self._limit = max(PAGE, min(MAX_PROMPT, max_bytes // 8) // PAGE * PAGE)
        self._root = Node(b"", 0, {})
        self._parents: OrderedDict[Node, Node] = OrderedDict()
        """Node -> parent, least lately used first."""
        self._bits: dict[str, int] = {}
        self._free: list[int] = []
        self._dead = 0
        self._sweep: list[Node] = []
        self._asked: bytes | None = None
        self._walked: _Walk = ([], [], 0, None, 0)

    def __repr__(self) -> str:
        return f"<RadixTree {len(self._parents)} nodes, {self.size_bytes} of {self.max_bytes} bytes, {len(self._bits)} workers>"

    def __len__(self) -> int:
        """Nodes."""
        return len(self._parents)

    def bit(self, worker_id: str) -> int:
        """Return the worker's bit; it is the worker's until `forget`."""
        bit = self._bits.get(worker_id)
        if bit is None:
            bit = self._free.pop() if self._free else 1 << (len(self._bits) + self._dead.bit_count())
            self._bits[worker_id] = bit
        return bit

    def holders(self, prompt: bytes, among: int, share: float) -> tuple[int, bool]:
        """Return the bits of those `among` who hold the longest beginning of the prompt, and whether that beginning is hot.

        What is less than this share of the prompt does not count; 0 where nobody holds enough.
        """
        path, depths, _, partial, matched = self._walk(prompt)
        need = share * self._end(prompt)
        among &= ~self._dead
        if partial is not None and (depths[-1] if depths else 0) + matched >= need:
            found = partial.holders & among
            if found:
                return found, False
        for at in range(len(path) - 1, -1, -1):
            if depths[at] < need:
                break
            found = path[at].holders & among
            if found:
                return found, path[at].uses >= HOT_USES
        return 0, False

    def add(self, prompt: bytes, worker_id: str) -> None:
        """Note that a worker was sent a prompt."""
        end = self._end(prompt)
        if not end:
            return
        bit = self.bit(worker_id)
        path, _, at, partial, matched = self._walk(prompt)
        self._asked = None
        parents = self._parents
        node = path[-1] if path else self._root
        if partial is not None:
            whole = at + matched == end and partial.holders & bit
            node = partial if whole else self._split(node, partial, matched)
            path.append(node)
            at += matched
        if at < end and len(path) < MAX_DEPTH:
            if node.children is None and node.holders == bit:
                node.label += prompt[at:end]
                node.uses = -1
                self.size_bytes += end - at
            else:
                leaf = Node(prompt[at:end], bit)
                if node.children is None:
                    node.children = {}
                node.children[prompt[at : at + PAGE]] = leaf
                parents[leaf] = node
                self.size_bytes += NODE_BYTES + end - at
        node.uses += 1
        for node in reversed(path):
            node.holders |= bit
            parents.move_to_end(node)
        if self._sweep:
            self._wipe()
        while self.size_bytes > self.max_bytes:
            self._drop(next(iter(parents)))

    def forget(self, worker_id: str) -> None:
        """Drop a worker: no answer names it from here on."""
        bit = self._bits.pop(worker_id, 0)
        if bit:
            self._dead |= bit
            self._sweep = list(self._parents)
            self._asked = None
            if not self._sweep:
                self._wipe()

    def _end(self, prompt: bytes) -> int:
        """Bytes of a prompt that are kept."""
        size = min(len(prompt), self._limit)
        return size // PAGE * PAGE or size

    def _walk(self, prompt: bytes) -> _Walk:
        """Follow a prompt down; the walk of the same bytes object is kept until the tree changes."""
        if prompt is self._asked:
            return self._walked
        path: list[Node] = []
        depths: list[int] = []
        partial: Node | None = None
        matched = at = 0
        end = self._end(prompt)
        children = self._root.children
        while children is not None and at < end and len(path) < MAX_DEPTH:
            child = children.get(prompt[at : at + PAGE])
            if child is None:
                break
            label = child.label
            if not prompt.startswith(label, at):
                partial = child
                matched = _common(label, prompt, at, end)
                break
            at += len(label)
            path.append(child)
            depths.append(at)
            children = child.children
        self._asked = prompt
        self._walked = path, depths, at, partial, matched
        return self._walked

    def _split(self, parent: Node, child: Node, size: int) -> Node:
        """Put a node between, which has the first `size` bytes of the child's label."""
        label = child.label
        middle = Node(label[:size], child.holders & ~self._dead, {label[size : size + PAGE]: child})
        assert parent.children is not None
        parent.children[label[:PAGE]] = middle
        child.label = label[size:]
        self._parents[child] = middle
        self._parents[middle] = parent
        self.size_bytes += NODE_BYTES
        return middle

    def _drop(self, leaf: Node) -> None:
        parent = self._parents.pop(leaf)
        assert parent.children is not None
        assert leaf.children is None
        del parent.children[leaf.label[:PAGE]]
        if not parent.children and parent is not self._root:
            parent.children = None
        self.size_bytes -= NODE_BYTES + len(leaf.label)

    def _wipe(self) -> None:
        """Take forgotten workers off some nodes; nodes that nobody holds go. When all are done, the bits can be given again."""
        keep = ~self._dead
        sweep = self._sweep
        for _ in range(min(SWEPT, len(sweep))):
            node = sweep.pop()
            node.holders &= keep
            while not node.holders and node.children is None and node in self._parents:
                parent = self._parents[node]
                self._drop(node)
                if parent is self._root:
                    break
                node = parent
        if not sweep:
            dead, self._dead = self._dead, 0
            while dead:
                bit = dead & -dead
                dead ^= bit
                self._free.append(bit)


_Walk = tuple[list[Node], list[int], int, Node | None, int]
"""Nodes matched whole, the depth behind each, bytes matched by them; the node matched in part, and how many bytes of it."""


def _common(label: bytes, prompt: bytes, at: int, end: int) -> int:
    """Bytes in whole pages that a label has in common with the prompt from `at` on; the first page is known to be."""
    low = 1
    high = min(len(label), end - at) // PAGE
    while low < high:
        middle = (low + high + 1) // 2
        if label[low * PAGE : middle * PAGE] == prompt[at + low * PAGE : at + middle * PAGE]:
            low = middle
        else:
            high = middle - 1
    return low * PAGE
