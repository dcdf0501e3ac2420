"""Writes Prometheus text as prometheus-client does: sorted labels, floats, `_created` gauges where an engine exports them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

Labels = Mapping[str, str]
NO_LABELS: Labels = {}


class Histogram:
    """Counts of observations by bucket; constant memory."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.sum = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """Observations so far."""
        return sum(self._counts)

    def cumulative(self) -> list[tuple[str, int]]:
        """Return the upper bounds with the observations up to each, `+Inf` last."""
        rows: list[tuple[str, int]] = []
        total = 0
        for bound, count in zip((*self.bounds, math.inf), self._counts, strict=True):
            total += count
            rows.append((number(bound), total))
        return rows


def number(value: float) -> str:
    """Return a value as Prometheus writes it."""
    if value == math.inf:
        return "+Inf"
    return "NaN" if math.isnan(value) else repr(float(value))


class Exposition:
    """A text under construction. `base` labels are on every sample of a family unless it is written bare."""

    def __init__(self, base: Labels, created_s: float | None) -> None:
        self._base = dict(base)
        self._created_s = created_s
        """Start time for `_created` gauges; None leaves them out (an exporter in multiprocess mode has none)."""
        self._lines: list[str] = []

    def gauge(self, name: str, text: str, samples: Iterable[tuple[Labels, float]], *, bare: bool = False) -> None:
        """Write a gauge."""
        self._family(name, "gauge", text)
        for labels, value in samples:
            self._sample(name, labels, value, bare)

    def counter(self, name: str, text: str, samples: Iterable[tuple[Labels, float]], *, bare: bool = False) -> None:
        """Write a counter; `name` ends in `_total`."""
        found = list(samples)
        self._family(name, "counter", text)
        for labels, value in found:
            self._sample(name, labels, value, bare)
        self._created(name.removesuffix("_total"), text, (labels for labels, _ in found), bare)

    def summary(self, name: str, text: str, samples: Iterable[tuple[Labels, int, float]], *, bare: bool = False) -> None:
        """Write a summary without quantiles, from count and sum."""
        found = list(samples)
        self._family(name, "summary", text)
        for labels, count, total in found:
            self._sample(f"{name}_count", labels, count, bare)
            self._sample(f"{name}_sum", labels, total, bare)
        self._created(name, text, (labels for labels, _, _ in found), bare)

    def histogram(self, name: str, text: str, samples: Iterable[tuple[Labels, Histogram]], *, bare: bool = False) -> None:
        """Write a histogram."""
        found = list(samples)
        self._family(name, "histogram", text)
        for labels, histogram in found:
            for bound, count in histogram.cumulative():
                self._sample(f"{name}_bucket", {**labels, "le": bound}, count, bare)
            self._sample(f"{name}_count", labels, histogram.count, bare)
            self._sample(f"{name}_sum", labels, histogram.sum, bare)
        self._created(name, text, (labels for labels, _ in found), bare)

    def text(self) -> str:
        """Return what was written."""
        return "\n".join(self._lines) + "\n"

    def _family(self, name: str, kind: str, text: str) -> None:
        self._lines.append(f"# HELP {name} {text}")
        self._lines.append(f"# TYPE {name} {kind}")

    def _created(self, name: str, text: str, labels: Iterable[Labels], bare: bool) -> None:
        if self._created_s is not None:
            self.gauge(f"{name}_created", text, ((found, self._created_s) for found in labels), bare=bare)

    def _sample(self, name: str, labels: Labels, value: float, bare: bool) -> None:
        pairs = dict(labels) if bare else {**self._base, **labels}
        inner = ",".join(f'{key}="{escape(pairs[key])}"' for key in sorted(pairs))
        self._lines.append(f"{name}{{{inner}}} {number(value)}" if inner else f"{name} {number(value)}")


def escape(value: str) -> str:
    """Return a label value with backslash, quote and newline escaped."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
