# SPDX-License-Identifier: Apache-2.0
"""Disk specifications mean what Xen's own parser makes of them."""

from __future__ import annotations

import re
import shutil
import string
import subprocess
from pathlib import Path

import pytest

from domzero.dom0.diskspec import DiskFormat, DiskLimits, DiskSpec, device_number, is_named, parse_disk, parse_disks
from domzero.errors import ConfigError

SOURCE = Path(__file__).parents[1] / "support" / "xldisk.c"

SPECS = """
/a/b.img,raw,xvda,rw
/a/b.img,,xvda
/a/b.img,qcow2,xvda,r
/a/b.img,qcow2,xvda,ro
phy:/dev/vg/x,xvda,w
phy:/dev/vg/x,xvda
phy:/a,raw,xvda,w
phy:/a,,xvda,w
file:/a/b.img,xvda,w
file:/a,xvda:cdrom,r
tap:aio:/a/b,xvda,w
tap2:aio:/a,xvda,w
tap:tapdisk:aio:/a,xvda,w
tap:qcow2:/a/b,xvda,w
qcow2:/a/b,xvdb,r
qcow2:/a,raw,xvda,w
raw:/a,xvda,w
format=qcow2,vdev=xvda,access=rw,target=/a/b,c
format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/x.iso
/x.iso,raw,hdc,devtype=cdrom
/x.iso,,hdc,cdrom
/a,raw,xvda:cdrom,r
,,hdc,cdrom
,empty,hdc,cdrom
devtype=cdrom,vdev=hdc
/a,vhd,xvda,w
/a,qed,xvda,r
vhd:/a,xvda,w
tap:vhd:/a,xvda
vdev=hdc,devtype=cdrom,target=
,qcow2,hdc,cdrom
/a,raw,xvda,rw,
/a,raw,xvda,rw,xx
/a,nonsense,xvda,rw
/a,xvda,w
/a,aio,xvda
/a,RAW,xvda,w
/a,raw,xvda,W
/a,raw,xvda,zz
/a,raw,xvda,rw,no-discard
/a,raw,xvda,w,discard
/a,raw,xvda,w,discard=1
/a,raw,xvda,w,direct-io-safe
/a,raw,xvda,rw,foo=bar
/a,raw,xvda,rw,devtype=disk
/a,raw,xvda,rw,devtype=floppy
/a,raw,xvda,rw,backendtype=qdisk
/a,raw,xvda,access=ro
/a,raw,xvda,format=raw
/a,raw,xvda,w,ro
/a,format=qcow2,xvda
/a,vdev=xvda,qcow2
vdev=xvda,target=/a
vdev=xvda,/a
vdev=xvda,format=qcow2,/a
rw,/a
 /a , raw , xvda , rw
/a:b,raw,xvda,w
x:/a,raw,xvda,w
phy:/a,hda1,w
"""


XEN = {DiskFormat.QCOW2: 2, DiskFormat.VHD: 3, DiskFormat.RAW: 4, DiskFormat.QED: 6}
"""libxl_disk_format; 5 is an empty drive."""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Xen's parser as a program."""
    if shutil.which("cc") is None or not Path("/usr/include/libxlutil.h").exists():
        pytest.skip("needs a C compiler and libxen-dev")
    program = tmp_path_factory.mktemp("xldisk") / "xldisk"
    subprocess.run(["cc", "-o", program, SOURCE, "-lxlutil", "-lxenlight"], check=True)
    return program


def told(text: str) -> str:
    try:
        spec = parse_disk(text)
    except ConfigError:
        return "refused"
    number = XEN[spec.format] if spec.target else 5
    return f"{spec.target}|{number}|{spec.vdev}|{spec.writable:d}|{spec.is_cdrom:d}|{spec.discard:d}|"


def test_specifications_mean_what_xen_makes_of_them(oracle: Path) -> None:
    specs = [line for line in SPECS.split("\n") if line]
    answers = subprocess.run([oracle], input="\n".join(specs) + "\n", capture_output=True, text=True, check=True)
    theirs = answers.stdout.splitlines()
    assert len(theirs) == len(specs)
    different = {spec: (there, told(spec)) for spec, there in zip(specs, theirs, strict=True) if told(spec) != there}
    assert not different


def test_a_number_is_xens_number_of_the_disk() -> None:
    assert (device_number("0x1"), device_number("768"), device_number("0xca00")) == (1, 768, device_number("xvda"))
    assert parse_disk("file:/home/netbsd.img,0x1,w").devid == 1


def test_a_file_alone_is_the_next_disk_and_its_name_tells_the_format() -> None:
    taken = {device_number("xvda"), device_number("xvdb"), device_number("xvdd")}
    assert parse_disk("disk.qcow2", taken) == DiskSpec("disk.qcow2", DiskFormat.QCOW2, "xvdc", 51744, writable=True)
    assert parse_disk("disk.img,,,ro") == DiskSpec("disk.img", DiskFormat.RAW, "xvda", 51712, writable=False)
    with pytest.raises(ConfigError, match="no vdev"):
        parse_disk("disk.img", {device_number("xvd" + letter) for letter in string.ascii_lowercase})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no target"),
        ("/a,empty,hdc,cdrom", "an empty drive has no target"),
        (",empty,hdc", "there is no target"),
        ("/a,vpc,xvda", "no such format: 'vpc' (raw, qcow2, vhd, vhdx, vmdk, vdi, qed)"),
        ("/a,raw,foo,w", "no such vdev: 'foo'"),
        ("/a,raw,xvda01,w", "no such vdev"),
        ("/a,raw,xvda,rw,script=block-x", "script=block-x is not supported"),
        ("nbd:/a,xvda,w", "nbd: is not supported"),
        ("/a,raw,xvda:floppy", "no such device type"),
        ("/a,sector-size=520", "no such sector-size: '520' (512, 1024, 2048, 4096)"),
        ("/a,sector-size=8192", "no such sector-size"),
        ("/a,sector-size=04096", "no such sector-size"),
        ("/a,bps=fast", "bps is no number: 'fast'"),
        ("/a,iops=5K", "iops is no number: '5K'"),
        ("/a,bps=", "bps is no number: ''"),
        ("/a,bps=-1", "bps is no number: '-1'"),
        ("/a,bps=9999999999999999", "bps=9999999999999999 is not possible"),
        ("/a,iops=5,iops=6", "iops is given twice"),
        ("/a,iops_max=5", "iops_max=5 needs iops="),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        parse_disk(text)


def test_limits_have_qemus_names_and_units_of_1024() -> None:
    assert parse_disk("/a,raw,xvda,rw,bps=20M,bps_max=1g,iops=500,iops_max=0").limits == DiskLimits(
        bps=20 << 20, bps_max=1 << 30, iops=500
    )
    assert parse_disk("iops=1,bps=512,target=/a,bps=3").limits == DiskLimits(iops=1, bps=512)
    assert parse_disk("/a").limits == DiskLimits()


def test_two_disks_have_two_names() -> None:
    found = list(parse_disks(["/a,raw,xvda,w", "/b,raw,xvda,w", "/c,raw,xvda1,w"]))
    assert [type(each) for each in found] == [DiskSpec, ConfigError, DiskSpec]
    assert "taken by '/a,raw,xvda,w'" in str(found[1])


def test_disks_without_a_name_have_the_first_ones_that_no_other_asks_for() -> None:
    found = list(parse_disks(["/a", "/b,raw,xvda,w", "/c", "/d,raw,xvdc,w"]))
    assert [each.vdev for each in found if isinstance(each, DiskSpec)] == ["xvdb", "xvda", "xvdd", "xvdc"]


def test_a_specification_may_leave_its_name_to_domain_0() -> None:
    for text in ("/a", "/a,qcow2", "/a,raw,,ro", "/a,raw,:cdrom"):
        spec = parse_disk(text)
        assert not is_named(text) and not is_named(spec.text("/x", named=False))
        assert parse_disk(spec.text(spec.target, named=False)) == spec
        assert is_named(spec.text("/x"))


def test_the_text_of_a_specification_is_the_specification() -> None:
    for text in (
        "/a,qcow2,xvdb,r",
        "/x.iso,,hdc,cdrom",
        ",,hdc,cdrom",
        "/a,raw,xvda,rw,no-discard",
        "/a,persistent-grants",
        "/a,sector-size=4096",
        "/a,bps=5k,iops=7,iops_max=9",
    ):
        spec = parse_disk(text)
        assert parse_disk(spec.text(spec.target)) == spec
    assert parse_disk(parse_disk("/a").text("/with,commas")).target == "/with,commas"


@pytest.mark.parametrize(
    ("vdev", "number"),
    # xen-vbd-interface(7)
    [
        ("xvda", 51712),
        ("xvda1", 51713),
        ("xvdb", 51728),
        ("xvdp15", 51967),
        ("xvdq", 268439552),
        ("xvda16", 268435472),
        ("xvdaa", 268442112),
        ("d0", 51712),
        ("d0p2", 51714),
        ("d300p3", 268512259),
        ("sda", 2048),
        ("sdb3", 2067),
        ("hda", 768),
        ("hdb1", 833),
        ("hdc", 5632),
    ],
)
def test_numbers_of_devices(vdev: str, number: int) -> None:
    assert device_number(vdev) == number


@pytest.mark.parametrize("vdev", ["", "xvd", "xvda256", "sdq", "sda16", "hde", "hda64", "d1048576", "xvda\n", "XVDA"])
def test_no_numbers(vdev: str) -> None:
    with pytest.raises(ConfigError):
        device_number(vdev)
