# SPDX-License-Identifier: Apache-2.0
"""Disk specifications: xl.cfg's `disk = [...]` and `--disk`, as xl-disk-configuration(5) has them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path

from domzero.dom0.names import is_text, shown
from domzero.errors import ConfigError

HELP = "a disk: FILE[,raw|qcow2[,xvda[,rw|ro]]] or xl's key=value form; without a kernel GRUB starts from it"
EXAMPLE = "for instance 'disk.qcow2,qcow2,xvda,rw'"


RATE_MAX = 10**15
"""Of limits: QEMU's, and so the machine's."""


class DiskFormat(str, Enum):
    """How an image file holds its sectors."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VHD = "vhd"
    VHDX = "vhdx"
    VMDK = "vmdk"
    VDI = "vdi"
    QED = "qed"

    @property
    def is_served(self) -> bool:
        """Whether it is qemu-nbd that understands it (`served_images`)."""
        return self not in (DiskFormat.RAW, DiskFormat.QCOW2)


@dataclass(slots=True, frozen=True)
class DiskFile:
    """One of the open files that a disk is made of.

    :param bytes: of the disk, if the file is a connection to qemu-nbd, which has the image open.
    :param flags: NBD's, of transmission.
    """

    format: DiskFormat
    bytes: int = 0
    flags: int = 0


@dataclass(slots=True, frozen=True)
class DiskLimits:
    """How much a guest may do with a disk, reads and writes counted together; QEMU's names. 0: there is no bound.

    :param bps: bytes a second.
    :param iops: requests a second.
    :param bps_max: bytes that may be moved at once, after a time without; a tenth of a second's if 0.
    :param iops_max: requests that may be made at once.
    """

    bps: int = 0
    iops: int = 0
    bps_max: int = 0
    iops_max: int = 0

    def words(self) -> list[str]:
        """As parts of a specification."""
        return [f"{name}={value}" for name, value in asdict(self).items() if value]

    def check(self, text: str = "") -> DiskLimits:
        """Raises ConfigError for what cannot be."""
        for name, value in asdict(self).items():
            if not 0 <= value <= RATE_MAX:
                raise _refused(text, f"{name}={value} is not possible: 0 to {RATE_MAX}")
        for rate, most in ((self.bps, "bps"), (self.iops, "iops")):
            if (burst := getattr(self, f"{most}_max")) and not rate:
                raise _refused(text, f"{most}_max={burst} needs {most}=", f"{most}= is the bound, {most}_max= a burst")
        return self


@dataclass(slots=True, frozen=True)
class DiskSpec:
    """One disk.

    :param target: path of the image file or block device; empty for a CD drive without a medium.
    :param vdev: its name in the guest (`xvda`).
    :param devid: its number in xenstore, Xen's encoding of `vdev`.
    :param sector_bytes: the smallest unit that the guest may read and write.
    :param persistent_grants: offered to the front end, which then copies what is read and written.
    """

    target: str
    format: DiskFormat
    vdev: str
    devid: int
    writable: bool
    discard: bool = True
    is_cdrom: bool = False
    persistent_grants: bool = False
    sector_bytes: int = 512
    limits: DiskLimits = field(default_factory=DiskLimits)

    def absolute(self) -> str:
        """The target from wherever one looks at it."""
        return str(Path(self.target).absolute()) if self.target else ""

    def text(self, target: str, *, named: bool = True) -> str:
        """The same with another target, as a specification; without its name if Domain 0 is to choose one."""
        words = [f"format={self.format.value}", f"access={'rw' if self.writable else 'ro'}"]
        words += [f"vdev={self.vdev}"] if named else []
        words += [] if self.discard else ["no-discard"]
        words += ["devtype=cdrom"] if self.is_cdrom else []
        words += [PERSISTENT_GRANTS] if self.persistent_grants else []
        words += [] if self.sector_bytes == SECTOR_SIZES[0] else [f"{SECTOR_SIZE}={self.sector_bytes}"]
        words += self.limits.words()
        return ",".join([*words, f"target={target}"])


# What stands before the path in old files: formats, and programs that would have served it; all mean a format.
_PREFIXES = {name: "raw" for name in ("raw", "phy", "file", "aio", "tap", "tap2", "tapdisk", "ioemu")} | {
    "qcow2": "qcow2",
    "vhd": "vhd",
}
_SCRIPTS = ("nbd", "iscsi", "drbd")
_ACCESS = {"rw": True, "w": True, "ro": False, "r": False}
_FORMATS = {each.value: each for each in DiskFormat}
PERSISTENT_GRANTS = "persistent-grants"
SECTOR_SIZE = "sector-size"
SECTOR_SIZES = (512, 1024, 2048, 4096)
"""No more than a page: Linux has none."""
_FLAGS = (PERSISTENT_GRANTS, "cdrom", "devtype=cdrom", "devtype=disk", "discard", "no-discard", "direct-io-safe",
          "backendtype=phy", "backendtype=tap", "backendtype=qdisk")  # fmt: skip
_XVD_LETTERS = 26
EMPTY = "empty"
"""What xl takes for the format of a CD drive without a medium."""
LIMITS = tuple(each.name for each in fields(DiskLimits))
"""Names of what can be bounded."""


def parse_disk(text: str, taken: Container[int] = ()) -> DiskSpec:
    """Understands `target[,format[,vdev[,access]]]` with `key=value` parts in any place, `target=` last.

    :param taken: numbers of disks that there are: without `vdev` it is the first of xvda, xvdb, ... that is free.
    :raises ConfigError: with the reason.
    """
    return _spec(text, *_parts(text), taken)


def is_named(text: str) -> bool:
    """Whether a specification says which name the disk has in the guest; ConfigError as in `parse_disk`."""
    return bool(_vdev(_parts(text)[0]))


def _parts(text: str) -> tuple[dict[str, str], set[str]]:
    if not is_text(text):
        raise _refused(shown(text), "a path is UTF-8 text without NUL")
    words: dict[str, str] = {}
    flags: set[str] = set()
    places = ["target", "format", "vdev", "access"]
    rest: str | None = text
    while rest is not None:
        rest = rest.lstrip()
        if rest.startswith("target="):
            _set(words, "target", rest.removeprefix("target="), text)  # all of it: it may have commas
            break
        part, comma, after = rest.partition(",")
        rest = after if comma else None
        if part in _FLAGS:
            flags.add(part)
            continue
        if not part and not places:
            continue  # a comma at the end
        key, equals, value = part.partition("=")
        if equals and key in ("format", "vdev", "access", SECTOR_SIZE, *LIMITS):
            _set(words, key, value, text)
        elif equals and key in ("script", "backend", "colo", "colo-host", "colo-port", "backendtype", "devtype"):
            raise _refused(text, f"{part} is not supported")
        elif not (places := [place for place in places if place not in words]):
            raise _refused(text, f"{part!r} is one part too many")
        elif (place := places.pop(0)) == "target":
            _set_target(words, part, text)
        else:
            words[place] = part
    return words, flags


def parse_disks(texts: list[str]) -> Iterator[DiskSpec | ConfigError]:
    """Each specification, or what is wrong with it; two disks with one name are wrong.

    Those without a name have the first ones that no other asks for.
    """
    named: set[int] = set()
    for text in texts:
        with suppress(ConfigError):  # said below
            if vdev := _vdev(_parts(text)[0]):
                named.add(device_number(vdev))
    seen: dict[int, str] = {}
    for text in texts:
        try:
            spec = parse_disk(text, named | set(seen))
            if spec.devid in seen:
                raise _refused(text, f"{spec.vdev} is taken by {seen[spec.devid]!r}")
        except ConfigError as error:
            yield error
            continue
        seen[spec.devid] = text
        yield spec


def _vdev(words: dict[str, str]) -> str:
    return _device(words).partition(":")[0]


def _device(words: dict[str, str]) -> str:
    """The name in the guest and what it is, without the word that xm had before it for a disk that QEMU serves."""
    return words.get("vdev", "").removeprefix("ioemu:")


def _spec(text: str, words: dict[str, str], flags: set[str], taken: Container[int]) -> DiskSpec:
    target, form = words.get("target", ""), words.get("format", "")
    vdev, kind = _vdev(words), _device(words).partition(":")[2]
    if kind not in ("", "cdrom", "disk"):
        raise _refused(text, f"no such device type: {kind!r} (disk or cdrom)")
    is_cdrom = kind == "cdrom" or bool(flags & {"cdrom", "devtype=cdrom"})
    if form == EMPTY and target:
        raise _refused(text, "an empty drive has no target")
    if not target:
        if not is_cdrom:
            raise _refused(text, "there is no target")
        form = "raw"  # of no meaning without a medium
    if not form:
        # By the name alone: what is in the file a guest may have written.
        form = "qcow2" if target.endswith(".qcow2") else "raw"
    if form not in _FORMATS:
        raise _refused(text, f"no such format: {form!r} ({', '.join(_FORMATS)})")
    access = words.get("access") or ("ro" if is_cdrom else "rw")
    if access not in _ACCESS:
        raise _refused(text, f"no such access: {access!r} (rw or ro)")
    sector_size = words.get(SECTOR_SIZE, "512")
    if sector_size not in map(str, SECTOR_SIZES):
        raise _refused(text, f"no such {SECTOR_SIZE}: {sector_size[:40]!r} ({', '.join(map(str, SECTOR_SIZES))})")
    vdev = vdev or _free_name(text, taken)
    limits = DiskLimits(**{name: parse_limit(name, words[name], text) for name in LIMITS if name in words})
    return DiskSpec(
        target=target,
        format=_FORMATS[form],
        vdev=vdev,
        devid=device_number(vdev, text),
        writable=_ACCESS[access] and not is_cdrom,
        discard="no-discard" not in flags,
        is_cdrom=is_cdrom,
        persistent_grants=PERSISTENT_GRANTS in flags,
        sector_bytes=int(sector_size),
        limits=limits.check(text),
    )


def parse_limit(name: str, value: str, text: str = "") -> int:
    """A limit of this name; bytes may have a unit of 1024, 1024² or 1024³. ConfigError."""
    match = re.fullmatch(r"([0-9]{1,16})([KMG]?)", value, re.ASCII | re.IGNORECASE)
    if match is None or (match[2] and not name.startswith("bps")):
        example = "bps=20M" if name.startswith("bps") else f"{name}=500"
        raise _refused(text or f"{name}={value}", f"{name} is no number: {value[:40]!r}", f"for instance {example}")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]


def _free_name(text: str, taken: Container[int]) -> str:
    names = ("xvd" + chr(ord("a") + number) for number in range(_XVD_LETTERS))
    if (name := next((name for name in names if device_number(name) not in taken), None)) is None:
        raise _refused(text, "there is no vdev")
    return name


def device_number(vdev: str, text: str = "") -> int:
    """Xen's number of a block device (xen-vbd-interface(7)): `xvda` is 51712, and `0x1`, as NetBSD has it, is 1."""
    if re.fullmatch(r"0x[0-9a-f]{1,7}|[1-9][0-9]{0,8}|0", vdev):
        return int(vdev, 0)
    if match := re.fullmatch(r"d([0-9]{1,7})(?:p([0-9]{1,3}))?", vdev):
        return _xvd_number(int(match[1]), int(match[2] or 0), vdev, text)
    match = re.fullmatch(r"(xvd|sd|hd)([a-z]{1,3})([0-9]{0,3})", vdev)
    if match is None or (match[3] and match[3].startswith("0")):
        raise _refused(text or vdev, f"no such vdev: {vdev!r}", "xvda, xvdb, ...")
    disk = 0
    for letter in match[2]:
        disk = disk * 26 + ord(letter) - ord("a") + 1
    disk, partition = disk - 1, int(match[3] or 0)
    if match[1] == "xvd":
        return _xvd_number(disk, partition, vdev, text)
    if match[1] == "sd" and disk < 16 and partition < 16:
        return 8 << 8 | disk << 4 | partition
    if match[1] == "hd" and disk < 4 and partition < 64:
        return (3 if disk < 2 else 22) << 8 | (disk & 1) << 6 | partition
    raise _refused(text or vdev, f"no such vdev: {vdev!r}", "xvda, xvdb, ...")


def _xvd_number(disk: int, partition: int, vdev: str, text: str) -> int:
    if disk < 16 and partition < 16:
        return 202 << 8 | disk << 4 | partition
    if disk < 1 << 20 and partition < 256:
        return 1 << 28 | disk << 8 | partition
    raise _refused(text or vdev, f"no such vdev: {vdev!r}", "xvda, xvdb, ...")


def _set_target(words: dict[str, str], target: str, text: str) -> None:
    while match := re.match(r"([a-z][a-z0-9]*):", target):
        if match[1] in _SCRIPTS or match[1] not in _PREFIXES:
            raise _refused(text, f"{match[0]} is not supported: give a file or a device, or target={target}")
        target = target[match.end() :]
        if _PREFIXES[match[1]] != "raw" or "format" not in words:
            words["format"] = _PREFIXES[match[1]]
    words["target"] = target


def _set(words: dict[str, str], key: str, value: str, text: str) -> None:
    if words.get(key, value) != value:
        raise _refused(text, f"{key} is given twice")
    words[key] = value


def _refused(text: str, what: str, hint: str = EXAMPLE) -> ConfigError:
    return ConfigError(f"{text[:200]!r}: {what}", key="disk", hint=hint)
