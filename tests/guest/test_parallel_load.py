# SPDX-License-Identifier: Apache-2.0
"""Debian with several vCPUs, busy on all of them, makes no mistakes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import parallel_load
import pytest

from domzero.dom0.images.cache import Image

SECONDS = int(os.environ.get("DOMZERO_LOAD_SECONDS", "60"))
pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(3 * SECONDS + 300)]


@pytest.mark.parametrize("vcpus", [4])
def test_shells_on_all_vcpus_get_right_answers_for_as_long_as_they_run(
    debian: Image, tmp_path: Path, vcpus: int
) -> None:
    ramdisk = tmp_path / "load.cpio.gz"
    parallel_load.build(ramdisk, debian)
    result = parallel_load.run(debian.kernel, ramdisk, vcpus=vcpus, seconds=SECONDS, limit=3 * SECONDS + 200)
    assert result.returncode == 0, (result.stdout[-3000:], result.stderr[-2000:])
    assert f"LOAD-CPUS {vcpus}" in result.stdout
    assert "LOAD-WRONG" not in result.stdout
    assert "LOAD-KERNEL-COMPLAINS" not in result.stdout
    rounds = re.search(r"LOAD-ROUNDS ([\d ]+)", result.stdout)
    assert rounds is not None and all(int(count) > 0 for count in rounds[1].split()), result.stdout[-1000:]
