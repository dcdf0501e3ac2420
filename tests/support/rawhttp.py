"""A client that shows what came over a socket, also where it is no good HTTP: for tests of broken answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit


class Ended(StrEnum):
    """How a connection stood when reading stopped."""

    CLOSED = "closed"
    """FIN, or as many bytes as were promised."""
    RESET = "reset"
    SILENT = "silent"
    """Still open, nothing came for a while."""
    REFUSED = "refused"
    """There was nobody to connect to."""


@dataclass(frozen=True)
class Seen:
    """What a client saw of one answer."""

    data: bytes
    ended: Ended
    seconds: float

    @property
    def head(self) -> str:
        """Status line and header lines."""
        return self.data.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.head.split(" ")[1])

    def header(self, name: str) -> str | None:
        """Return the first header of this name."""
        for line in self.head.split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name.lower():
                return value.strip()
        return None

    @property
    def rest(self) -> bytes:
        """Everything after the head."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def chunks(self) -> tuple[list[bytes], bool]:
        """The whole chunks of a chunked body, and whether its last chunk came."""
        found: list[bytes] = []
        left = self.rest
        while left:
            size_line, mark, left = left.partition(b"\r\n")
            if not mark:
                return found, False
            size = int(size_line, 16)
            if size == 0:
                return found, left == b"\r\n"
            if len(left) < size + 2:
                return found, False
            found.append(left[:size])
            left = left[size + 2 :]
        return found, False


async def ask(
    url: str, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None, quiet_s: float = 0.4
) -> Seen:
    """Send a request with `connection: close` and read until the end, a reset, or `quiet_s` of silence."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    started = loop.time()
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except ConnectionRefusedError:
        return Seen(b"", Ended.REFUSED, loop.time() - started)
    content = b"" if body is None else json.dumps(body).encode()
    lines = {"host": parts.netloc, "connection": "close", "content-length": str(len(content)), **(headers or {})}
    verb = method or ("GET" if body is None else "POST")
    head = f"{verb} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    data = b""
    try:
        writer.write(head.encode() + content)
        while True:
            piece = await asyncio.wait_for(reader.read(65_536), quiet_s)
            if not piece:
                return Seen(data, Ended.CLOSED, loop.time() - started)
            data += piece
    except ConnectionResetError:
        return Seen(data, Ended.RESET, loop.time() - started)
    except TimeoutError:
        return Seen(data, Ended.SILENT, loop.time() - started)
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionResetError:
            pass
