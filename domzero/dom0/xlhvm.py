# SPDX-License-Identifier: Apache-2.0
"""What xl.cfg's keys of HVM domains mean, and which of them have no effect here."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from domzero.dom0.channelspec import PTY
from domzero.dom0.config import DomainConfig
from domzero.dom0.hvmspec import DiskBus, Firmware, Screen
from domzero.dom0.xlkeys import Reason, words

HONOURED = words(
    """
    boot bios firmware hdtype vga stdvga videoram acpi hpet usb usbdevice serial nographic
    vnc vnclisten vncdisplay vncunused vncpasswd
    """
)
REASONS = tuple(
    Reason(words(keys), text)
    for keys, text in (
        ("hap oos shadow_memory altp2m altp2mhvm", "how memory is translated is QEMU's and KVM's choice"),
        ("pae apic nx", "every machine of QEMU's has it"),
        ("bios_path_override acpi_firmware smbios_firmware", "firmware is what the host has installed"),
        ("acpi_s3 acpi_s4 acpi_laptop_slate ms_vm_genid", "the machine's ACPI is QEMU's"),
        ("nestedhvm mca_caps vpt_align timer_mode mmio_hole", "the machine is QEMU's, with its own defaults"),
        ("xen_platform_pci", "guests see Xen where KVM emulates it: `domzero info` says so"),
        ("viridian", "Hyper-V's interface is not offered"),
        ("keymap", "viewers that send positions of keys need none"),
        ("sdl opengl", "there is no window on the host: look by VNC"),
        (
            "spice spicehost spiceport spicetls_port spicedisable_ticketing spicepasswd spiceagent_mouse "
            "spicevdagent spice_clipboard_sharing spiceusbredirection spice_image_compression spice_streaming_video",
            "SPICE is not supported: look by VNC",
        ),
        ("soundhw", "there is no sound"),
        ("vkb_device usbversion", "keyboard and pointer are QEMU's own"),
        ("vendor_device gfx_passthru", "no device of the host is passed through"),
        (
            "device_model_version device_model_override device_model_args device_model_args_pv device_model_args_hvm "
            "device_model_user device_model_stubdomain_override device_model_stubdomain_seclabel stubdomain_kernel "
            "stubdomain_cmdline stubdomain_ramdisk stubdomain_memory dm_restrict",
            "the device model is the QEMU that is installed, confined as it always is",
        ),
        ("bootloader bootloader_args", "an HVM domain's firmware starts it"),
        ("max_event_channels max_grant_frames max_maptrack_frames max_grant_version", "for PV domains only"),
        ("cpus_soft tsc_mode", "QEMU's own default is what there is"),
    )
)
"""Those that are taken and warned about for domains of type hvm and pvh, in the place of what is said of PV domains."""

REASONS_OF_PVH = (
    Reason(HONOURED, "for HVM domains only; a PVH domain has no such thing"),
    *(reason for reason in REASONS if "bootloader" not in reason.keys),
    Reason(words("bootloader bootloader_args"), "a PVH domain starts with its kernel"),
)
"""The same of type pvh alone."""
_LOADER = "hvmloader"
_FIRMWARE = {"seabios": "bios", "rombios": "bios", "ovmf": "uefi", "bios": "bios", "uefi": "uefi"}
_SCREENS = {"stdvga": "std", "std": "std", "cirrus": "cirrus", "virtio": "virtio", "none": "none", "qxl": "std"}
_POINTERS = ("tablet", "mouse")


@dataclass(slots=True)
class Reader:
    """How a file's values are read (`xlcfg`).

    :param error: takes a key, what is wrong, and what to do.
    """

    text: Callable[[str], str]
    number: Callable[[str, int], int]
    texts: Callable[[str], list[str]]
    keys: Container[str]
    error: Callable[[str, str, str], None]
    warnings: list[str]


def read_hvm(read: Reader, config: DomainConfig) -> None:
    """Reads what only HVM domains have."""
    hvm = config.hvm
    if config.kernel.rpartition("/")[2] == _LOADER:
        config.kernel = ""
        read.warnings.append(f"kernel: {_LOADER} is Xen's own firmware: bios and firmware choose one of QEMU's")
    hvm.boot = read.text("boot") or hvm.boot
    for key in ("bios", "firmware"):
        if (name := read.text(key)) and name not in _FIRMWARE:
            read.error(key, f"no such firmware: {name[:100]!r}", ", ".join(_FIRMWARE))
        elif name:
            hvm.firmware = Firmware(_FIRMWARE[name])
    if (name := read.text("hdtype")) and name not in [each.value for each in DiskBus]:
        read.error("hdtype", f"no such bus: {name[:100]!r}", ", ".join(each.value for each in DiskBus))
    elif name:
        hvm.hdtype = DiskBus(name)
    if (name := read.text("vga")) and name not in _SCREENS:
        read.error("vga", f"not supported: {name[:100]!r}", ", ".join(_SCREENS))
    elif name:
        hvm.vga = Screen(_SCREENS[name])
        if name == "qxl":
            read.warnings.append("vga: qxl is for SPICE, which is not supported: std it is")
    if read.number("stdvga", 0):
        hvm.vga = Screen.STD
    if read.number("nographic", 0):
        hvm.vga = Screen.NONE
    hvm.videoram_mib = read.number("videoram", hvm.videoram_mib)
    hvm.acpi = bool(read.number("acpi", 1))
    hvm.hpet = bool(read.number("hpet", 1))
    _read_pointer(read, config)
    _read_serial(read, config)
    _read_screen(read, config)


def _read_pointer(read: Reader, config: DomainConfig) -> None:
    if "usb" in read.keys:
        config.hvm.tablet = bool(read.number("usb", 1))
    if "usbdevice" not in read.keys:
        return
    devices = read.texts("usbdevice")
    config.hvm.tablet = "tablet" in devices
    for name in devices:
        if name not in _POINTERS:
            read.warnings.append(f"usbdevice: {name[:100]!r} is not supported: tablet is")


def _read_serial(read: Reader, config: DomainConfig) -> None:
    ports = read.texts("serial")
    if ports[:1] == [PTY]:
        config.console = PTY
    elif ports and ports[0] not in ("none", "null", "stdio", "vc"):
        read.warnings.append(f"serial: {ports[0][:100]!r} is not supported: the first port is the domain's console")
    if len(ports) > 1:
        read.warnings.append("serial: there is one port, which is the domain's console")


def _read_screen(read: Reader, config: DomainConfig) -> None:
    """VNC is on unless it is switched off, as with xl."""
    if config.hvm.vga is Screen.NONE or config.vfbs or not read.number("vnc", 1):
        return
    parts = [
        f"{key}={read.text(key)}" for key in ("vnclisten", "vncdisplay", "vncunused", "vncpasswd") if read.text(key)
    ]
    config.vfbs = [",".join(["vnc=1", *parts])]


__all__ = ["HONOURED", "REASONS", "REASONS_OF_PVH", "Reader", "read_hvm"]
