import pytest

from harness.bench import generator
from harness.bench.generator import LoadFailed, choose, read_wrk

GOOD = """Running 5s test @ http://127.0.0.1:18320/v1/chat/completions
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.13ms    1.03ms  22.95ms   89.61%
    Req/Sec    30.76k     2.56k   35.02k    76.00%
  Latency Distribution
     50%  890.00us
     75%    2.42ms
     90%    2.97ms
     99%    1.25s 
  153017 requests in 5.01s, 103.61MB read
Requests/sec:  30542.71
Transfer/sec:     20.68MB
"""
BAD = """  Latency Distribution
     50%    1.00ms
     99%    1.00ms
  20 requests in 500.00ms, 1.00MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 7
Requests/sec:  40.00
"""


def test_what_wrk_saw_is_read() -> None:
    """Counts, and times in whatever unit."""
    seen = read_wrk(GOOD)
    assert (seen.requests, seen.errors, seen.seconds) == (153017, 0, pytest.approx(5.01))
    assert (seen.p50_ms, seen.p99_ms) == (pytest.approx(0.89), pytest.approx(1250.0))
    assert seen.rps == pytest.approx(153017 / 5.01)


def test_all_errors_of_wrk_count() -> None:
    """Refused, broken, timed out and wrong answers."""
    seen = read_wrk(BAD)
    assert (seen.errors, seen.seconds) == (1 + 2 + 3 + 4 + 7, pytest.approx(0.5))


def test_what_is_not_wrk_is_refused() -> None:
    """Its words are passed on."""
    with pytest.raises(LoadFailed, match="unable to connect"):
        read_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_wrk_is_taken_where_it_can_keep_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows whole seconds only, and may not be installed."""
    monkeypatch.setattr(generator.shutil, "which", lambda name: f"/bin/{name}")
    assert (choose(5.0).wrk, choose(0.5).wrk) == ("/bin/wrk", None)
    monkeypatch.setattr(generator.shutil, "which", lambda name: None)
    assert choose(5.0).wrk is None
