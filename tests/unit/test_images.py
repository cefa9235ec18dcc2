# SPDX-License-Identifier: Apache-2.0
"""Images: the initramfs, Debian packages without dpkg, and the cache."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from domzero.cli.main import main
from domzero.dom0.images.cache import Image, ImageCache
from domzero.dom0.images.cpio import Entry, char_device, directory, file, read_cpio, symlink, write_cpio
from domzero.dom0.images.deb import extract
from domzero.dom0.images.initramfs import build_initramfs
from domzero.errors import ConfigError, ImageError

ENTRIES = [
    directory("a"),
    file("a/one", b"1"),
    file("a/empty", b""),
    file("a/script", "#!/bin/sh\n", 0o755),
    symlink("a/link", "one"),
    char_device("a/console", 5, 1),
    *(file(f"a/{'n' * length}", b"x" * length) for length in range(1, 10)),
]


def test_an_archive_reads_back_as_it_was_written() -> None:
    assert list(read_cpio(write_cpio(ENTRIES))) == ENTRIES


@pytest.mark.skipif(not (shutil.which("cpio") or shutil.which("busybox")), reason="neither cpio nor busybox is here")
def test_another_cpio_understands_our_archives(tmp_path: Path) -> None:
    program = (
        [shutil.which("cpio") or "", "--quiet"] if shutil.which("cpio") else [shutil.which("busybox") or "", "cpio"]
    )
    entries = [entry for entry in ENTRIES if not stat.S_ISCHR(entry.mode)]
    subprocess.run([*program, "-i", "-d"], input=write_cpio(entries), cwd=tmp_path, check=True, capture_output=True)
    for entry in entries:
        path = tmp_path / entry.name
        if stat.S_ISLNK(entry.mode):
            assert str(path.readlink()) == entry.data.decode()
        elif stat.S_ISREG(entry.mode):
            assert path.read_bytes() == entry.data
            assert stat.S_IMODE(path.stat().st_mode) & 0o700 == entry.mode & 0o700
        else:
            assert path.is_dir()


def test_every_truncation_of_an_archive_is_noticed() -> None:
    data = write_cpio(ENTRIES[:4])
    end = data.index(b"TRAILER!!!")
    for length in range(0, end, 3):
        with pytest.raises(ImageError):
            list(read_cpio(data[:length]))


def test_the_initramfs_has_what_a_kernel_and_a_shutdown_need() -> None:
    entries: dict[str, Entry] = {entry.name: entry for entry in read_cpio(build_initramfs(b"\x7fELF busybox"))}
    assert entries["bin/busybox"].data == b"\x7fELF busybox"
    assert entries["init"].data == b"bin/busybox"
    assert entries["dev/console"].rdev == (5, 1)
    for name in ("etc/rc", "sbin/poweroff", "sbin/reboot", "bin/busybox"):
        assert entries[name].mode & 0o111, name
    assert b"hvc0::respawn" in entries["etc/inittab"].data
    for name in entries:  # a directory comes before what is in it
        parent = str(Path(name).parent)
        assert parent == "." or list(entries).index(parent) < list(entries).index(name)


def test_the_initramfs_is_the_same_each_time() -> None:
    assert build_initramfs(b"b") == build_initramfs(b"b")


def package(compression: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    mode = "w" if compression == "zst" else f"w:{compression}"
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    tar = buffer.getvalue()
    if compression == "zst":
        tar = zstandard.ZstdCompressor().compress(tar)
    output = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (f"data.tar.{compression}", tar)):
        output += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return output


@pytest.mark.parametrize("compression", ["xz", "gz", "zst"])
def test_files_come_out_of_a_package_without_dpkg(compression: str, tmp_path: Path) -> None:
    path = tmp_path / "p.deb"
    path.write_bytes(package(compression, {"usr/share/doc": b"no", "boot/vmlinuz-6.1.0": b"kernel"}))
    assert extract(path, {"kernel": "boot/vmlinuz-"}) == {"kernel": ("boot/vmlinuz-6.1.0", b"kernel")}


def test_a_package_without_the_file_or_cut_short_is_refused(tmp_path: Path) -> None:
    whole = package("xz", {"boot/vmlinuz-6.1.0": b"kernel" * 1000})
    path = tmp_path / "p.deb"
    path.write_bytes(whole)
    with pytest.raises(ImageError, match=r"no bin/busybox\* in it"):
        extract(path, {"busybox": "bin/busybox"})
    for length in (3, 100, 200, len(whole) - 60):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"p\.deb: "):
            extract(path, {"kernel": "boot/vmlinuz-"})


def add(cache: ImageCache, name: str) -> Image:
    image = Image(name, "debian", "1", "vmlinuz", "initramfs.cpio", "console=hvc0")
    with cache.new(image) as path:
        (path / "vmlinuz").write_bytes(b"k")
        (path / "initramfs.cpio").write_bytes(b"r")
    return image


def test_images_are_found_by_name_and_by_distribution_and_removed(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    assert cache.images() == []
    add(cache, "debian-1")
    assert cache.find("debian").name == cache.find("debian-1").name == "debian-1"
    assert Path(cache.find("debian").kernel).read_bytes() == b"k"
    cache.remove("debian-1")
    with pytest.raises(ConfigError, match="image: no such image: debian"):
        cache.find("debian")
    assert list(cache.root.iterdir()) == []


def test_an_image_that_fails_half_way_is_not_there_at_all(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    with pytest.raises(RuntimeError), cache.new(Image("i", "debian", "1", "vmlinuz", "initramfs.cpio", "")) as path:
        (path / "vmlinuz").write_bytes(b"k")
        raise RuntimeError
    assert cache.images() == []
    assert list(cache.root.iterdir()) == []


def test_an_incomplete_or_foreign_directory_is_no_image(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    add(cache, "debian-1")
    (cache.root / "debian-1" / "vmlinuz").unlink()
    (cache.root / "other").mkdir()
    (cache.root / "other" / "image.json").write_text("[1, 2]")
    assert cache.images() == []


def test_image_list_prints_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    add(ImageCache(), "debian-1")
    assert main(["image", "list", "--json"]) == 0
    assert '"name": "debian-1"' in capsys.readouterr().out


def test_fetching_without_a_package_client_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["image", "fetch", "debian"]) == 2
    assert "apt-get" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not here")
def test_fetching_into_a_directory_that_cannot_be_made_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self/fdinfo")  # read-only for root, too
    assert main(["image", "fetch", "debian", "--refresh"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("domzero: /proc/self/fdinfo") and "XDG_CACHE_HOME" in line


def package_lists(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets apt take its lists, some 8 MB of them, from a directory."""
    drawn = random.Random(1)
    fillers = [f"filler-{n}" for n in range(8000)]
    kernels = ["linux-image-amd64", "linux-image-6.1.0-1-amd64", "busybox-static"]
    paragraphs = []
    for name in fillers + kernels:
        text = "".join(drawn.choices("abcdefghijklmnop", k=900 if name in fillers else 5))
        paragraphs.append(
            f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nFilename: ./{name}.deb\nSize: 10\n"
            f"SHA256: {'0' * 64}\nDescription: {text}\n"
            + ("Depends: linux-image-6.1.0-1-amd64 (= 1)\n" if name == "linux-image-amd64" else "")
        )
    (directory / "lists").mkdir()
    (directory / "lists" / "Packages.gz").write_bytes(gzip.compress("\n".join(paragraphs).encode(), 1))
    (directory / "sources.list").write_text(f"deb [trusted=yes] file:{directory}/lists ./\n")
    (directory / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{directory}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(directory / "apt.conf"))


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not here")
def test_fetching_onto_a_full_disk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o755)
    package_lists(tmp_path, monkeypatch)
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(small))
        assert main(["image", "fetch", "debian", "--refresh"]) == 2
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("domzero: apt-get update failed: No space left on device (make room")


def test_an_image_whose_record_is_a_fifo_is_no_image(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path)
    (cache.root / "odd").mkdir(parents=True)
    os.mkfifo(cache.root / "odd" / "image.json")
    assert cache.images() == []
