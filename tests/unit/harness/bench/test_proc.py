import os
import pathlib

import pytest

from harness.bench.proc import Stat, cpu_s, read_stat, tree, usage_of_tree

LINE = (
    "{pid} ({name}) S {parent} 1 1 0 -1 4194560 100 0 0 0 {user} {system} {waited} {waited_system} 20 0 1 0 12345 1000000 "
    "{pages} 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"
)


def write(proc: pathlib.Path, pid: int, parent: int, *, name: str = "x", **more: int) -> None:
    """Write a process as Linux would."""
    fields = {"user": 0, "system": 0, "waited": 0, "waited_system": 0, "pages": 0, **more}
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(LINE.format(pid=pid, name=name, parent=parent, **fields))


@pytest.mark.parametrize("name", ["nginx", "a (b) c", ") 9 9 9", "tmux: server"])
def test_a_line_is_read_whatever_the_name_is(name: str) -> None:
    """Spaces and brackets in a name move no field."""
    line = LINE.format(pid=7, name=name, parent=3, user=11, system=22, waited=5, waited_system=6, pages=44)
    assert read_stat(line) == Stat(parent=3, own_ticks=33, waited_ticks=11, resident_pages=44)


def test_a_tree_is_a_process_and_all_below_it() -> None:
    """Children of children belong to it, siblings and the parent do not; what is gone has no tree."""
    stats = {pid: Stat(parent, 0, 0, 0) for pid, parent in {1: 0, 2: 1, 3: 2, 4: 3, 5: 1, 6: 4}.items()}
    assert sorted(tree(2, stats)) == [2, 3, 4, 6]
    assert tree(9, stats) == []


def test_usage_is_summed_over_the_tree(tmp_path: pathlib.Path) -> None:
    """Own time, time of ended children and memory, of every process below; nothing of others."""
    write(tmp_path, 10, 1, user=100, system=50, waited=7, waited_system=3, pages=10)
    write(tmp_path, 11, 10, user=20, system=20, pages=5)
    write(tmp_path, 12, 1, user=9999, pages=9999)
    (tmp_path / "self").mkdir()
    (tmp_path / "13").mkdir()  # ended between listing and reading
    used = usage_of_tree(10, tmp_path)
    assert used.cpu_s == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))
    assert used.resident_bytes == 15 * os.sysconf("SC_PAGE_SIZE")


def test_a_process_has_its_own_time_alone(tmp_path: pathlib.Path) -> None:
    """That of its children is theirs; one that is gone is an error."""
    write(tmp_path, 10, 1, user=100, system=50, waited=7)
    assert cpu_s(10, tmp_path) == pytest.approx(150 / os.sysconf("SC_CLK_TCK"))
    with pytest.raises(OSError, match="No such file"):
        cpu_s(11, tmp_path)
