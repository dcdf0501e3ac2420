"""Compares gateways: what each costs a request, side by side before the same upstreams."""

from harness.bench.contest import Plan as Plan
from harness.bench.contest import compare as compare
from harness.bench.report import Comparison as Comparison
from harness.bench.scaling import Scaling as Scaling
from harness.bench.scaling import measure_scaling as measure_scaling
