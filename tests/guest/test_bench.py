# SPDX-License-Identifier: Apache-2.0
"""The guest of `make bench`: what it measures works, and costs the hypervisor no memory that stays."""

from __future__ import annotations

from pathlib import Path

import hypercalls as bench
import pytest
from building import need_compiler

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]
CALLS = 3000
OBJECTS_LEFT = 300
"""Far below one per call; a few are caches that fill once."""


@pytest.mark.parametrize("bits", [64, 32])
def test_every_measured_hypercall_succeeds_and_leaves_no_objects_behind(tmp_path: Path, bits: int) -> None:
    need_compiler()
    bench.build(tmp_path)
    costs = bench.measure(tmp_path / str(bits) / "bench-hypercalls", bits, CALLS)
    assert len(costs) > 40
    assert [c.name for c in costs if c.result and c.name != bench.REFUSED] == []
    assert {c.name: c.blocks for c in costs if c.blocks is None or c.blocks > OBJECTS_LEFT} == {}
    assert all(c.ns > 0 for c in costs)
