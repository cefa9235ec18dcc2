# SPDX-License-Identifier: Apache-2.0
"""What a PV domain is while it does not run: all that is needed to go on with it elsewhere.

Of its frames there are the contents and the numbers, never the types: which of them are page tables is found out again
by validating those that it had pinned or loaded, as for a domain that does so by hypercalls.
"""

from __future__ import annotations

from dataclasses import dataclass

from domzero.errors import ImageError, ResourceError


class SaveError(ResourceError):
    """A domain cannot be saved as it is."""


class RestoreError(ImageError):
    """What was saved is damaged, or is nothing that this hypervisor can go on with."""


@dataclass(slots=True, frozen=True, kw_only=True)
class SavedCallback:
    """An entry point of the guest kernel that struct vcpu_guest_context has no room for."""

    cs: int
    address: int
    masks_events: bool


@dataclass(slots=True, frozen=True, kw_only=True)
class SavedVcpu:
    """A vCPU.

    :param context: struct vcpu_guest_context in the guest's own layout, as hexadecimal digits; empty before
        VCPUOP_initialise.
    :param upcall_mask: evtchn_upcall_mask.
    :param time_version: of its time record; the next one differs, so that a reader in the middle sees the change.
    :param address_masks: DR0_ADDR_MASK to DR3_ADDR_MASK.
    :param upper_vectors: the upper halves of the ymm registers, as hexadecimal digits.
    :param callbacks: for 32-bit applications' syscall, for sysenter, and for NMIs.
    """

    context: str
    is_up: bool
    upcall_mask: bool
    time_version: int
    cr2: int
    tsc_aux: int
    xcr0: int
    address_masks: tuple[int, ...]
    upper_vectors: str
    callbacks: tuple[SavedCallback, ...]
    cpuid_faulting: bool
    efer_bits: int


@dataclass(slots=True, frozen=True, kw_only=True)
class SavedBits:
    """Bits of a CPUID register that somebody wanted otherwise (`cpu_policy.Bits`); `subleaf` is -1 for any."""

    leaf: int
    subleaf: int
    register: str
    mask: int
    value: int


@dataclass(slots=True, frozen=True, kw_only=True)
class SavedDomain:
    """A domain, but for the contents of its frames.

    :param machine_frames: of the machine it ran in: its frames keep their numbers, so that its page tables and its p2m
        list stay as they are.
    :param system_time_ns: where its time goes on.
    :param max_pages: frames that it may own.
    :param e820: its memory map: address, size, type.
    :param shared_info: that page, as hexadecimal digits.
    :param features: that CPUID shows, by libxl's names.
    :param pinned: tables that it has pinned: frame and level.
    :param store_mfn, console_mfn: frames of its rings.
    """

    is_32bit: bool
    machine_frames: int
    system_time_ns: int
    max_pages: int
    e820: tuple[tuple[int, int, int], ...]
    vm_assist: int
    shared_info: str
    features: tuple[str, ...]
    cpuid_bits: tuple[SavedBits, ...]
    pinned: tuple[tuple[int, int], ...]
    store_mfn: int
    store_port: int
    console_mfn: int
    console_port: int
    vcpus: tuple[SavedVcpu, ...]


__all__ = ["RestoreError", "SaveError", "SavedBits", "SavedCallback", "SavedDomain", "SavedVcpu"]
