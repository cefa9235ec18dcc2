# SPDX-License-Identifier: Apache-2.0
"""Front ends that are not Linux's: small PV kernels with their own, for each kind of device, in both widths."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from building import build_guests
from runtime_dir import short_runtime_directory

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]
MIB = 1 << 20
WIDTHS = pytest.mark.parametrize("width", ["64", "32"])


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the guests of guests/devices in both widths."""
    return build_guests(tmp_path_factory.mktemp("devices"), "devices")


@pytest.fixture(autouse=True)
def networks() -> Iterator[None]:
    """Networks of this test's own."""
    with short_runtime_directory():
        yield


class Guest:
    """A domain of a small kernel."""

    def __init__(
        self, kernel: Path, cmdline: str = "", *, disks: list[str] | None = None, vifs: list[str] | None = None,
        shares: list[str] | None = None,
    ):  # fmt: skip
        self.log: list[str] = []
        config = DomainConfig(
            kernel=str(kernel), memory_mib=16, cmdline=cmdline, disks=disks or [], vifs=vifs or [],
            shares=shares or [], on_poweroff=Action.PRESERVE,
        )  # fmt: skip
        self.session = DomainSession(config, log=self.log.append)
        self.session.start()

    def passes(self, name: str) -> str:
        """Waits for its end, which is to be a good one with nothing left; gives its console."""
        try:
            for _ in range(300):
                if (end := self.session.wait(1)) is not None:
                    break
                assert self.session.audit() == []
            said = self.session.console.history.decode(errors="replace")
            assert end is not None and end.reason is EndReason.POWEROFF, said + "\n".join(self.log)
            assert f"PASS {name}" in said.splitlines(), said
            assert "  FAIL" not in said
            self.disks = list(self.session.disks.stats())
            return said
        finally:
            self.session.destroy()


@WIDTHS
def test_a_disk_holds_what_a_front_end_of_our_own_writes_by_each_kind_of_request(
    devices: Path, width: str, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4 * MIB))
    guest = Guest(devices / width / "device_disk", disks=[f"{image},raw,xvda"])
    guest.passes("disk")
    words = 3 * 1024 * 128
    written = struct.pack(f"<{words}I", *(n ^ 0x5A5A5A5A for n in range(words)))
    assert image.read_bytes() == written + bytes(4 * MIB - len(written))
    assert not any("disconnected" in line for line in guest.log)


def test_a_front_end_of_our_own_waits_for_the_limits_of_its_disk(devices: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4 * MIB))
    guest = Guest(devices / "64" / "device_disk", disks=[f"{image},raw,xvda,w,iops=1000,bps=20M"])
    guest.passes("disk")
    (disk,) = guest.disks
    assert disk.held > 0 and disk.errors == 0


@WIDTHS
def test_two_front_ends_of_our_own_find_each_other_and_answer_each_others_echoes(devices: Path, width: str) -> None:
    guests = [Guest(devices / width / "device_net", number, vifs=["bridge=lan"]) for number in ("1", "2")]
    try:
        for guest in guests:
            guest.passes("net")
    finally:
        for guest in guests:
            guest.session.destroy()


@WIDTHS
def test_a_front_end_that_breaks_the_protocol_ends_its_own_rings_and_disturbs_nobody(devices: Path, width: str) -> None:
    neighbours = [Guest(devices / width / "device_net", number, vifs=["bridge=lan"]) for number in ("1", "2")]
    hostile = Guest(devices / width / "device_net_hostile", vifs=["bridge=lan", "bridge=lan"])
    try:
        said = hostile.passes("net_hostile")
        for neighbour in neighbours:
            neighbour.passes("net")
    finally:
        for guest in (hostile, *neighbours):
            guest.session.destroy()
    ended = [line for line in hostile.log if "disconnected" in line]
    assert said.splitlines().count(f"ended {len(ended)} times") == 1 and len(ended) > 40, "\n".join(hostile.log)
    assert all("vif 0: disconnected: " in line for line in ended)
    assert not [line for each in neighbours for line in each.log if "disconnected" in line]


@WIDTHS
def test_a_front_end_that_breaks_the_protocol_in_each_field_harms_itself_only(
    devices: Path, width: str, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4 * MIB))
    guest = Guest(devices / width / "device_hostile_disk", disks=[f"{image},raw,xvda,w,persistent-grants"])
    guest.passes("hostile_disk")
    # What was good is there, and nothing else.
    words = 64 * 1024
    written = struct.pack(f"<{words}I", *(n ^ 0x3C3C3C3C for n in range(words)))
    assert image.read_bytes() == written + bytes(4 * MIB - len(written))
    reasons = {line.partition("disconnected: ")[2] for line in guest.log if "disconnected: " in line}
    parts = ["are said to wait in a ring", "ring-ref is no number", "of the ring cannot be mapped", "event channel 0"]
    parts += ["no such protocol", "ring-page-order 5", "5 queues", "feature-persistent is no number"]
    for part in parts:
        assert any(part in reason for reason in reasons), part


SHARED = bytes((n * 7 + n // 256) & 0xFF for n in range(20000))


def make_shares(tmp_path: Path) -> list[str]:
    """What guests/devices/p9*.c expect, and a file beside it that is nobody's business."""
    read, changed = tmp_path / "read", tmp_path / "changed"
    (read / "dir").mkdir(parents=True)
    (read / "dir" / "file").write_bytes(SHARED)
    changed.mkdir()
    (changed / "old").write_text("old")
    (tmp_path / "secret").write_text("secret")
    return [f"tag=r,path={read}", f"tag=w,path={changed},writable"]


def tree(directory: Path) -> dict[str, bytes]:
    """All files below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@WIDTHS
def test_a_front_end_of_our_own_reads_one_directory_and_changes_another(
    devices: Path, width: str, tmp_path: Path
) -> None:
    guest = Guest(devices / width / "device_p9", shares=make_shares(tmp_path))
    guest.passes("p9")
    assert tree(tmp_path) == {"read/dir/file": SHARED, "changed/made": SHARED, "secret": b"secret"}
    assert not any("disconnected" in line for line in guest.log)


@WIDTHS
def test_a_front_end_that_breaks_the_protocol_of_shares_changes_nothing_and_ends_its_own_ring(
    devices: Path, width: str, tmp_path: Path
) -> None:
    guest = Guest(devices / width / "device_p9_hostile", shares=make_shares(tmp_path))
    said = guest.passes("p9_hostile")
    assert tree(tmp_path) == {"read/dir/file": SHARED, "changed/old": b"old", "secret": b"secret"}
    ended = [line for line in guest.log if "disconnected" in line]
    assert said.splitlines().count(f"ended {len(ended)} times") == 1 and len(ended) > 40, "\n".join(guest.log)
    assert all("9pfs 1: disconnected: " in line for line in ended), "\n".join(ended)
