"""The prompt tree: it answers as a plain list of prompts would, stays within its bytes, and forgets."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.radix_tree import HOT_USES, MAX_DEPTH, MAX_PROMPT, NODE_BYTES, PAGE, RadixTree

LARGE = 1 << 30


def pages(prompt: bytes) -> list[bytes]:
    """What of a prompt counts: whole pages, or all of it where it has none."""
    whole = [prompt[at : at + PAGE] for at in range(0, len(prompt) // PAGE * PAGE, PAGE)]
    return whole or ([prompt] if prompt else [])


def common(one: list[bytes], other: list[bytes]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


class Naive:
    """Every prompt of every worker, compared page by page."""

    def __init__(self) -> None:
        self.prompts: dict[str, list[list[bytes]]] = {}

    def add(self, prompt: bytes, worker: str) -> None:
        self.prompts.setdefault(worker, []).append(pages(prompt))

    def holders(self, prompt: bytes, among: set[str], share: float) -> set[str]:
        asked = pages(prompt)
        matched = {
            worker: max((common(asked, held) for held in prompts), default=0) for worker, prompts in self.prompts.items() if worker in among
        }
        best = max(matched.values(), default=0)
        if not best or best < share * len(asked):
            return set()
        return {worker for worker, count in matched.items() if count == best}


WORKERS = [f"w{at}" for at in range(3)]
# Prompts over two kinds of pages, with and without a rest behind the last page.
prompts = st.builds(
    lambda kinds, rest: b"".join(kind * PAGE for kind in kinds) + rest,
    st.lists(st.sampled_from([b"a", b"b"]), max_size=5),
    st.sampled_from([b"", b"", b"tail", b"a" * 30]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), prompts, st.sampled_from(WORKERS)),
        st.tuples(st.just("ask"), prompts, st.sets(st.sampled_from(WORKERS)), st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        st.tuples(st.just("forget"), st.sampled_from(WORKERS)),
    ),
    max_size=60,
)


def holders(tree: RadixTree, prompt: bytes, among: int, share: float) -> int:
    return tree.holders(prompt, among, share)[0]


def names(tree: RadixTree, found: int) -> set[str]:
    return {worker for worker in WORKERS if tree.bit(worker) & found}


@given(steps)
@settings(deadline=None, max_examples=300)
def test_it_answers_as_a_plain_list_of_prompts_would(script: list) -> None:
    """Without eviction, every answer equals the longest common beginning over all prompts of all workers asked about."""
    tree, naive = RadixTree(LARGE), Naive()
    for kind, *rest in script:
        if kind == "add":
            tree.add(*rest)
            naive.add(*rest)
        elif kind == "forget":
            tree.forget(rest[0])
            naive.prompts.pop(rest[0], None)
        else:
            prompt, among, share = rest
            mask = sum(tree.bit(worker) for worker in among)
            assert names(tree, holders(tree, prompt, mask, share)) == naive.holders(prompt, among, share)
    check(tree)


@given(steps, st.sampled_from([1024, 3000, 8000]))
@settings(deadline=None, max_examples=200)
def test_within_few_bytes_it_knows_less_but_nothing_false(script: list, max_bytes: int) -> None:
    """With eviction the tree may forget, but whom it names did get a prompt that begins so, and it never holds too much."""
    tree, naive = RadixTree(max_bytes), Naive()
    for kind, *rest in script:
        if kind == "add":
            tree.add(*rest)
            naive.add(*rest)
        elif kind == "forget":
            tree.forget(rest[0])
            naive.prompts.pop(rest[0], None)
        else:
            prompt, among, share = rest
            found = names(tree, holders(tree, prompt, sum(tree.bit(worker) for worker in among), share))
            assert found <= among
            for worker in found:
                assert naive.holders(prompt, {worker}, 0.0) == {worker}
        check(tree)


def check(tree: RadixTree) -> None:
    """Compare what the tree says of itself with what is in it."""
    nodes = size = 0
    order = {node: at for at, node in enumerate(tree._parents)}
    stack = [tree._root]
    while stack:
        node = stack.pop()
        for key, child in (node.children or {}).items():
            assert child.label.startswith(key)
            assert tree._parents[child] is node
            assert node is tree._root or order[child] < order[node], "a node is older than what is below it"
            assert node is tree._root or child.holders & ~node.holders & ~tree._dead == 0, "a holder below does not hold above"
            nodes += 1
            size += NODE_BYTES + len(child.label)
            stack.append(child)
    assert nodes == len(tree) == len(order)
    assert size == tree.size_bytes <= tree.max_bytes


def test_many_insertions_stay_within_the_bound() -> None:
    """Random prompts with shared beginnings, far more than fit: never above the limit, and the latest prompt is always known."""
    tree = RadixTree(256 << 10)
    rng = random.Random(1)
    heads = [rng.randbytes(PAGE * 4) for _ in range(50)]
    bodies = [rng.randbytes(PAGE * 3) for _ in range(997)]
    workers = [f"w{at}" for at in range(8)]
    for at in range(300_000):
        prompt = heads[at % 50] + bodies[at * 7 % 997]
        worker = workers[at & 7]
        tree.add(prompt, worker)
        assert tree.size_bytes <= tree.max_bytes
        if not at % 1000:
            assert holders(tree, prompt, tree.bit(worker), 1.0) == tree.bit(worker)
            check(tree)
    assert tree.size_bytes > tree.max_bytes // 2


@pytest.mark.parametrize("shape", ["tiny", "unique", "siblings", "chains"])
def test_counted_bytes_are_real_bytes(shape: str) -> None:
    """What the tree counts is at least what Python allocates for it, for every shape of tree."""
    rng = random.Random(1)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tree = RadixTree(2 << 20)
        head = rng.randbytes(PAGE * 10)
        grown = b""
        for at in range(8000):
            if shape == "tiny":
                prompt = rng.randbytes(20)
            elif shape == "unique":
                prompt = rng.randbytes(PAGE * 4)
            elif shape == "siblings":
                prompt = head + rng.randbytes(PAGE)
            else:
                grown = prompt = rng.randbytes(PAGE) if at % 40 == 0 else grown + rng.randbytes(PAGE)
            tree.add(prompt, f"w{at % 16}")
        del prompt, grown
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        assert tree.size_bytes > tree.max_bytes * 0.9
        assert after - before < tree.size_bytes
    finally:
        tracemalloc.stop()


def test_a_tree_that_is_let_go_is_freed_without_the_collector() -> None:
    """Nodes point down only, so that counting references frees them: nodes are not tracked by the garbage collector."""
    tree = RadixTree(1 << 20)
    rng = random.Random(1)
    for at in range(200):
        tree.add(rng.randbytes(PAGE * 5), f"w{at % 4}")
    node = next(iter(tree._parents))
    assert not gc.is_tracked(node)
    del node
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        other = RadixTree(1 << 20)
        for at in range(500):
            other.add(rng.randbytes(PAGE * 5), f"w{at % 4}")
        full, _ = tracemalloc.get_traced_memory()
        del other
        end, _ = tracemalloc.get_traced_memory()
        assert full - start > 150_000
        assert end - start < 20_000
    finally:
        tracemalloc.stop()
        gc.enable()


def test_a_long_prompt_is_one_node() -> None:
    """A prompt of 100,000 characters takes one node, and the next turns of its conversation grow that node."""
    tree = RadixTree(LARGE)
    rng = random.Random(1)
    prompt = rng.randbytes(100_000)
    tree.add(prompt, "w0")
    assert len(tree) == 1
    for _ in range(20):
        prompt += rng.randbytes(1000)
        assert holders(tree, prompt, tree.bit("w0"), 0.9)
        tree.add(prompt, "w0")
    assert len(tree) == 1
    assert tree.size_bytes == NODE_BYTES + 120_000 // PAGE * PAGE


def test_only_so_much_of_a_prompt_counts() -> None:
    """A prompt beyond the limit is kept up to it, and matches whole by that much."""
    tree = RadixTree(LARGE)
    prompt = random.Random(1).randbytes(4 << 20)
    tree.add(prompt, "w0")
    assert tree.size_bytes == NODE_BYTES + MAX_PROMPT
    assert holders(tree, prompt[:MAX_PROMPT] + b"other" * 1000, tree.bit("w0"), 1.0)


def test_a_prompt_is_never_larger_than_an_eighth_of_the_tree() -> None:
    """One giant prompt does not empty a small tree."""
    tree = RadixTree(64 << 10)
    rng = random.Random(1)
    small = [rng.randbytes(PAGE * 2) for _ in range(20)]
    for prompt in small:
        tree.add(prompt, "w0")
    tree.add(rng.randbytes(1 << 20), "w1")
    assert all(holders(tree, prompt, tree.bit("w0"), 1.0) for prompt in small)


def test_hostile_prompts_do_not_make_a_walk_long() -> None:
    """Prompts that grow by a page with another worker each time make a chain of bounded depth."""
    tree = RadixTree(LARGE)
    prompt = b""
    rng = random.Random(1)
    for at in range(3 * MAX_DEPTH):
        prompt += rng.randbytes(PAGE)
        tree.add(prompt, f"w{at % 2}")
    assert len(tree) <= MAX_DEPTH
    check(tree)


def test_a_leaf_that_two_workers_hold_does_not_grow_for_one() -> None:
    """When one of two holders gets a longer prompt, the other one is not said to have it."""
    tree = RadixTree(LARGE)
    short = b"a" * PAGE
    for worker in ("w0", "w1"):
        tree.add(short, worker)
    tree.add(short + b"b" * PAGE, "w0")
    both = tree.bit("w0") | tree.bit("w1")
    assert holders(tree, short + b"b" * PAGE, both, 0.0) == tree.bit("w0")
    assert holders(tree, short, both, 0.0) == both


def test_the_least_lately_used_goes_first() -> None:
    """A prompt that is used again outlives one that is not, and a shared beginning outlives the ends it has."""
    tree = RadixTree(10 * (NODE_BYTES + 4 * PAGE))
    rng = random.Random(1)
    head = rng.randbytes(PAGE * 2)
    kept, left = head + rng.randbytes(PAGE), rng.randbytes(PAGE * 3)
    tree.add(kept, "w0")
    tree.add(left, "w0")
    for _ in range(40):
        tree.add(head + rng.randbytes(PAGE), "w1")
        tree.add(kept, "w0")
    assert holders(tree, kept, tree.bit("w0"), 1.0)
    assert not holders(tree, left, tree.bit("w0"), 0.0)


def test_a_forgotten_worker_is_out_at_once_and_its_bit_comes_back_clean() -> None:
    """No answer names it from the moment it is forgotten; a new worker gets its bit only when no node carries it any more."""
    tree = RadixTree(LARGE)
    rng = random.Random(1)
    old = [rng.randbytes(PAGE * 2) for _ in range(500)]
    for prompt in old:
        tree.add(prompt, "gone")
        tree.add(prompt, "stays")
    only = [rng.randbytes(PAGE * 2) for _ in range(100)]
    for prompt in only:
        tree.add(prompt, "gone")
    gone = tree.bit("gone")
    tree.forget("gone")
    everyone = gone | tree.bit("stays")
    assert {holders(tree, prompt, everyone, 0.0) for prompt in old} == {tree.bit("stays")}
    assert {holders(tree, prompt, everyone, 0.0) for prompt in only} == {0}
    assert tree.bit("early") != gone
    for _ in range(100):
        tree.add(rng.randbytes(PAGE), "stays")
    assert len(tree) == 600, "nodes that nobody holds are gone"
    reborn = tree.bit("late")
    assert reborn == gone
    assert not any(holders(tree, prompt, reborn, 0.0) for prompt in old + only)
    check(tree)


def test_workers_that_come_and_go_do_not_widen_the_numbers() -> None:
    """Ten thousand workers, one after another, under traffic: bits are used again, so that masks stay small."""
    tree = RadixTree(64 << 10)
    rng = random.Random(1)
    widest = 0
    for at in range(10_000):
        tree.add(rng.randbytes(PAGE), f"pod-{at}")
        widest = max(widest, tree.bit(f"pod-{at}").bit_length())
        tree.forget(f"pod-{at}")
    assert widest < 64


def test_a_beginning_is_hot_once_many_prompts_branch_off_there() -> None:
    """Shared by many prompts, or sent many times: hot. A conversation that only grows never is."""
    rng = random.Random(1)
    tree = RadixTree(LARGE)
    head, same, talk = rng.randbytes(PAGE * 4), rng.randbytes(PAGE * 4), rng.randbytes(PAGE * 4)
    hot: dict[str, list[bool]] = {"head": [], "same": [], "talk": []}
    for _ in range(2 * HOT_USES):
        for name, prompt in (("head", head + rng.randbytes(PAGE)), ("same", same), ("talk", talk)):
            hot[name].append(tree.holders(prompt, tree.bit("w0"), 0.0)[1])
            tree.add(prompt, "w0")
        talk += rng.randbytes(PAGE)
    assert hot["talk"] == [False] * 2 * HOT_USES
    assert hot["same"] == [False] * (HOT_USES + 1) + [True] * (HOT_USES - 1)
    assert hot["head"] == [False] * (HOT_USES + 1) + [True] * (HOT_USES - 1)


def test_repr_is_the_state() -> None:
    """The tree says how much is in it."""
    tree = RadixTree(4096)
    tree.add(b"x" * PAGE, "w0")
    assert repr(tree) == f"<RadixTree 1 nodes, {NODE_BYTES + PAGE} of 4096 bytes, 1 workers>"
