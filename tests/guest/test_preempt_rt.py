# SPDX-License-Identifier: Apache-2.0
"""Debian's kernel with PREEMPT_RT: its interrupt handlers are threads, and answers must not come too early for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from building import Run

from domzero.dom0.images.apt import Apt
from domzero.dom0.images.cache import Image, cache_dir
from domzero.dom0.images.deb import extract
from domzero.errors import DomzeroError

pytestmark = [pytest.mark.guest, pytest.mark.slow]


@pytest.fixture(scope="module")
def rt_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel that `linux-image-rt-amd64` depends on."""
    directory = tmp_path_factory.mktemp("rt")
    try:
        apt = Apt(cache_dir() / "apt", lambda text: None)
        meta = apt.show("linux-image-rt-amd64")
        name = re.search(r"\blinux-image-\d[^\s,|(]*", meta.depends) if meta else None
        package = apt.show(name.group()) if name else None
        if package is None:
            pytest.skip("the package lists have no linux-image-rt-amd64")
        kernel = extract(apt.download(package, directory), {"kernel": "boot/vmlinuz-"})["kernel"][1]
    except DomzeroError as error:
        pytest.skip(f"no kernel with PREEMPT_RT: {error}")
    path = directory / "vmlinuz"
    path.write_bytes(kernel)
    return path


@pytest.mark.parametrize("boot", range(3))
def test_a_preempt_rt_kernel_comes_to_its_shell(rt_kernel: Path, debian: Image, domzero_run: Run, boot: int) -> None:
    result = domzero_run(
        *("--kernel", str(rt_kernel), "--ramdisk", str(debian.ramdisk), "--cmdline", "console=hvc0"),
        *("--timeout", "200"),
        stdin=b"uname -v\npoweroff\n",
        limit=240,
    )
    assert result.returncode == 0, result.stdout[-2000:].decode(errors="replace")
    assert b"PREEMPT_RT" in result.stdout
