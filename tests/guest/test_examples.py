# SPDX-License-Identifier: Apache-2.0
"""The programs in examples/ do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from building import build_guests

from domzero.dom0.images.cache import Image

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]
EXAMPLES = Path(__file__).parents[2] / "examples"
MAX_LINES = 25


def example(*command: str, **environment: str) -> str:
    """Runs one with this Python."""
    env = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, *command], cwd=EXAMPLES, env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_small() -> None:
    sizes = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert sizes and {name: size for name, size in sizes.items() if size >= MAX_LINES} == {}


def test_a_boot_is_watched(debian: Image) -> None:
    lines = example("watch_boot.py", debian.name).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["Linux version", "Memory:", "Run /init as init process"]
    counts = [int(line[28:43].replace(",", "")) for line in lines]
    # The first two are lines of the log that the kernel prints at once when it finds its console.
    assert 0 < counts[0] <= counts[1] < counts[2]


def test_hypercalls_are_counted(tmp_path: Path) -> None:
    kernel = tmp_path / "64" / "event_channels"
    build_guests(tmp_path, str(kernel))
    out = example("count_hypercalls.py", str(kernel))
    assert "The guest ended: poweroff" in out
    assert "sched_op SCHEDOP_shutdown" in out
    assert "event_channel_op EVTCHNOP_send" in out and "event_channel_op EVTCHNOP_send failed" in out


def test_a_page_table_is_drawn(shell: str) -> None:
    out = example("page_table.py", shell)
    assert "ffffffff80000000 L1[0x000]" in out
    assert out.count("L4[0x1ff]") == 2


def test_a_unikernel_is_tested(shell: str) -> None:
    out = example("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_unikernel.py", UNIKERNEL=shell)
    assert "2 passed" in out
