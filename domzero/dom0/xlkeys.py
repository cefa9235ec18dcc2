# SPDX-License-Identifier: Apache-2.0
"""The keys of xl.cfg(5): which ones are honoured, which are refused, and what happens instead of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = "str | list[Value]"


def words(text: str) -> frozenset[str]:
    """A set of words."""
    return frozenset(text.split())


HONOURED = words(
    """
    name type builder uuid pool nomigrate vcpus maxvcpus cpus cap cpu_weight memory maxmem kernel ramdisk cmdline root
    extra bootloader firmware disk vif p9 channel vfb console on_poweroff on_reboot on_crash on_watchdog on_soft_reset
    engine cpu cpuid seed localtime rtc_timeoffset
    max_event_channels max_grant_frames max_maptrack_frames max_grant_version
    """
)
"""Those that do what they say; `console`, `engine`, `cpu` and `seed` are our own."""
REFUSED = words("pci usbctrl usbdev vtpm vdispl vsnd pvcalls ioports irqs iomem dtdev driver_domain")
"""Devices that a guest may not do without: a domain that asks for one is not made."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why keys have no effect, and what happens instead."""

    keys: frozenset[str]
    text: str


_HVM = """
    hdtype hap oos shadow_memory bios bios_path_override boot pae acpi acpi_s3 acpi_s4
    acpi_laptop_slate apic nx hpet altp2m altp2mhvm nestedhvm acpi_firmware smbios_firmware ms_vm_genid vpt_align
    timer_mode mmio_hole xen_platform_pci viridian videoram stdvga vga vnc vnclisten vncdisplay vncunused vncpasswd
    keymap sdl opengl nographic spice spicehost spiceport spicetls_port spicedisable_ticketing spicepasswd
    spiceagent_mouse spicevdagent spice_clipboard_sharing spiceusbredirection spice_image_compression
    spice_streaming_video serial soundhw vkb_device usb usbversion usbdevice vendor_device gfx_passthru mca_caps
"""
_DEVICE_MODEL = """
    device_model_version device_model_override device_model_args device_model_args_pv device_model_args_hvm
    device_model_user device_model_stubdomain_override device_model_stubdomain_seclabel stubdomain_kernel
    stubdomain_cmdline stubdomain_ramdisk stubdomain_memory dm_restrict
"""
_PASS_THROUGH = "pci_permissive pci_msitranslate pci_seize pci_power_mgmt rdm rdm_mem_boundary passthrough e820_host"
REASONS = tuple(
    Reason(words(keys), text)
    for keys, text in (
        (_HVM, "for HVM domains only; a PV domain has no such thing"),
        (_DEVICE_MODEL, "there is no device model; all devices are PV ones"),
        (_PASS_THROUGH, "for devices of the host; none is passed through"),
        ("device_tree gic_version vuart tee vpmu", "for Arm only"),
        ("pvshim pvshim_path pvshim_cmdline pvshim_extra", "for PVH domains only; the domain has no shim"),
        ("vkb", "keyboard and pointer come with vfb"),
        ("cpus_soft", "the host's scheduler prefers no processors; vCPUs run where cpus lets them"),
        ("tsc_mode", "the domain's TSC runs at one rate, whatever processor it is on"),
        ("seclabel init_seclabel", "there are no security labels"),
        ("vnuma nodes", "a PV domain's memory is one node"),
        ("bootloader_args", "GRUB finds its configuration in the disk"),
        ("xend_suspend_evtchn_compat on_xend_start on_xend_stop", "there is no xend"),
        ("vmtrace_buf_kb", "the host's processor tracing is not given to domains"),
        ("msr_relaxed", "an MSR that is not there faults"),
    )
)
"""Those that are taken and warned about, unless they ask for nothing."""
WITHOUT_EFFECT = frozenset().union(*(reason.keys for reason in REASONS))
KNOWN = HONOURED | REFUSED | WITHOUT_EFFECT

_NOTHING: dict[str, frozenset[str]] = {
    "cpus_soft": words("all"),
    "tsc_mode": words("default"),
    "passthrough": words("disabled default"),
}
"""Values that ask for what a domain has anyway, beside 0, an empty string and an empty list."""


def asks_for_nothing(key: str, value: Value) -> bool:
    """Whether a key's value changes nothing, so that nobody need be told of it."""
    if not isinstance(value, str):
        return not value
    return value.strip() in ("", "0", "0x0") or value in _NOTHING.get(key, ())
