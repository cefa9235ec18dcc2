"""The guest of `make bench`: what it measures works, and costs the hypervisor no memory that stays."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]
CALLS = 3000
OBJECTS_LEFT = 300
"""Far below one per call; a few are caches that fill once."""


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    if shutil.which("gcc") is None or not Path("/usr/include/xen/xen.h").exists():
        pytest.skip("no C compiler or no Xen headers (libxen-dev)")
    spec = importlib.util.spec_from_file_location("bench_hypercalls", ROOT / "benchmarks" / "hypercalls.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("bits", [64, 32])
def test_every_measured_hypercall_succeeds_and_leaves_no_objects_behind(
    bench: ModuleType, tmp_path: Path, bits: int
) -> None:
    bench.build(tmp_path)
    costs = bench.measure(tmp_path / str(bits) / "bench-hypercalls", bits, CALLS)
    assert len(costs) > 40
    assert [c.name for c in costs if c.result and c.name != bench.REFUSED] == []
    assert {c.name: c.blocks for c in costs if c.blocks is None or c.blocks > OBJECTS_LEFT} == {}
    assert all(c.ns > 0 for c in costs)
