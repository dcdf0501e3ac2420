"""Build hook: compiles the request path with mypyc, where mypyc and a C compiler are at hand.

The sources stay plain Python and run as they are (editable installs, tests, machines without a compiler); a compiled wheel
does the same in half the time. `SMG_COMPILE=0` never compiles, `SMG_COMPILE=1` fails where it cannot (docs/adr/0010-mypyc.md).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = (
    "gateway/admission/admission.py",
    "gateway/admission/keyring.py",
    "gateway/admission/queue.py",
    "gateway/pipeline/*.py",
    "gateway/routing/costs.py",
    "gateway/routing/engine.py",
    "gateway/routing/hash_ring.py",
    "gateway/routing/scores.py",
    "gateway/routing/policies/*.py",
    "gateway/server/connection.py",
    "gateway/telemetry/cells.py",
    "gateway/transports/call.py",
    "gateway/transports/connection.py",
    "gateway/transports/http.py",
    "gateway/transports/mock.py",
    "gateway/workers/breaker.py",
    "gateway/workers/worker.py",
    "gateway/protocol/answer.py",
    "gateway/protocol/request.py",
    "gateway/protocol/request_id.py",
    "gateway/protocol/rewrite.py",
    "gateway/protocol/sse.py",
    "gateway/protocol/stream_events.py",
)
"""What a request passes through. Not the modules of msgspec structs (`*_wire.py`): mypyc does not keep their annotations."""


class CompileHook(BuildHookInterface[Any]):
    """Adds the compiled modules beside their sources; the interpreter takes the compiled one first."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into a folder of its own and tell hatchling what came out."""
        wanted = os.environ.get("SMG_COMPILE", "auto")
        if version == "editable" or wanted == "0":
            return
        missing = self._missing()
        if missing:
            if wanted == "1":
                raise RuntimeError(f"SMG_COMPILE=1, but {missing} is missing")
            self.app.display_warning(f"smgctl: not compiled, {missing} is missing; it runs as plain Python, at half the speed")
            return
        self._folder = Path(tempfile.mkdtemp(prefix="smgctl-build-"))
        for built, target in self._compile().items():
            build_data["force_include"][str(built)] = target
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is in the wheel by now."""
        folder = getattr(self, "_folder", None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _missing(self) -> str:
        if importlib.util.find_spec("mypyc") is None or importlib.util.find_spec("setuptools") is None:
            return "mypy[mypyc]"
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        if shutil.which(compiler) is None:
            return f"the C compiler {compiler}"
        header = Path(sysconfig.get_paths()["include"]) / "Python.h"
        return "" if header.exists() else "Python.h"

    def _compile(self) -> dict[Path, str]:
        from mypyc.build import mypycify
        from setuptools import Distribution

        root = Path(self.root)
        config = self._folder / "mypy.ini"
        config.write_text("[mypy]\nignore_missing_imports = True\nfollow_imports = silent\nallow_untyped_decorators = True\n")
        modules = sorted({str(path.relative_to(root)) for pattern in COMPILED for path in root.glob(pattern) if path.name != "__init__.py"})
        before = Path.cwd()
        os.chdir(root)
        try:
            extensions = mypycify(
                ["--config-file", str(config), "--cache-dir", str(self._folder / "cache"), *modules],
                opt_level="3",
                debug_level="0",
                multi_file=True,
                target_dir=str(self._folder / "c"),
            )
            distribution = Distribution({"name": "smgctl", "ext_modules": extensions})
            command = distribution.get_command_obj("build_ext")
            command.build_lib = str(self._folder / "lib")  # type: ignore[attr-defined]
            command.build_temp = str(self._folder / "tmp")  # type: ignore[attr-defined]
            command.parallel = os.cpu_count()  # type: ignore[attr-defined]
            command.ensure_finalized()
            command.run()
        finally:
            os.chdir(before)
        library = self._folder / "lib"
        return {built: str(built.relative_to(library)) for built in library.rglob("*.so")}
