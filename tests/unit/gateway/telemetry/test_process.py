"""A process reads itself."""

from __future__ import annotations

import os

import psutil

from gateway.telemetry.process import ProcessProbe


def test_a_probe_agrees_with_the_system() -> None:
    """Memory and descriptors are those that another program sees."""
    other = psutil.Process()
    reading = ProcessProbe(2).read()
    assert reading.index == 2
    assert reading.pid == os.getpid()
    assert abs(reading.memory_bytes - other.memory_info().rss) < 16 << 20
    assert reading.open_fds == other.num_fds() - 1, "psutil counts the one that it reads with"
    assert reading.cpu_s > 0


def test_an_opened_descriptor_counts() -> None:
    """One more open file is one more descriptor."""
    probe = ProcessProbe(0)
    before = probe.read().open_fds
    read, write = os.pipe()
    try:
        assert probe.read().open_fds == before + 2
    finally:
        os.close(read)
        os.close(write)
