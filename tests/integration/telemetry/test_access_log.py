"""The access log of a process that ends is complete."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
from gateway.telemetry.access_log import AccessLog
log = AccessLog()
for number in range(2000):
    log.write(request_id=str(number), path="/v1/chat/completions", model="m", status=200, code="", source="", worker="http://w:1",
              attempts=1, stream=False, usage=None, ttft_s=None, duration_s=0.1, tenant="", bytes_out=10)
log.close()
"""


def test_the_end_of_a_process_writes_what_is_left() -> None:
    """A process that closes its log without waiting and ends loses no line."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, timeout=60)
    assert [json.loads(line)["request_id"] for line in done.stdout.splitlines()] == [str(number) for number in range(2000)]
    assert done.stderr == b""
