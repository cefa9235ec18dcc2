# SPDX-License-Identifier: Apache-2.0
"""The command line of a QEMU: each key of a configuration is in it, nothing is opened by name, and QEMU takes it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from domzero.dom0.config import DomainConfig
from domzero.dom0.diskspec import DiskFile, DiskFormat
from domzero.dom0.hvmspec import NIC_MODELS, DiskBus, DomainType, Firmware, HvmOptions, Screen
from domzero.dom0.open_files import OpenDisk
from domzero.dom0.qemu import devices as devices_of
from domzero.dom0.qemu.command import SANDBOX, Files, command_line
from domzero.dom0.qemu.qmp import QmpError
from domzero.dom0.qemu.trial import XEN, Accelerator
from domzero.dom0.wire import Wire
from domzero.errors import ConfigError

TCG = Accelerator("tcg", "asked for")
Build = Callable[..., list[str]]


@pytest.fixture
def pairs() -> Iterator[list[socket.socket]]:
    """Both ends of a monitor, and of a console."""
    ends = [*socket.socketpair(), *socket.socketpair()]
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def files(pairs: list[socket.socket]) -> Iterator[Files]:
    """A monitor, a console, and what `build` adds."""
    found = Files(pairs[1].fileno(), pairs[3].fileno())
    yield found
    for wire in found.wires:
        wire.close()
    for disk in found.disks:
        disk.close()


@pytest.fixture
def build(files: Files, tmp_path: Path) -> Build:
    """Builds a command line with a file for each disk, and a socket for each interface."""

    def build(*, accelerator: Accelerator = TCG, type: DomainType = DomainType.HVM, **fields: Any) -> list[str]:
        config = DomainConfig(kernel=fields.pop("kernel", ""), name="x", type=type, **fields)
        image = tmp_path / "image"
        image.write_bytes(bytes(1 << 20))
        for spec in config.disk_specs:
            fd = os.open(image, os.O_RDWR if spec.writable else os.O_RDONLY)
            files.disks.append(OpenDisk((DiskFile(DiskFormat.RAW),), fds=[fd]))
        for _ in config.vif_specs:
            ours, theirs = socket.socketpair()
            ours.close()
            files.wires.append(Wire(theirs.detach()))
        return command_line(config, accelerator, files)

    return build


def values(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def devices(words: list[str]) -> dict[str, dict[str, Any]]:
    found = [json.loads(value) for value in values(words, "-device")]
    return {each.get("id", each["driver"]): each for each in found}


def test_processor_memory_and_confinement(build: Build) -> None:
    words = build(memory_mib=100, maxmem_mib=200, vcpus=2, cpu="v2")
    assert values(words, "-m") == ["size=200M"]
    assert values(words, "-smp") == ["cpus=1,maxcpus=2,sockets=1,cores=2,threads=1"]
    assert devices(words)["cpu1"]["driver"] == "Nehalem-x86_64-cpu"
    assert values(words, "-cpu") == ["Nehalem"]
    assert values(words, "-sandbox") == [SANDBOX]
    assert values(words, "-accel")[0].startswith("tcg,")
    assert {"-nodefaults", "-no-user-config", "-S"} <= set(words)
    kvm = build(accelerator=Accelerator("kvm", "auto", xen=True))
    assert values(kvm, "-accel") == [f"kvm,{XEN}"] and values(kvm, "-cpu") == ["host"]
    assert values(build(accelerator=Accelerator("kvm", "auto")), "-accel") == ["kvm"]


def test_nothing_is_opened_by_its_name(build: Build, tmp_path: Path) -> None:
    words = build(disks=[f"{tmp_path}/secret,raw,hda", f"{tmp_path}/cd,raw,hdc,cdrom"], vifs=["bridge=lan"])
    assert str(tmp_path) not in " ".join(words)
    nodes = [json.loads(value) for value in values(words, "-blockdev")]
    assert all(each["filename"].startswith("/dev/fdset/") for each in nodes if "filename" in each)
    assert {each["node-name"]: each["read-only"] for each in nodes if "filename" in each} == {
        "disk768-0-file": False,
        "disk5632-0-file": True,
    }


@pytest.mark.parametrize(
    ("hdtype", "place"),
    [
        (DiskBus.IDE, {"driver": "ide-hd", "bus": "ide.0", "unit": 1}),
        (DiskBus.AHCI, {"driver": "ide-hd", "bus": "ahci.1", "unit": 0}),
        (DiskBus.VIRTIO, {"driver": "virtio-blk-pci", "serial": "hdb"}),
    ],
)
def test_disks_have_the_places_of_their_names(build: Build, hdtype: DiskBus, place: dict[str, Any]) -> None:
    words = build(hvm=HvmOptions(hdtype=hdtype), disks=["/a,raw,hdb", "/b,raw,sdc", "/c,raw,xvda", "/d,raw,hdd,cdrom"])
    found = devices(words)
    assert place.items() <= found["disk832"].items()
    assert found["disk2080"] | {"bus": "ahci.2"} == found["disk2080"]
    assert found["disk51712"]["driver"] == "virtio-blk-pci"
    assert found["disk5696"]["driver"] == "ide-cd"
    assert ("ahci" in found) is True


def test_too_many_disks_for_a_bus_are_refused(build: Build) -> None:
    with pytest.raises(ConfigError, match="7 disks for 6 places of ahci"):
        build(disks=[f"/x,raw,sd{letter}" for letter in "abcdefg"])


@pytest.mark.parametrize(
    ("boot", "order"),
    [("cdn", ["disk768", "disk5632", "vif0"]), ("dc", ["disk5632", "disk768"]), ("n", ["vif0"]), ("acd", ["disk768"])],
)
def test_what_is_tried_first_is_what_boot_says(build: Build, boot: str, order: list[str]) -> None:
    words = build(hvm=HvmOptions(boot=boot), disks=["/a,raw,hda", "/b,raw,hdc,cdrom"], vifs=["bridge=lan"])
    found = {each["bootindex"]: name for name, each in devices(words).items() if "bootindex" in each}
    assert [found[index] for index in sorted(found)][: len(order)] == order


@pytest.mark.parametrize("model", sorted(NIC_MODELS))
def test_each_model_of_an_interface(build: Build, model: str) -> None:
    words = build(vifs=[f"bridge=lan,model={model},mac=00:16:3e:01:02:03"])
    assert {"driver": NIC_MODELS[model], "mac": "00:16:3e:01:02:03"}.items() <= devices(words)["vif0"].items()
    (netdev,) = [json.loads(value) for value in values(words, "-netdev")]
    assert netdev["type"] == "stream" and netdev["addr"]["type"] == "fd"


def test_screen_pointer_clock_and_acpi(build: Build) -> None:
    plain = devices(build())
    assert plain["screen"] == {"driver": "VGA", "id": "screen", "vgamem_mb": 16} and "tablet" in plain
    hvm = HvmOptions(vga=Screen.CIRRUS, videoram_mib=8, tablet=False, acpi=False, hpet=False)
    words = build(hvm=hvm)
    assert devices(words)["screen"] == {"driver": "cirrus-vga", "id": "screen", "vgamem_mb": 8}
    assert "tablet" not in devices(words)
    assert "acpi=off" in values(words, "-machine")[0] and "hpet=off" in values(words, "-machine")[0]
    assert "screen" not in devices(build(hvm=HvmOptions(vga=Screen.NONE)))
    assert values(words, "-rtc") == ["base=utc"]


def test_a_kernel_is_started_instead_of_disks(build: Build, files: Files) -> None:
    files.kernel, files.ramdisk = 70, 71
    words = build(type=DomainType.PVH, kernel="/k", ramdisk="/r", cmdline="a=b,c", disks=["/a,raw,xvda"])
    assert values(words, "-kernel") == ["/proc/self/fd/70"] and values(words, "-initrd") == ["/proc/self/fd/71"]
    assert values(words, "-append") == ["a=b,c"]
    assert not any("bootindex" in each for each in devices(words).values()) and "screen" not in devices(words)


def test_uefi_is_two_flashes_of_which_one_is_written(build: Build, files: Files, tmp_path: Path) -> None:
    (tmp_path / "fw").write_bytes(bytes(4096))
    with (tmp_path / "fw").open("rb") as code, (tmp_path / "fw").open("r+b") as variables:
        files.firmware, files.variables = code.fileno(), variables.fileno()
        words = build(hvm=HvmOptions(firmware=Firmware.UEFI))
    assert values(words, "-machine")[1:] == ["pflash0=flash0", "pflash1=flash1"]
    nodes = {each["node-name"]: each["read-only"] for each in map(json.loads, values(words, "-blockdev"))}
    assert nodes == {"flash0": True, "flash1": False}


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here")
def test_qemu_takes_all_of_it(build: Build, files: Files, pairs: list[socket.socket]) -> None:
    vifs = [f"bridge=lan,model={model}" for model in ("e1000", "e1000e", "rtl8139", "pcnet", "ne2k_pci", "vmxnet3")]
    disks = ["/a,raw,hda", "/b,raw,hdc,cdrom", "/c,raw,sda", "/d,raw,xvda"]
    words = build(vifs=[*vifs, "bridge=lan,model=virtio"], disks=disks, memory_mib=64, vcpus=2)
    program = ["qemu-system-x86_64", *words]
    process = subprocess.Popen(
        program, pass_fds=files.numbers(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    pairs[1].close()
    pairs[0].settimeout(60)
    with process:
        said = pairs[0].recv(4096)
        process.kill()
        assert process.stderr is not None
        assert b'"QMP"' in said, process.stderr.read()


class Tray:
    """A machine whose guest closes its tray some times, between two commands."""

    def __init__(self, times: int) -> None:
        self.qmp, self._times = self, times
        self.asked: list[str] = []

    async def ask(self, command: str, arguments: dict[str, Any]) -> None:
        self.asked.append(command)
        if command == "blockdev-remove-medium" and self._times:
            self._times -= 1
            raise QmpError("Tray of device 'disk5632' is not open")


def test_a_tray_that_the_guest_closes_is_opened_again() -> None:
    tray: Any = Tray(3)
    asyncio.run(devices_of.ask_with_open_tray(tray, "blockdev-remove-medium", {"id": "disk5632"}))
    assert tray.asked == ["blockdev-open-tray", "blockdev-remove-medium"] * 4
    shut: Any = Tray(99)
    with pytest.raises(QmpError):
        asyncio.run(devices_of.ask_with_open_tray(shut, "blockdev-remove-medium", {"id": "disk5632"}))
