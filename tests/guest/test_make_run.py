# SPDX-License-Identifier: Apache-2.0
"""`make run`'s demonstration, whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.guest
@pytest.mark.timeout(600)
def test_debian_boots_answers_and_shuts_down_over_http() -> None:
    pytest.importorskip("domzero._machine", reason="the machine is not compiled", exc_type=ImportError)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    fetched = subprocess.run(
        [sys.executable, "-m", "domzero", "image", "fetch", "debian"], env=env, capture_output=True, text=True
    )
    if fetched.returncode != 0:
        pytest.skip(f"no image: {fetched.stderr.strip()}")
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "make_run.py")],
        env=env,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=500,
    )
    assert result.returncode == 0, result.stderr + result.stdout[-2000:]
    last = result.stdout.splitlines()[-1]
    assert "booted as PV domain 1 to a shell" in last and "shut down cleanly" in last
