"""Workers out of a watched file, YAML or JSON: a list of URLs, of worker sections, or of both; or such a list under `workers`.

The file is looked at by its time, size and inode, and read when one of them changed; a symbolic link that is switched (as
Kubernetes does with mounted maps) counts. A file that is missing, empty or wrong in any entry changes nothing: half a file
that is just being written must not drain workers. A file that says `[]` asks for none.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

from gateway.config.document import read
from gateway.config.mistake import dotted
from gateway.config.model import FileDiscovery, WorkerConfig
from gateway.config.shape import check_template
from gateway.config.url import problem_of
from gateway.workers.discovery.source import Hear, Voice, wrong_with

MAX_FILE_BYTES: Final = 16 << 20
LOOK_TIMEOUT_S: Final = 30.0
"""A file system that takes longer is taken as one that does not answer."""

Stamp = tuple[int, int, int]


class FileSource:
    """The workers of one file."""

    def __init__(self, config: FileDiscovery) -> None:
        self.name = f"file:{config.path}"
        self._path = config.path
        self._interval_s = config.interval_s
        self._voice = Voice(self.name)

    @property
    def problem(self) -> str:
        """Why the last look failed."""
        return self._voice.problem

    async def run(self, hear: Hear) -> None:
        """Look at the file every `interval_s`."""
        seen: Stamp | None = None
        while True:
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    stamp, text = await asyncio.to_thread(_look, self._path, seen)
            except TimeoutError:
                self._voice.fails(f"the file system did not answer within {LOOK_TIMEOUT_S:g} s")
            except (OSError, UnicodeDecodeError, ValueError) as error:
                seen = None
                self._voice.fails(_why(error))
            else:
                if text is not None:
                    seen = stamp
                    specs = parse(text, self._path)
                    if isinstance(specs, str):
                        self._voice.fails(specs)
                    else:
                        self._voice.works()
                        hear(specs)
            await asyncio.sleep(self._interval_s)


def parse(text: str, name: str) -> tuple[WorkerConfig, ...] | str:
    """Return the workers of a text, or what is wrong with it, every mistake with its line."""
    if not text.strip():
        return "the file is empty; write [] for no workers"
    document = read(text, name, list_key="workers")
    value = document.value.get("workers") if set(document.value) == {"workers"} else None
    problems = [str(mistake) for mistake in document.mistakes]
    if not problems and not isinstance(value, list):
        problems.append("must be a list of urls or of workers")
    specs: dict[str, WorkerConfig] = {}
    for index, item in enumerate(value if isinstance(value, list) else ()):
        spec, wrong = _spec(item)
        if spec is not None:
            specs.setdefault(spec.url, spec)
        where = document.origin(("workers", index))
        problems += [f"{where}: {message}" for message in wrong]
    return "; ".join(problems[:10]) if problems else tuple(specs.values())


def _spec(item: Any) -> tuple[WorkerConfig | None, list[str]]:
    if isinstance(item, str):
        item = {"url": item}
    if not isinstance(item, dict):
        return None, ["must be a url or a worker"]
    url = item.get("url")
    if not isinstance(url, str):
        return None, ["url: is missing"]
    problem = problem_of(url)
    if problem is not None:
        return None, [f"url: {problem}"]
    spec, wrong = check_template({key: value for key, value in item.items() if key != "url"})
    if spec is None or wrong:
        return None, [f"{dotted(path)}: {message}" for path, message in wrong]
    spec = spec.model_copy(update={"url": url})
    unusable = wrong_with(spec)
    return (None, [unusable]) if unusable else (spec, [])


def _look(path: str, seen: Stamp | None) -> tuple[Stamp, str | None]:
    """Return the file's stamp, and its text if that is not the one that was seen."""
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp == seen:
            return stamp, None
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    return stamp, data.decode()


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {(error.strerror or 'unknown').lower()}"
    return "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
