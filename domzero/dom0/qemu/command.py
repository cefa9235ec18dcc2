# SPDX-License-Identifier: Apache-2.0
"""The command line of a QEMU: a machine as a configuration asks for it, out of files that are open already.

QEMU opens nothing of the host's but its own firmware: disks come as descriptors (`-add-fd`), networks, consoles and its
monitor as connected sockets. `-nodefaults` and `-no-user-config`: there is what is named here, and nothing else.
"""

from __future__ import annotations

import datetime
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domzero.dom0.config import DomainConfig
from domzero.dom0.diskspec import DiskFormat, DiskSpec
from domzero.dom0.hvmspec import DEFAULT_MODEL, NIC_MODELS, DiskBus, DomainType, Firmware, Screen
from domzero.dom0.open_files import OpenDisk
from domzero.dom0.qemu.trial import XEN, Accelerator
from domzero.dom0.vifspec import VifSpec, mac_text
from domzero.dom0.wire import Wire
from domzero.errors import ConfigError

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
IDE_MAX = 4
AHCI_MAX = 6
TCG_CODE_MIB = 128
"""Of translated code: QEMU's own default is a gigabyte."""
DRIVERS = {
    DiskFormat.RAW: "raw",
    DiskFormat.QCOW2: "qcow2",
    DiskFormat.VHD: "vpc",
    DiskFormat.VHDX: "vhdx",
    DiskFormat.VMDK: "vmdk",
    DiskFormat.VDI: "vdi",
    DiskFormat.QED: "qed",
}
_SCREENS = {Screen.STD: "VGA", Screen.CIRRUS: "cirrus-vga", Screen.VIRTIO: "virtio-vga"}
_LEVELS = {"v1": "qemu64", "v2": "Nehalem", "v3": "Haswell-noTSX"}
"""A processor of QEMU's with what each level of x86-64 has; `max` is the host's, or all that TCG knows."""


@dataclass(slots=True)
class Files:
    """Descriptors that QEMU is given, which stay the caller's.

    :param monitor: of QMP.
    :param serial: of the first serial port.
    """

    monitor: int
    serial: int
    kernel: int | None = None
    ramdisk: int | None = None
    firmware: int | None = None
    variables: int | None = None
    disks: list[OpenDisk] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)

    def named(self) -> list[int]:
        """Those that QEMU takes by a name only, and so opens again."""
        return [fd for fd in (self.kernel, self.ramdisk) if fd is not None]

    def numbers(self) -> list[int]:
        """All of them."""
        found = [self.monitor, self.serial, self.kernel, self.ramdisk, self.firmware, self.variables, *self.channels]
        disks = [fd for disk in self.disks for fd in disk.fds]
        return [fd for fd in (*found, *disks, *(wire.fileno() for wire in self.wires)) if fd is not None]


def disk_id(devid: int) -> str:
    """QEMU's name of a disk's device."""
    return f"disk{devid}"


def vif_id(devid: int) -> str:
    """QEMU's name of an interface's device."""
    return f"vif{devid}"


def cpu_id(number: int) -> str:
    """QEMU's name of a vCPU's device; the first has none, and stays."""
    return f"cpu{number}"


def command_line(
    config: DomainConfig,
    accelerator: Accelerator,
    files: Files,
    *,
    places: Mapping[str, str] | None = None,
    vcpus: Sequence[int] | None = None,
) -> list[str]:
    """What follows the program's name. ConfigError: there is no room for a device.

    :param places: where devices are on the PCI bus, by their names; others are where QEMU puts them.
    :param vcpus: numbers of those that are plugged in, if they are not the first ones.
    """
    return list(_Builder(config, accelerator, files, places or {}, vcpus or range(config.vcpus)).words())


class _Builder:
    def __init__(
        self,
        config: DomainConfig,
        accelerator: Accelerator,
        files: Files,
        places: Mapping[str, str],
        vcpus: Sequence[int],
    ) -> None:
        self._config = config
        self._places = places
        self._vcpus = vcpus
        self._accelerator = accelerator
        self._files = files
        self._sets = 0
        self._boot = 0

    def words(self) -> Iterator[str]:
        config, hvm = self._config, self._config.hvm
        is_hvm = config.type is DomainType.HVM
        yield from ("-name", f"guest=domain-{config.uuid},debug-threads=on", "-uuid", str(config.uuid))
        yield from ("-nodefaults", "-no-user-config", "-display", "none", "-S")
        yield from ("-sandbox", SANDBOX)
        # A guest that is done stays until Domain 0 has decided what becomes of it.
        yield from ("-action", "reboot=shutdown,shutdown=pause,panic=pause")
        yield from self._processor()
        machine = "pc,usb=off,vmport=off"
        machine += f",hpet={_on(hvm.hpet)}" + ("" if hvm.acpi else ",acpi=off")
        if hvm.firmware is Firmware.UEFI:
            machine += ",smm=off"  # Debian's OVMF of 4 MiB goes no further than its first instructions with it here
        yield from ("-machine", machine)
        yield from ("-m", f"size={config.static_max_mib}M")
        yield from ("-rtc", f"base={self._clock()}")
        yield from ("-chardev", f"socket,id=monitor,fd={self._files.monitor}", "-mon", "chardev=monitor,mode=control")
        yield from ("-chardev", f"socket,id=console,fd={self._files.serial}")
        yield from self._device(driver="isa-serial", id="serial0", chardev="console")
        if config.kernel:
            yield from ("-kernel", f"/proc/self/fd/{self._files.kernel}")
            if self._files.ramdisk is not None:
                yield from ("-initrd", f"/proc/self/fd/{self._files.ramdisk}")
            if config.cmdline:
                yield from ("-append", config.cmdline)
        elif self._files.firmware is not None and hvm.firmware is Firmware.UEFI:
            yield from self._uefi(self._files.firmware, self._files.variables or -1)
        yield from ("-boot", "strict=on")
        yield from self._device(driver="virtio-balloon-pci", id="balloon")
        yield from (
            "-object",
            "rng-builtin,id=entropy",
            *self._device(driver="virtio-rng-pci", id="rng", rng="entropy"),
        )
        yield from self._device(driver="pvpanic", id="panic")
        yield from ("-vnc", "none,password=on")
        if is_hvm and hvm.vga is not Screen.NONE:
            yield from self._screen()
        yield from self._channels()
        yield from self._disks()

    def _processor(self) -> Iterator[str]:
        config, name = self._config, self._accelerator.name
        options = {"kvm": f",{XEN}" if self._accelerator.xen else "", "tcg": f",thread=multi,tb-size={TCG_CODE_MIB}"}
        yield from ("-accel", name + options[name])
        highest = "host" if name == "kvm" else "max"
        model = _LEVELS.get(config.cpu, highest)
        most = config.vcpus_max
        yield from ("-cpu", model)
        yield from ("-smp", f"cpus=1,maxcpus={most},sockets=1,cores={most},threads=1")
        for number in sorted(set(self._vcpus) - {0}):  # as devices, which can go again
            place = {"socket-id": 0, "core-id": number, "thread-id": 0}
            yield from self._device(driver=f"{model}-x86_64-cpu", id=cpu_id(number), **place)

    def _clock(self) -> str:
        if not self._config.time_offset_s:
            return "utc"
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=self._config.time_offset_s)
        return now.strftime("%Y-%m-%dT%H:%M:%S")

    def _uefi(self, code: int, variables: int) -> Iterator[str]:
        for unit, (fd, writable) in enumerate(((code, False), (variables, True))):
            yield from self._file(f"flash{unit}", fd, writable=writable)
            yield from ("-machine", f"pflash{unit}=flash{unit}")

    def _screen(self) -> Iterator[str]:
        hvm = self._config.hvm
        memory: dict[str, Any] = {} if hvm.vga is Screen.VIRTIO else {"vgamem_mb": hvm.videoram_mib}
        yield from self._device(driver=_SCREENS[hvm.vga], id="screen", **memory)
        if hvm.tablet:
            yield from self._device(driver="piix3-usb-uhci", id="usb")
            yield from self._device(driver="usb-tablet", id="tablet", bus="usb.0")

    def _channels(self) -> Iterator[str]:
        if self._files.channels:
            yield from self._device(driver="virtio-serial-pci", id="channels")
        for number, (fd, spec) in enumerate(zip(self._files.channels, self._config.channel_specs, strict=True)):
            yield from ("-chardev", f"socket,id=channel{number},fd={fd}")
            yield from self._device(
                driver="virtserialport", bus="channels.0", chardev=f"channel{number}", name=spec.name, nr=number + 1
            )

    # --- what can be started from, in the order of `boot`

    def _disks(self) -> Iterator[str]:
        specs = list(zip(self._config.disk_specs, self._files.disks, strict=True))
        order = self._boot_order()
        yield from self._controllers()
        for spec, opened in specs:
            yield from self._disk(spec, opened, order.get(disk_id(spec.devid)))
        for vif, wire in zip(self._config.vif_specs, self._files.wires, strict=True):
            yield from netdev(vif, wire)
            yield from self._device(**vif_device(vif, self._config), **_boot_index(order.get(vif_id(vif.devid))))

    def _controllers(self) -> Iterator[str]:
        """An AHCI controller, if a disk wants it; the machine has IDE."""
        places = [place_of(spec, self._config) for spec in self._config.disk_specs]
        if DiskBus.AHCI in places:
            yield from self._device(driver="ich9-ahci", id="ahci")
        for bus, most in ((DiskBus.IDE, IDE_MAX), (DiskBus.AHCI, AHCI_MAX)):
            if places.count(bus) > most:
                raise ConfigError(f"{places.count(bus)} disks for {most} places of {bus.value}", key="disk")

    def _device(self, **words: Any) -> Iterator[str]:
        place = self._places.get(words.get("id", ""))
        return _json("-device", **words, **({} if place is None else {"addr": place}))

    def _boot_order(self) -> dict[str, int]:
        if self._config.kernel:  # which is what is started, and has the first place
            return {}
        disks = [spec for spec in self._config.disk_specs if not spec.is_cdrom]
        drives = [spec for spec in self._config.disk_specs if spec.is_cdrom]
        found: list[str] = []
        for letter in self._config.hvm.boot:
            if letter == "a":
                continue
            if letter in "cd":
                found += [disk_id(spec.devid) for spec in (disks if letter == "c" else drives)]
            else:
                found += [vif_id(spec.devid) for spec in self._config.vif_specs]
        return {name: index for index, name in enumerate(found)}

    def _disk(self, spec: DiskSpec, opened: OpenDisk, index: int | None) -> Iterator[str]:
        node = ""
        for level in reversed(range(len(opened.fds))):
            below = {"backing": node} if node else {}
            node = f"{disk_id(spec.devid)}-{level}"
            writable = spec.writable and level == 0
            file = f"{node}-file"
            yield from self._file(file, opened.fds[level], writable=writable, discard=spec.discard)
            driver = DRIVERS[opened.files[level].format]
            yield from _json("-blockdev", driver=driver, file=file, **{"node-name": node}, **_access(writable), **below)
        yield from self._device(**disk_device(spec, self._config, node), **_boot_index(index))

    def _file(self, node: str, fd: int, *, writable: bool, discard: bool = True) -> Iterator[str]:
        self._sets += 1
        yield from ("-add-fd", f"fd={fd},set={self._sets}")
        driver = "host_device" if stat.S_ISBLK(os.fstat(fd).st_mode) else "file"
        words = {"node-name": node, "discard": "unmap" if discard else "ignore", **_access(writable)}
        yield from _json("-blockdev", driver=driver, filename=f"/dev/fdset/{self._sets}", **words)


def place_of(spec: DiskSpec, config: DomainConfig) -> DiskBus:
    """Where a disk is: hda on IDE or what `hdtype` says, sda on SATA, xvda on virtio; CD drives are never virtio's."""
    if spec.vdev.startswith("sd"):
        return DiskBus.AHCI
    if config.type is DomainType.HVM and (spec.vdev.startswith("hd") or spec.is_cdrom):
        hdtype = config.hvm.hdtype
        return DiskBus.IDE if spec.is_cdrom and hdtype is DiskBus.VIRTIO else hdtype
    return DiskBus.AHCI if spec.is_cdrom else DiskBus.VIRTIO


def disk_device(spec: DiskSpec, config: DomainConfig, node: str) -> dict[str, Any]:
    """The device of a disk, as `-device` and `device_add` take it.

    :param node: the block node of its image; empty for a drive without a medium.
    """
    place = place_of(spec, config)
    words: dict[str, Any] = {"id": disk_id(spec.devid)} | ({"drive": node} if node else {})
    if place is DiskBus.VIRTIO:
        return words | {"driver": "virtio-blk-pci", "serial": spec.vdev}
    others = [each for each in config.disk_specs if place_of(each, config) is place]
    unit = _unit(spec, others, place)
    where = (
        {"bus": f"ide.{unit // 2}", "unit": unit % 2} if place is DiskBus.IDE else {"bus": f"ahci.{unit}", "unit": 0}
    )
    return words | {"driver": "ide-cd" if spec.is_cdrom else "ide-hd"} | where


def _unit(spec: DiskSpec, others: list[DiskSpec], place: DiskBus) -> int:
    """hda is the first place, hdb the second; disks with other names take what is left, in their order."""
    most = IDE_MAX if place is DiskBus.IDE else AHCI_MAX
    named = {each.devid: ord(each.vdev[2]) - ord("a") for each in others if each.vdev[:2] in ("hd", "sd")}
    if spec.devid in named and named[spec.devid] < most:
        return named[spec.devid]
    free = [unit for unit in range(most) if unit not in named.values()]
    rest = [each.devid for each in others if named.get(each.devid, most) >= most]
    if rest.index(spec.devid) >= len(free):
        raise ConfigError(f"{spec.vdev}: all places of {place.value} are taken", key="disk")
    return free[rest.index(spec.devid)]


def vif_device(spec: VifSpec, config: DomainConfig) -> dict[str, Any]:
    """The device of an interface, as `-device` and `device_add` take it. ConfigError: there is no such model."""
    model = spec.model or (DEFAULT_MODEL if config.type is DomainType.HVM else "virtio-net")
    words: dict[str, Any] = {"driver": NIC_MODELS[model], "id": vif_id(spec.devid), "netdev": f"net{spec.devid}"}
    if config.type is not DomainType.HVM:
        words["romfile"] = ""  # nothing is started over the network
    return words | {"mac": mac_text(spec.mac_of(config.uuid))}


def netdev(spec: VifSpec, wire: Wire) -> Iterator[str]:
    """What is behind an interface."""
    yield from _json("-netdev", **netdev_words(spec, is_tap=wire.is_tap, fd=str(wire.fileno())))


def netdev_words(spec: VifSpec, *, is_tap: bool, fd: str) -> dict[str, Any]:
    """As `-netdev` and `netdev_add` take it.

    :param fd: the descriptor's number, or the name under which QEMU was given it.
    """
    if is_tap:
        return {"type": "tap", "id": f"net{spec.devid}", "fd": fd}
    return {"type": "stream", "id": f"net{spec.devid}", "server": False, "addr": {"type": "fd", "str": fd}}


def _access(writable: bool) -> dict[str, Any]:
    return {"read-only": not writable}


def _boot_index(index: int | None) -> dict[str, Any]:
    return {} if index is None else {"bootindex": index}


def _json(option: str, **words: Any) -> Iterator[str]:
    yield from (option, json.dumps(words))


def _on(value: bool) -> str:
    return "on" if value else "off"


__all__ = ["Files", "command_line", "cpu_id", "disk_device", "disk_id", "netdev_words"]
