"""Whether the request path under test is the compiled one, and a mark for tests that cannot run on it."""

from __future__ import annotations

import pytest

from gateway.pipeline import run

COMPILED = not str(run.__file__).endswith(".py")
"""`make test` runs part of the suite on the compiled package as well (docs/adr/0010-mypyc.md)."""

interpreted_only = pytest.mark.skipif(COMPILED, reason="it patches, or refers weakly to, what a compiled class keeps closed")
