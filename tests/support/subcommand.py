"""`smgctl` as a process, for tests that look at a gateway from outside."""

from __future__ import annotations

import asyncio
import os
import sys


async def smgctl(url: str, *arguments: str, api_key: str | None = None) -> tuple[int, str]:
    """Run a command against a gateway; returns exit code and everything it printed."""
    command = [sys.executable, "-m", "smgctl", *arguments, "--url", url]
    env = None if api_key is None else {**os.environ, "SMG_API_KEY": api_key}
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=env)
    printed, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, printed.decode()
