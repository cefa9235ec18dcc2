# SPDX-License-Identifier: Apache-2.0
"""Guests to run: the small shell of guests/shell, and Debian's kernel with its initramfs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built")

from building import COMMAND, Run, build_shell
from compat_program import Compat, with_compat

from domzero.dom0.images.cache import Image, ImageCache
from domzero.errors import DomzeroError


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The kernel of guests/shell: a guest that does what it is told on its console."""
    return build_shell(tmp_path_factory.mktemp("shell"))


@pytest.fixture(scope="session")
def debian() -> Image:
    """Debian's newest kernel with the initramfs of this tree, from the cache or fetched; else what the cache has."""
    from domzero.dom0.images import fetch_debian

    cache = ImageCache()
    try:
        return fetch_debian(lambda text: None, cache)[0]
    except DomzeroError as error:
        try:
            return cache.find("debian")
        except DomzeroError:
            pytest.skip(f"no Debian kernel: {error}")


@pytest.fixture(scope="session")
def compat(debian: Image, tmp_path_factory: pytest.TempPathFactory) -> Compat:
    """Debian with a 32-bit program."""
    return with_compat(debian, tmp_path_factory.mktemp("compat"))


@pytest.fixture
def domzero_run() -> Run:
    """Runs `domzero run` with arguments and input, and gives its output."""

    def run(*arguments: str, stdin: bytes = b"", limit: float = 120) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*COMMAND, "run", *arguments], input=stdin, capture_output=True, timeout=limit)

    return run


@pytest.fixture(scope="session")
def grub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of GRUB's PV kernels: installed, or from the machine's package mirror."""
    installed = Path("/usr/lib/grub-xen")
    if (installed / "grub-x86_64-xen.bin").exists():
        return installed
    from domzero.dom0.images.apt import Apt
    from domzero.dom0.images.cache import cache_dir
    from domzero.dom0.images.deb import extract

    directory = tmp_path_factory.mktemp("grub")
    try:
        apt = Apt(cache_dir() / "apt", lambda text: None)
        package = apt.show("grub-xen-host")
        if package is None:
            pytest.skip("the package lists have no grub-xen-host")
        names = ("grub-x86_64-xen.bin", "grub-i386-xen.bin", "grub-i386-xen_pvh.bin")
        files = extract(apt.download(package, directory), {name: f"usr/lib/grub-xen/{name}" for name in names})
    except DomzeroError as error:
        pytest.skip(f"no grub-xen-host: {error}")
    for name, (_, data) in files.items():
        (directory / name).write_bytes(data)
    return directory
