# SPDX-License-Identifier: Apache-2.0
"""What is told of a domain's disks and network interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from domzero.dom0.diskspec import DiskLimits, DiskSpec
from domzero.dom0.vifspec import DOWN, UP, VifSpec, mac_text


@dataclass(slots=True, frozen=True)
class DiskStats:
    """One disk, and what its guest did with it.

    :param state: of its back end, as in xenstore (`enum xenbus_state`).
    :param bytes: of the disk.
    :param held: how often requests have waited for the limits.
    """

    vdev: str
    devid: int
    target: str
    format: str
    writable: bool
    state: int
    bytes: int
    reads: int
    writes: int
    read_bytes: int
    written_bytes: int
    flushes: int
    discards: int
    errors: int
    held: int
    limits: DiskLimits

    @classmethod
    def at_rest(cls, spec: DiskSpec) -> DiskStats:
        """Of a domain that does not run: it has no back end, and its image is not looked into (0 bytes)."""
        counts = dict.fromkeys(_DISK_COUNTS, 0)
        return cls(spec.vdev, spec.devid, spec.target, spec.format.value, spec.writable, limits=spec.limits, **counts)


@dataclass(slots=True, frozen=True)
class VifStats:
    """One network interface, and what its guest did with it.

    :param spec: that it was made of.
    :param state: of its back end, as in xenstore (`enum xenbus_state`).
    :param link: `up` or `down`.
    :param rate: how much the guest may send, as it was given; None: there is no bound.
    :param spoofed: frames that were dropped for their source.
    :param dropped: frames for the guest that it could not take, and all while the link was down.
    """

    devid: int
    mac: str
    network: str
    mtu: int
    spec: str
    state: int
    link: str
    rate: str | None
    sent_frames: int
    sent_bytes: int
    received_frames: int
    received_bytes: int
    errors: int
    spoofed: int
    dropped: int

    @classmethod
    def at_rest(cls, spec: VifSpec, owner: UUID) -> VifStats:
        """Of a domain that does not run: it has no back end.

        :param owner: the domain, from whose uuid comes an address that was not chosen.
        """
        counts = dict.fromkeys(_VIF_COUNTS, 0)
        rate = spec.rate.text if spec.rate else None
        link = UP if spec.is_up else DOWN
        mac = mac_text(spec.mac_of(owner))
        return cls(spec.devid, mac, spec.network, spec.effective_mtu, spec.text(), 0, link, rate, **counts)


_DISK_COUNTS = (
    "state",
    "bytes",
    "reads",
    "writes",
    "read_bytes",
    "written_bytes",
    "flushes",
    "discards",
    "errors",
    "held",
)
_VIF_COUNTS = ("sent_frames", "sent_bytes", "received_frames", "received_bytes", "errors", "spoofed", "dropped")
