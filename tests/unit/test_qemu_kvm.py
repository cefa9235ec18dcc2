# SPDX-License-Identifier: Apache-2.0
"""KVM, as far as it goes on any host that has it: a BIOS needs no long mode, with which some fail."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from vga_text import VGABIOS, screen_text

from domzero.dom0.config import DomainConfig
from domzero.dom0.hvmspec import DomainType, HvmOptions
from domzero.dom0.messages import Picture, TakePicture
from domzero.dom0.qemu import opened
from domzero.dom0.qemu.handle import QemuHandle
from domzero.dom0.qemu.program import XEN_SINCE, Program, find_qemu
from domzero.dom0.qemu.qmp import QmpError
from domzero.dom0.qemu.trial import XEN, Accelerator, _tried, choose
from domzero.dom0.xenstore import Store
from domzero.errors import ConfigError, DomzeroError

pytestmark = [
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here"),
    pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened"),
]


@pytest.mark.slow
@pytest.mark.skipif(not VGABIOS.exists(), reason="the font that reads screens is not here (seabios)")
def test_a_bios_runs_with_kvm_in_its_confinement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "choose", lambda _: Accelerator("kvm", "the test's"))
    hvm = HvmOptions(boot="c")
    config = DomainConfig(kernel="", name="kvm", type=DomainType.HVM, memory_mib=64, cpu="v1", vifs=[], hvm=hvm)

    async def seen(handle: QemuHandle) -> str:
        fd = os.memfd_create("picture")
        try:
            picture = await handle.request(TakePicture(), Picture, [fd])
            return screen_text(os.pread(fd, picture.bytes, 0))
        finally:
            os.close(fd)

    async def scene() -> None:
        handle = QemuHandle(Store(), 1, on_console=lambda _: None, on_event=lambda _: None, on_gone=lambda _: None)
        try:
            try:
                await handle.start(config)
            except DomzeroError as error:
                pytest.skip(f"KVM does not start here: {error}")
            assert handle.engine == "kvm"
            assert "/dev/kvm" in [os.readlink(fd) for fd in Path(f"/proc/{handle.pid}/fd").iterdir()]
            while "No bootable device" not in await seen(handle):
                await asyncio.sleep(0.1)
            with suppress(QmpError):  # older kernels do not count
                assert await handle.kvm_exits() > 100
        finally:
            await handle.stop()

    asyncio.run(scene())


def test_what_a_trial_has_found_is_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    program = find_qemu()
    fault, xen = _tried(program)
    assert not (xen and program.version < XEN_SINCE)
    if fault:
        with pytest.raises(ConfigError, match="KVM cannot be used here"):
            choose("kvm")
        assert (choose("auto").name, choose("auto").why) == ("tcg", f"no KVM: {fault}")
    else:
        assert choose("auto").name == choose("kvm").name == "kvm" and choose("auto").xen is xen


@pytest.mark.parametrize(
    ("version", "works", "xen"), [((8, 1), True, True), ((7, 2), True, False), ((9, 0), False, False)]
)
def test_guests_see_xen_where_qemu_and_the_kernel_emulate_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: tuple[int, int], works: bool, xen: bool
) -> None:
    path = shutil.which("qemu-system-x86_64") or ""
    tried: list[str] = []

    def trial(_: Program, options: str = "") -> str:
        tried.append(options)
        return "" if works else "a guest runs wrongly with it"

    monkeypatch.setattr("domzero.dom0.qemu.trial.try_kvm", trial)
    monkeypatch.setattr("domzero.dom0.qemu.trial._known", {})
    monkeypatch.setattr("domzero.dom0.qemu.trial.private_directory", lambda _: tmp_path)
    fault, found = _tried(Program(path, version))
    assert (not fault, found) == (works, xen)
    assert tried == ["", *([XEN] if xen else [])]
