import pathlib

import pytest

from harness.bench.quota import Groups, NoQuota, find_groups, limited, set_quota

V1 = """proc /proc proc rw,nosuid 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""
V2 = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n"


def test_groups_are_found_in_both_layouts() -> None:
    """Below the group that the process is in; version 1 where it has the controller, as version 2 has it not then."""
    assert find_groups(V1, "4:memory:/m\n3:cpu,cpuacct:/jobs/7\n0::/u\n") == Groups(pathlib.Path("/sys/fs/cgroup/cpu,cpuacct/jobs/7"), 1)
    assert find_groups(V1, "0::/\n") == Groups(pathlib.Path("/sys/fs/cgroup/cpu,cpuacct"), 1)
    assert find_groups(V2, "0::/user.slice/a:b.scope\n") == Groups(pathlib.Path("/sys/fs/cgroup/user.slice/a:b.scope"), 2)


def test_no_groups_is_told() -> None:
    """A system without them."""
    with pytest.raises(NoQuota, match="no control groups"):
        find_groups("proc /proc proc rw 0 0\n", "")


@pytest.mark.parametrize(
    ("version", "expected"),
    [(1, {"cpu.cfs_period_us": "20000", "cpu.cfs_quota_us": "5000"}), (2, {"cpu.max": "5000 20000"})],
)
def test_a_share_is_a_quota_of_a_period(tmp_path: pathlib.Path, version: int, expected: dict[str, str]) -> None:
    """A quarter of a core is a quarter of each period."""
    for name in expected:
        (tmp_path / name).write_text("")
    set_quota(tmp_path, version, 0.25)
    assert {name: (tmp_path / name).read_text() for name in expected} == expected


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_without_the_controller_is_told_and_removed(tmp_path: pathlib.Path, version: int) -> None:
    """A plain folder has no quota: nothing is limited, and nothing stays behind."""
    with pytest.raises(NoQuota, match="have no cpu"), limited([1], 0.25, Groups(tmp_path, version)):
        raise AssertionError("it is not entered")
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_cannot_be_written_is_told(tmp_path: pathlib.Path) -> None:
    """The reason is the system's."""
    with pytest.raises(NoQuota, match="No such file"), limited([1], 0.25, Groups(tmp_path / "none", 1)):
        raise AssertionError("it is not entered")
