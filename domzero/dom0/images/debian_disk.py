# SPDX-License-Identifier: Apache-2.0
"""`domzero image build debian`: a disk with Debian on it, made without loop devices, by any user."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
import threading
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from domzero.dom0.images import mmdebstrap
from domzero.dom0.images.clock import now
from domzero.dom0.images.debian_base import BaseRecipe, find_base, make_base, unpack
from domzero.dom0.images.grub import fetch_pvgrub
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.overlay import SETUP_DIR, make_tar, recipe_of, system_files
from domzero.dom0.images.partition import ALIGNMENT, Partition, write_table
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.images.tools import Meter, Progress, need_tools
from domzero.errors import ConfigError, ImageError

DEFAULT_SIZE = 4 << 30
SIZE_MIN = 1 << 30
KNOWN_SUITES = ("bookworm", "trixie")
"""That were seen to start."""
_DISK = "disk.raw"

# GRUB 2.06 reads none of the features that newer versions of mke2fs have on by themselves.
_MKE2FS_CONF = """\
[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
default_mntopts = acl,user_xattr
enable_periodic_fsck = 0
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
ext4 = {
features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
"""
# In the namespace of the new root ("$1"): what is mounted in it stays out of the file system, with nodes of /dev (the
# kernel makes those), and the disk comes out through a descriptor, since its owner there could not open it by name.
_MAKE_FS = """\
set -eu
umask 077
work=$(mktemp -d "${{1%/*}}/fs.XXXXXXXX")
trap 'exit 1' HUP INT TERM
trap 'umount -R "$work/root" 2>/dev/null || :; rm -rf --one-file-system "$work"' EXIT
mkdir "$work/root"
mount --bind "$1" "$work/root"
mount -t tmpfs -o mode=755 none "$work/root/dev"
root=$work/root
[ ! -e "$root/proc/self" ] || {{ echo "domzero: /proc is in the way" >&2; exit 1; }}
printf %s {conf} > "$work/mke2fs.conf"
truncate -s {size} "$work/fs"
MKE2FS_CONFIG=$work/mke2fs.conf {mke2fs} -q -F -t ext4 -L root -U {uuid} -m 1 \\
    -E lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0 -d "$root" "$work/fs"
dd if="$work/fs" bs=64K iflag=fullblock oflag=seek_bytes seek={start} conv=sparse,notrunc status=none >&{fd}
"""


@dataclass(slots=True, frozen=True)
class DiskRecipe:
    """What a disk is built from."""

    base: BaseRecipe
    first: FirstBoot
    size: int = DEFAULT_SIZE

    def check(self) -> None:
        """Raises ConfigError for what cannot be built."""
        self.first.check()
        if self.size < SIZE_MIN or self.size % ALIGNMENT:
            raise ConfigError("at least 1G, in whole MiB", key="size")

    def record(self) -> dict[str, object]:
        """What is kept with the image: no password, only whether it is the same one."""
        return {
            "base": self.base.digest,
            "suite": self.base.suite,
            "kernel": self.base.kernel,
            "packages": list(self.base.packages),
            **recipe_of(self.first),
            "size": self.size,
        }


def matches(image: DiskImage, recipe: DiskRecipe) -> bool:
    """Whether an image was built from this recipe."""
    kept = dict(image.recipe)
    mark = kept.pop("password", "")
    salt = mark.split(":")[0] if isinstance(mark, str) else ""
    return kept == recipe.record() and mark == _password_mark(recipe.first.password, salt)


def build_debian(
    store: DiskStore,
    name: str,
    recipe: DiskRecipe,
    *,
    progress: Progress,
    meter: Meter | None = None,
    refresh: bool = False,
    replace: bool = False,
    cache: Path | None = None,
) -> tuple[DiskImage, bool]:
    """Builds a disk, unless there is one of this name and this recipe.

    :param refresh: take the newest packages, even if the cache has the same ones.
    :param replace: an image of this name that is different gives way.
    :returns: the image, and whether it was built.
    :raises ConfigError: the name is taken.
    :raises ImageError: something that it needs cannot be had; nothing is left then.
    """
    recipe.check()
    if (old := store.get(name)) is not None and not replace and not refresh:
        if matches(old, recipe):
            return old, False
        raise ConfigError(
            f"there is an image {name}, and it was made differently",
            key="name",
            hint="--replace builds it anew, --name gives this one another name",
        )
    need_tools("mmdebstrap", "mke2fs", "sfdisk")
    mode = mmdebstrap.choose_mode()
    if recipe.base.suite not in KNOWN_SUITES:
        progress(f"warning: {recipe.base.suite} is not known to start; {' and '.join(KNOWN_SUITES)} do")
    with store.draft(name, replace_old=replace or refresh) as draft:
        fetch_pvgrub(progress, cache)
        base = None if refresh else find_base(recipe.base, cache)
        if base is None:
            base = make_base(recipe.base, progress, meter, cache)
        else:
            made = datetime.fromtimestamp(base.stat().st_mtime).strftime("%Y-%m-%d")
            progress(f"packages are of {made}, from the cache (--refresh takes the newest)")
        progress("making the disk")
        disk = draft.path / _DISK
        fd = os.open(disk, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, recipe.size)
            partition = write_table(disk, str(uuid.uuid4()), str(uuid.uuid4()))
            _fill(base, draft.path, fd, partition, recipe.first, mode)
        finally:
            os.close(fd)
        salt = os.urandom(8).hex()
        kept = {**recipe.record(), "password": _password_mark(recipe.first.password, salt)}
        origin = f"Debian {recipe.base.suite}, built"
        return draft.keep(DiskImage(name, _DISK, "raw", recipe.size, origin, now(), recipe=kept)), True


def _fill(base: Path, directory: Path, fd: int, partition: Partition, first: FirstBoot, mode: str) -> None:
    """Writes the file system into its partition."""
    root_uuid = str(uuid.uuid4())
    with tempfile.TemporaryDirectory(prefix="overlay-", dir=directory) as work:
        overlay = Path(work) / "overlay.tar"
        overlay.touch(0o600)
        overlay.write_bytes(make_tar(system_files(first, root_uuid, _resolv_conf())))
        reading, writing = os.pipe()
        life, hold = os.pipe()
        feeder = _Feeder(base, writing)
        try:
            script = make_fs_script(partition, root_uuid, fd)
            failure = mmdebstrap.run(
                mode,
                command(reading, life, overlay, script),
                progress=lambda line: None,
                meter=None,
                pass_fds=(reading, life, fd),
                lifeline=hold,
            )
        finally:
            os.close(reading)
            os.close(life)
            feeder.join()
    if feeder.error is not None:
        raise feeder.error
    if failure is not None:
        raise _error(failure)


def command(base_fd: int, life_fd: int, overlay: Path, script: str) -> list[str]:
    """Arguments of mmdebstrap that turn a base (a tar archive that comes through a descriptor) into a file system."""
    chroot = f'chroot "$1" /bin/sh /{SETUP_DIR}/setup'
    make_fs = f'bash -c {shlex.quote(script)} exec "$1"'
    # bash, for sh knows descriptors up to 9 only.
    unpack_base = (
        f'set -e; tar -C "$1" --xattrs --xattrs-include="*" --numeric-owner -xpf - <&{base_fd}; mkdir -p "$1/dev"'
    )
    return [
        "--variant=custom",
        "--format=null",
        "--architectures=amd64",
        "--skip=update,cleanup",
        f'--setup-hook=bash -c {shlex.quote(unpack_base)} exec "$1"',
        f"--customize-hook=tar-in {shlex.quote(str(overlay))} /",
        f'--customize-hook={mmdebstrap.guarded(chroot, life_fd)} exec "$1"',
        f'--customize-hook={mmdebstrap.guarded(make_fs, life_fd)} exec "$1"',
        "",
        "-",
        "deb [trusted=yes] copy:/nonexistent ./",  # never read: nothing is updated or installed
    ]


def make_fs_script(partition: Partition, root_uuid: str, fd: int) -> str:
    """The shell script that makes the file system of "$1"."""
    (mke2fs,) = need_tools("mke2fs")
    return _MAKE_FS.format(
        conf=shlex.quote(_MKE2FS_CONF),
        size=partition.size,
        mke2fs=shlex.quote(mke2fs),
        uuid=root_uuid,
        start=partition.start,
        fd=fd,
    )


class _Feeder(threading.Thread):
    """Unpacks a base into a pipe, which it closes."""

    def __init__(self, base: Path, fd: int) -> None:
        super().__init__(name="unpack", daemon=True)
        self.error: ImageError | None = None
        self._base = base
        self._fd = fd
        self.start()

    def run(self) -> None:
        """The thread."""
        try:
            with os.fdopen(self._fd, "wb") as pipe:
                unpack(self._base, pipe)
        except BrokenPipeError:
            pass  # its reader has failed, and says so
        except ImageError as error:
            self.error = error
        except OSError as error:
            self.error = ImageError(f"{self._base}: {error.strerror}")


def _resolv_conf() -> str:
    try:
        return Path("/etc/resolv.conf").read_text(errors="replace")
    except OSError:
        return ""


def _password_mark(password: str | None, salt: str) -> str:
    """Tells whether a password is the same one, without being it."""
    if password is None:
        return ""
    return f"{salt}:{hashlib.scrypt(password.encode(), salt=salt.encode(), n=1 << 14, r=8, p=1).hex()}"


def _error(failure: mmdebstrap.Failure) -> ImageError:
    text = "\n".join(failure.lines)
    if "Could not allocate block" in text or "Could not allocate inode" in text:
        return ImageError("the packages do not fit on a disk of this size", key="size", hint="such as --size 8G")
    if failure.is_of_space:
        return ImageError(mmdebstrap.NO_SPACE, hint=f"in {mmdebstrap.temporary_directory()} (TMPDIR) or the store")
    return ImageError(f"the disk cannot be made: {failure.reason()}")
