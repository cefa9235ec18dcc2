# SPDX-License-Identifier: Apache-2.0
"""What is told of a domain's disks and network interfaces."""

from __future__ import annotations

from dataclasses import dataclass

from domzero.dom0.diskspec import DiskLimits


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
