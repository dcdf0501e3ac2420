"""A watched file, with real writers of all habits."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.config.model import FileDiscovery
from gateway.workers.discovery import make
from tests.support.discovery import listening


def config(path: Path) -> FileDiscovery:
    return FileDiscovery(kind="file", path=str(path), interval_s=0.02)


async def test_a_file_is_followed(tmp_path: Path) -> None:
    """Written in place, replaced by a rename, emptied by `[]`: each is heard once, in order."""
    path = tmp_path / "workers.yaml"
    path.write_text("- http://a:1\n")
    async with listening(make(config(path))) as ear:
        await ear.until("http://a:1")
        path.write_text("- http://a:1\n- http://b:2\n")
        await ear.until("http://a:1", "http://b:2")
        other = tmp_path / "new"
        other.write_text('["http://c:3"]')
        other.rename(path)
        await ear.until("http://c:3")
        path.write_text("[]")
        await ear.until()
        assert len(ear.said) == 4
        assert ear.source.problem == ""


@pytest.mark.parametrize("broken", ["", "- http://b:2\n- htt", "- [", "- url: http://b:2\n  cots: 1\n", "\udcff"])
async def test_a_broken_file_keeps_the_last_good_list_and_says_so(tmp_path: Path, broken: str) -> None:
    """Half-written, empty, not YAML, a wrong key, not text: nothing changes but the problem that an operator sees."""
    path = tmp_path / "workers.yaml"
    path.write_text("- http://a:1\n")
    async with listening(make(config(path))) as ear:
        await ear.until("http://a:1")
        path.write_bytes(broken.encode("utf-8", "surrogateescape"))
        async with asyncio.timeout(5):
            while not ear.source.problem:
                await asyncio.sleep(0.01)
        assert ear.said == [ear.said[0]]
        path.write_text("- http://b:2\n")
        await ear.until("http://b:2")
        assert ear.source.problem == ""


async def test_a_file_that_comes_and_goes(tmp_path: Path) -> None:
    """A missing file is a problem and no empty list, before its first appearance and after."""
    path = tmp_path / "workers.yaml"
    async with listening(make(config(path))) as ear:
        await ear.until_problem("cannot be read: no such file")
        assert ear.said == []
        path.write_text("- http://a:1\n")
        await ear.until("http://a:1")
        path.unlink()
        await ear.until_problem("cannot be read: no such file")
        assert ear.urls == ["http://a:1"]
        path.mkdir()
        await ear.until_problem("cannot be read: is a directory")


async def test_a_symbolic_link_that_is_switched_is_heard(tmp_path: Path) -> None:
    """Kubernetes updates a mounted map by switching a link to a folder; times and sizes may stay the same."""
    for name, url in (("one", "http://a:1"), ("two", "http://b:1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "workers.yaml").write_text(f"- {url}\n")
        os.utime(tmp_path / name / "workers.yaml", (1_000_000, 1_000_000))
    link = tmp_path / "data"
    link.symlink_to("one")
    async with listening(make(config(link / "workers.yaml"))) as ear:
        await ear.until("http://a:1")
        switched = tmp_path / "switched"
        switched.symlink_to("two")
        switched.rename(link)
        await ear.until("http://b:1")
