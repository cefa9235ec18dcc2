# SPDX-License-Identifier: Apache-2.0
"""What goes over the HTTP API about disks, network interfaces and networks, in and out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from domzero.dom0.api.models import Model
from domzero.dom0.device_stats import DiskStats, VifStats
from domzero.dom0.diskspec import RATE_MAX, DiskFormat
from domzero.dom0.json_values import to_json
from domzero.dom0.records import Record


class DiskAttach(Model):
    """A disk to be plugged in."""

    spec: Annotated[
        str,
        Field(
            max_length=4096,
            description="As xl-disk-configuration(5) has it; without a vdev it is the next free of xvda, xvdb, ...",
            examples=["/images/data.qcow2,qcow2,xvdb,rw"],
        ),
    ]


def _rate(description: str) -> Any:
    return Field(strict=True, ge=0, le=RATE_MAX, description=description)


class DiskPatch(Model):
    """What a guest may do with a disk, reads and writes counted together; what is not given stays."""

    bps: Annotated[int | None, _rate("Bytes a second; 0: no bound.")] = None
    iops: Annotated[int | None, _rate("Requests a second; 0: no bound.")] = None
    bps_max: Annotated[int | None, _rate("Bytes at once, after a time without; 0: a tenth of a second's worth.")] = None
    iops_max: Annotated[int | None, _rate("Requests at once, likewise.")] = None


class DiskSize(Model):
    """How large a disk is to be."""

    bytes: Annotated[
        int | None,
        Field(
            strict=True, ge=512, le=1 << 50, multiple_of=512, description="As large as what it is made of if absent."
        ),
    ] = None


class Medium(Model):
    """What is put into a CD drive."""

    target: Annotated[str, Field(min_length=1, max_length=4096, description="Path of an image on the host.")]
    format: Annotated[str, Field(max_length=20, description="By the target's name if absent.", examples=["raw"])] = ""


class DiskInfo(Model):
    """One disk of a domain."""

    vdev: Annotated[str, Field(examples=["xvda"])]
    devid: Annotated[int, Field(description="Xen's number of it.")]
    target: str
    format: DiskFormat
    writable: bool
    cdrom: Annotated[bool, Field(description="A drive, whose medium can be changed.")]
    state: Annotated[int, Field(description="Of the back end: enum xenbus_state; 4 is connected.")]
    bytes: int
    reads: int
    writes: int
    read_bytes: int
    written_bytes: int
    flushes: int
    discards: int
    errors: Annotated[int, Field(description="Requests that were answered with an error.")]
    held: Annotated[int, Field(description="How often requests have waited for the limits.")]
    bps: Annotated[int, Field(description="Bytes a second that the guest may read and write; 0: no bound.")]
    iops: Annotated[int, Field(description="Requests a second that it may make; 0: no bound.")]
    bps_max: Annotated[int, Field(description="Bytes at once; 0: a tenth of a second's worth.")]
    iops_max: Annotated[int, Field(description="Requests at once; 0: a tenth of a second's worth.")]

    @classmethod
    def of(cls, disk: DiskStats, record: Record) -> DiskInfo:
        """From what the worker says, and the domain's definition."""
        values = to_json(disk)
        cdrom = any(spec.is_cdrom for spec in record.config.disk_specs if spec.devid == disk.devid)
        return cls(**values.pop("limits"), **values, cdrom=cdrom)


class VifAttach(Model):
    """A network interface to be plugged in."""

    spec: Annotated[
        str,
        Field(
            max_length=4096,
            description="As xl-network-configuration(5) has it.",
            examples=["bridge=lan,mac=00:16:3e:01:02:03", "hostfwd=tcp:127.0.0.1:2222-:22"],
        ),
    ]


class VifPatch(Model):
    """Changes of a network interface; what is left out stays as it is."""

    link: Annotated[Literal["up", "down"] | None, Field(description="Down: frames are dropped in both directions.")] = (
        None
    )
    rate: Annotated[
        str | None,
        Field(
            max_length=64,
            description='How much the guest may send: bits or bytes a second, and the interval; "": no bound.',
            examples=["10Mb/s", "250KB/s@20ms"],
        ),
    ] = None


class PortInfo(Model):
    """An interface on a network of domains; sent and received as its guest sees it."""

    number: int
    domain: Annotated[str, Field(description="The name that its domain had when it was connected.", examples=["web"])]
    uuid: Annotated[str, Field(description="Of its domain.")]
    devid: Annotated[int | None, Field(description="Its number there.")]
    mac: Annotated[str, Field(examples=["00:16:3e:01:02:03"])]
    stations: Annotated[list[str], Field(description="Addresses that it has sent from, at most 16.")]
    sent_frames: int
    sent_bytes: int
    received_frames: int
    received_bytes: int
    dropped: Annotated[int, Field(description="Frames that it did not take in time.")]
    spoofed: Annotated[int, Field(description="Frames of a card of QEMU's that were not from its own address.")]


class NetworkInfo(Model):
    """A network of domains whose switch runs."""

    name: Annotated[str, Field(examples=["lan"])]
    ports: list[PortInfo]


class VifInfo(Model):
    """One network interface of a domain."""

    devid: Annotated[int, Field(description="Its number.")]
    mac: Annotated[str, Field(examples=["00:16:3e:01:02:03"])]
    network: Annotated[str, Field(examples=["user"])]
    mtu: int
    spec: Annotated[str, Field(description="That it was made of.")]
    state: Annotated[int, Field(description="Of the back end: enum xenbus_state; 4 is connected.")]
    link: Annotated[str, Field(description="up or down", examples=["up"])]
    rate: Annotated[str | None, Field(description="How much the guest may send.", examples=["10Mb/s"])]
    sent_frames: int
    sent_bytes: int
    received_frames: int
    received_bytes: int
    errors: Annotated[int, Field(description="Frames of the guest's that were answered with an error.")]
    spoofed: Annotated[int, Field(description="Frames of the guest's that were dropped for their source.")]
    dropped: Annotated[
        int, Field(description="Frames for the guest that it could not take, or while its link was down.")
    ]

    @classmethod
    def of(cls, vif: VifStats) -> VifInfo:
        """From what the worker says."""
        return cls(**to_json(vif))
