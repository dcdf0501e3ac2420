"""The header section of an HTTP/1.1 message in its strictest reading, as a pattern for the fast paths of both connections."""

from __future__ import annotations

from typing import Final

FIELD_LINES: Final = rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)+)\r\n"
"""One token, a colon, visible text and CRLF a line, no folds, then the empty line (RFC 9112, 5); its one group is the lines."""
