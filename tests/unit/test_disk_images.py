# SPDX-License-Identifier: Apache-2.0
"""Disk images: the store, clones and their layers, imports from other formats, locks."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from domzero.cli.main import main
from domzero.dom0.images import qemu
from domzero.dom0.images.cache import Image, ImageCache
from domzero.dom0.images.copying import copy_file
from domzero.dom0.images.disks import clone_disk, describe, export_disk, import_disk
from domzero.dom0.images.locks import exclusive
from domzero.dom0.images.lookup import disk_spec
from domzero.dom0.images.options import check_image_name, parse_size
from domzero.dom0.images.partition import read_table, write_table
from domzero.dom0.images.qemu import FORMATS, format_of
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.images.tools import find_tool, need_tools, run_tool
from domzero.dom0.images.upkeep import check_disk, resize_disk
from domzero.errors import ConfigError, ImageError

MIB = 1 << 20
need_qemu = pytest.mark.skipif(find_tool("qemu-img") is None, reason="qemu-img is not here (qemu-utils)")
need_sfdisk = pytest.mark.skipif(find_tool("sfdisk") is None, reason="sfdisk is not here (fdisk)")


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "data")


def contents(seed: int, size: int = 3 * MIB) -> bytes:
    """A disk with something at its start, in its middle and at its end, and a hole between."""
    block = bytes([seed]) * 4096
    return block + bytes(size // 2 - 4096) + block + bytes(size // 2 - 8192) + block


def disk_file(path: Path, data: bytes) -> Path:
    with path.open("wb") as file:
        for at in range(0, len(data), 4096):
            if any(part := data[at : at + 4096]):
                file.seek(at)
                file.write(part)
        file.truncate(len(data))
    return path


def add(store: DiskStore, name: str, data: bytes) -> DiskImage:
    store.root.mkdir(parents=True, exist_ok=True)
    source = disk_file(store.root.parent / f"{name}.source", data)
    return import_disk(store, source, name).image


def read_disk(image: DiskImage, tmp_path: Path) -> bytes:
    """What the guest of an image reads, as qemu-img has it."""
    if image.format == "raw":
        return Path(image.disk).read_bytes()
    out = tmp_path / "read.raw"
    program = find_tool("qemu-img")
    assert program is not None
    subprocess.run([program, "convert", "-f", image.format, "-O", "raw", image.disk, out], check=True)
    return out.read_bytes()


def write_disk(image: DiskImage, at: int, byte: int) -> None:
    """Writes 4 KiB as a guest would: into the image's own file."""
    if image.format == "raw":
        with open(image.disk, "r+b") as file:
            file.seek(at)
            file.write(bytes([byte]) * 4096)
        return
    program = shutil.which("qemu-io")
    assert program is not None
    subprocess.run([program, "-f", image.format, "-c", f"write -P {byte} {at} 4096", image.disk], check=True)


def test_a_raw_disk_is_imported_with_its_holes_and_found_again(store: DiskStore, tmp_path: Path) -> None:
    data = contents(7, 64 * MIB)
    image = add(store, "web", data)
    assert (image.name, image.format, image.size, image.boot) == ("web", "raw", len(data), "pvgrub")
    assert Path(image.disk).read_bytes() == data
    assert os.stat(image.disk).st_blocks * 512 < MIB
    assert os.stat(image.disk).st_mode & 0o077 == 0
    assert store.images() == [image] and store.find("web") == image
    assert describe(store, image)["in_use"] is False


def test_an_odd_size_is_filled_to_a_whole_sector(store: DiskStore, tmp_path: Path) -> None:
    image = import_disk(store, disk_file(tmp_path / "odd.img", b"x" * 1000), "odd").image
    assert image.size == 1024 and Path(image.disk).read_bytes() == b"x" * 1000 + bytes(24)


@need_qemu
@pytest.mark.parametrize("format", ["qcow2", "vhd", "vmdk", "vhdx"])
def test_other_formats_are_imported_and_exported_with_the_same_contents(
    format: str, store: DiskStore, tmp_path: Path
) -> None:
    data = contents(3, 8 * MIB)
    raw = disk_file(tmp_path / "raw", data)
    foreign = tmp_path / "disk.img"
    options = ["-o", "force_size"] if format == "vhd" else []
    program = find_tool("qemu-img")
    assert program is not None
    subprocess.run([program, "convert", "-f", "raw", "-O", FORMATS[format], *options, raw, foreign], check=True)
    assert format_of(foreign) == format
    image = import_disk(store, foreign, "in").image
    assert image.format == "qcow2" and image.size == len(data)
    assert read_disk(image, tmp_path) == data
    export_disk(store, "in", tmp_path / "out.raw", "raw")
    assert (tmp_path / "out.raw").read_bytes() == data
    export_disk(store, "in", tmp_path / "out", format)
    assert format_of(tmp_path / "out") == format


@need_qemu
def test_an_image_that_would_read_files_of_this_machine_is_refused(store: DiskStore, tmp_path: Path) -> None:
    secret = disk_file(tmp_path / "secret", contents(9))
    program = find_tool("qemu-img")
    assert program is not None
    backed = tmp_path / "backed.qcow2"
    subprocess.run([program, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, backed], check=True)
    outside = tmp_path / "outside.qcow2"
    options = f"data_file={tmp_path / 'data.raw'},data_file_raw=on"
    subprocess.run([program, "create", "-q", "-f", "qcow2", "-o", options, outside, "1M"], check=True)
    split = tmp_path / "split.vmdk"
    options = "subformat=twoGbMaxExtentSparse"
    subprocess.run([program, "create", "-q", "-f", "vmdk", "-o", options, split, "4G"], check=True)
    for path in (backed, outside):
        with pytest.raises(ImageError, match="it needs other files"):
            import_disk(store, path, "in")
    with pytest.raises(ImageError, match="describes other files"):
        import_disk(store, split, "in")
    assert store.images() == [] and list(store.root.iterdir()) == []


@need_qemu
def test_what_a_guest_may_write_to_is_looked_at_in_a_copy(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could else say, once it is looked at, that it rests on any file of the owner's."""
    secret, shared = disk_file(tmp_path / "secret", contents(9)), tmp_path / "shared.qcow2"
    program = find_tool("qemu-img")
    assert program is not None
    subprocess.run([program, "create", "-q", "-f", "qcow2", shared, "1M"], check=True)
    inspect = qemu.inspect

    def looked_at(path: Path, format: str) -> qemu.Disk:
        found = inspect(path, format)
        shared.unlink()
        subprocess.run([program, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, shared], check=True)
        return found

    monkeypatch.setattr(qemu, "inspect", looked_at)
    image = import_disk(store, shared, "in", is_shared=True).image
    assert image.origin == "shared.qcow2 (qcow2), imported"
    raw = tmp_path / "out.raw"
    subprocess.run([program, "convert", "-O", "raw", image.disk, raw], check=True)
    assert raw.read_bytes() == bytes(1 << 20)
    assert [path.name for path in store.root.iterdir()] == ["in"]


@need_qemu
def test_a_damaged_image_is_one_line_and_leaves_nothing(store: DiskStore, tmp_path: Path) -> None:
    for name, data in (("a", b"QFI\xfb" + b"\xff" * 2000), ("b", b"KDMV" + b"\xff" * 2000), ("c", b"conectix" * 64)):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ImageError, match=r"qemu-img failed: .+"):
            import_disk(store, path, "in")
    assert list(store.root.iterdir()) == []


def test_without_qemu_img_other_formats_name_the_package(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"QFI\xfb" + bytes(2000))
    monkeypatch.setattr("domzero.dom0.images.tools._SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="this needs qemu-img") as caught:
        import_disk(store, path, "in")
    assert caught.value.hint == "apt-get install qemu-utils"


def test_what_is_no_disk_is_refused(store: DiskStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    for name, reason in (("fifo", "not a regular file"), ("none", "No such file"), ("empty", "there is no disk")):
        with pytest.raises(ImageError, match=reason):
            import_disk(store, tmp_path / name, "in")


@need_qemu
def test_clones_go_on_from_the_same_contents_on_their_own(store: DiskStore, tmp_path: Path) -> None:
    first = contents(1)
    add(store, "a", first)
    clone_disk(store, "a", "b")
    a, b = store.find("a"), store.find("b")
    assert read_disk(a, tmp_path) == read_disk(b, tmp_path) == first
    if a.format == "raw":
        pytest.skip("this file system shares blocks: there are no layers")
    write_disk(a, 0, 5)
    write_disk(b, 4096, 6)
    clone_disk(store, "b", "c")
    write_disk(store.find("c"), 8192, 7)
    changed = [bytearray(first) for _ in range(3)]
    changed[0][:4096] = b"\5" * 4096
    changed[1][4096:8192] = b"\6" * 4096
    changed[2][4096:12288] = b"\6" * 4096 + b"\7" * 4096
    assert [read_disk(store.find(name), tmp_path) for name in "abc"] == changed
    assert describe(store, store.find("a"))["shares_with"] == ["b", "c"]
    store.remove("a")
    store.remove("b")
    assert read_disk(store.find("c"), tmp_path) == changed[2]
    export_disk(store, "c", tmp_path / "flat", "raw")
    assert (tmp_path / "flat").read_bytes() == changed[2]
    store.remove("c")
    assert list(store.layers.iterdir()) == []


@need_qemu
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_disk_that_has_grown_is_cloned_as_large_as_it_is(store: DiskStore, tmp_path: Path, form: str) -> None:
    image = add(store, "a", contents(3))
    if form == "qcow2":
        clone_disk(store, "a", "b")
        image = store.find("b")
    subprocess.run(["qemu-img", "resize", "-q", "-f", image.format, image.disk, "5M"], check=True)
    clone_disk(store, image.name, "c")
    assert store.find(image.name).size == store.find("c").size == 5 * MIB
    assert read_disk(store.find("c"), tmp_path) == contents(3) + bytes(2 * MIB)


@need_qemu
def test_many_clones_of_what_nobody_has_written_share_one_layer(store: DiskStore, tmp_path: Path) -> None:
    add(store, "a", contents(1))
    for number in range(4):
        clone_disk(store, "a", f"b{number}")
    clone_disk(store, "b0", "c")
    if store.find("a").format == "raw":
        pytest.skip("this file system shares blocks: there are no layers")
    assert len(list(store.layers.iterdir())) == 1
    assert {len(image.layers) for image in store.images()} == {1}


def test_without_qemu_img_a_clone_is_a_copy(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    data = contents(4)
    add(store, "a", data)
    monkeypatch.setattr("domzero.dom0.images.tools._SBIN", ())
    monkeypatch.setenv("PATH", "")
    image = clone_disk(store, "a", "b")
    assert (image.format, Path(image.disk).read_bytes()) == ("raw", data)


def lock_as_qemu_does(path: str, byte: int) -> int:
    """A lock of an open file on one byte: 101 says "I write", 100 "I read"."""
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    return fd


@pytest.mark.parametrize("byte", [100, 101])
def test_a_disk_in_use_is_not_removed_cloned_or_exported(byte: int, store: DiskStore, tmp_path: Path) -> None:
    image = add(store, "a", contents(1))
    fd = lock_as_qemu_does(image.disk, byte)
    for action in (
        lambda: store.remove("a"),
        lambda: clone_disk(store, "a", "b"),
        lambda: export_disk(store, "a", tmp_path / "out", "raw"),
    ):
        with pytest.raises(ImageError, match="a is in use"):
            action()
    assert describe(store, image)["in_use"] is True
    assert [each.name for each in store.images()] == ["a"] and not (tmp_path / "out").exists()
    os.close(fd)
    store.remove("a")
    assert store.images() == []


@need_qemu
def test_qemus_own_tools_and_we_refuse_each_other(store: DiskStore) -> None:
    program = shutil.which("qemu-io")
    assert program is not None
    image = add(store, "a", contents(1))
    with subprocess.Popen(
        [program, "-f", "raw", image.disk], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("length\n")
        process.stdin.flush()
        assert "3 MiB" in process.stdout.readline()
        with pytest.raises(ImageError, match="a is in use"):
            store.remove("a")
        process.stdin.close()
    from domzero.dom0.images.locks import exclusive

    with exclusive(Path(image.disk), "a"):
        result = subprocess.run([program, "-f", "raw", "-c", "write 0 512", image.disk], capture_output=True, text=True)
        assert 'Failed to get "write" lock' in result.stderr


def test_what_is_half_made_is_not_there_and_swept_away_later(store: DiskStore) -> None:
    with pytest.raises(RuntimeError), store.draft("a") as draft:
        (draft.path / "disk.raw").write_bytes(b"half")
        raise RuntimeError
    assert store.images() == [] and list(store.root.iterdir()) == []
    left = store.root / ".new-killed"  # of a process that was killed
    left.mkdir()
    (left / "disk.raw").write_bytes(b"half")
    with store.draft("b") as alive:
        assert not left.exists()
        with store.draft("c"):
            assert alive.path.exists()  # somebody is at work there
    assert list(store.root.iterdir()) == []


def test_a_name_is_taken_once_and_given_away_only_on_request(store: DiskStore, tmp_path: Path) -> None:
    add(store, "a", contents(1))
    source = disk_file(tmp_path / "new", contents(2))
    with pytest.raises(ConfigError, match="there is an image a already"):
        import_disk(store, source, "a")
    assert Path(store.find("a").disk).read_bytes() == contents(1)
    import_disk(store, source, "a", replace_old=True)
    assert Path(store.find("a").disk).read_bytes() == contents(2)


@pytest.mark.parametrize("name", ["", ".", "..", ".new-x", "a/b", "-a", "a b", "ä", "a" * 101, "debian", "17", "a\n"])
def test_names_that_cannot_be_are_refused(name: str, store: DiskStore) -> None:
    with pytest.raises(ConfigError):
        check_image_name(name)
    assert store.get(name) is None
    with pytest.raises(ConfigError), store.draft(name):
        pass
    assert not store.root.exists()


@pytest.mark.parametrize(("text", "size"), [("4G", 4 << 30), ("512", 512 * MIB), ("1T", 1 << 40), ("2GiB", 2 << 30)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "4K", "1.5G", "17T", "9" * 15 + "T", "G", "٤G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_size(text)


@pytest.mark.parametrize("change", [{"disk": "../../secret"}, {"name": "b"}, {"layers": 3}, {"new": 1}])
def test_a_record_that_is_damaged_is_no_image(change: dict[str, object], store: DiskStore) -> None:
    image = add(store, "a", contents(1))
    (store.root.parent / "secret").write_bytes(b"secret")
    record = Path(image.disk).with_name("disk.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    assert store.images() == [] and store.get("a") is None


def test_a_disks_path_may_have_commas_and_blanks_in_a_specification(store: DiskStore) -> None:
    image = add(store, "a", contents(1))
    assert disk_spec(image) == f"format=raw, vdev=xvda, access=rw, target={image.disk}"


def test_a_copy_keeps_holes(tmp_path: Path) -> None:
    for data in (b"", contents(1, 64 * MIB), bytes(MIB), b"x" * 5000):
        source, target = disk_file(tmp_path / "source", data), tmp_path / "target"
        copy_file(source, target, share=False)
        assert target.read_bytes() == data
        assert target.stat().st_blocks <= source.stat().st_blocks + 8
        target.unlink()


@need_sfdisk
def test_the_partition_table_is_looked_at(store: DiskStore, tmp_path: Path) -> None:
    source = disk_file(tmp_path / "disk", bytes(8 * MIB))
    program = find_tool("sfdisk")
    assert program is not None
    for script, label, linux in (
        ("label: gpt\nsize=2M, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\ntype=linux\n", "gpt", True),
        ("label: dos\n,2M,83\n,,7\n", "dos", True),
        ("label: dos\n,,7\n", "dos", False),
    ):
        subprocess.run([program, "-q", source], input=script, text=True, check=True)
        table = import_disk(store, source, "a", replace_old=True).table
        assert table is not None and (table.label, table.may_be_linux) == (label, linux)
        if find_tool("qemu-img") is not None:
            export_disk(store, "a", tmp_path / f"{label}.qcow2", "qcow2")
            again = import_disk(store, tmp_path / f"{label}.qcow2", "b", replace_old=True).table
            assert again == table
            (tmp_path / f"{label}.qcow2").unlink()
    disk_file(source, bytes(8 * MIB))
    bare = import_disk(store, source, "a", replace_old=True).table
    assert bare is not None and bare.label is None and bare.may_be_linux


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "domzero" / "grub").mkdir(parents=True)
    (tmp_path / "cache" / "domzero" / "grub" / "grub-x86_64-xen.bin").write_bytes(b"GRUB")
    return tmp_path


def test_the_verbs_do_what_they_say(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str, status: int = 0) -> str:
        assert main(["image", *words]) == status
        captured = capsys.readouterr()
        return captured.out if status == 0 else captured.err

    disk_file(home / "cloud.img", contents(1))
    assert json.loads(run("import", str(home / "cloud.img"), "--json"))["name"] == "cloud"
    assert "cloud, a clone" not in run("list")
    assert json.loads(run("clone", "cloud", "web", "--json"))["origin"] == "cloud, cloned"
    assert [image["name"] for image in json.loads(run("list", "--json"))] == ["cloud", "web"]
    assert json.loads(run("show", "web", "--json"))["size"] == 3 * MIB
    assert json.loads(run("export", "web", str(home / "out"), "--json"))["bytes"] == 3 * MIB
    assert (home / "out").read_bytes() == contents(1)
    assert "File exists" in run("export", "web", str(home / "out"), status=2)
    assert "there is an image web already" in run("clone", "cloud", "web", status=2)
    assert "no such disk image: nothing" in run("clone", "nothing", "x", status=2)
    assert "name: letters, digits" in run("clone", "cloud", "a/b", status=2)
    assert run("remove", "cloud") == "deleted cloud\n"
    assert "no such image: cloud" in run("rm", "cloud", status=2)
    assert json.loads(run("rm", "web", "--json"))["name"] == "web"
    assert json.loads(run("list", "--json")) == []


@need_qemu
def test_a_tool_with_many_threads_fits_its_bound_of_memory_on_a_host_of_many_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "64")  # what glibc takes itself with eight processors
    path = tmp_path / "disk"
    path.write_bytes(bytes(64 * MIB))
    (qemu_img,) = need_tools("qemu-img")
    said = run_tool(
        [qemu_img, "bench", "-f", "raw", "-d", "64", "-c", "5000", "-s", "65536", str(path)], memory=1 << 30
    )
    assert "Run completed" in said


def test_a_disk_that_a_guest_wrote_is_no_cache_entry_and_both_kinds_are_listed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ImageCache().new(Image("debian-1", "debian", "6.1", "vmlinuz", "initramfs.cpio", "")) as path:
        (path / "vmlinuz").write_bytes(b"k")
        (path / "initramfs.cpio").write_bytes(b"r")
    add(DiskStore(), "web", contents(1))
    assert main(["image", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["web       disk    0.00293 GiB, web.source (raw), imported",
                                                    "debian-1  kernel  6.1"]  # fmt: skip
    assert main(["image", "rm", "debian"]) == 0
    assert [image.name for image in DiskStore().images()] == ["web"]


@need_qemu
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_disk_grows_and_keeps_what_is_on_it(format: str, store: DiskStore, tmp_path: Path) -> None:
    data = contents(7, 8 * MIB)
    image = add(store, "web", data)
    if format == "qcow2":
        export_disk(store, "web", tmp_path / "web.qcow2", "qcow2")
        image = import_disk(store, tmp_path / "web.qcow2", "web", replace_old=True).image
    assert resize_disk(store, "web", "+4M").size == 12 * MIB
    image = resize_disk(store, "web", "16M")
    assert read_disk(image, tmp_path) == data + bytes(8 * MIB)
    assert store.find("web") == image and check_disk(store, "web") == []
    for size, message in (("15M", "is not made smaller"), ("+x", "is no size"), ("+16T", "at most 16T")):
        with pytest.raises(ConfigError, match=message):
            resize_disk(store, "web", size)
    with exclusive(Path(image.disk), "web"):
        with pytest.raises(ImageError, match="web is in use"):
            resize_disk(store, "web", "+1M")
        with pytest.raises(ImageError, match="web is in use"):
            check_disk(store, "web")
    assert store.find("web").size == 16 * MIB


@need_qemu
@need_sfdisk
def test_the_partition_of_a_built_disk_grows_with_it(store: DiskStore, tmp_path: Path) -> None:
    with store.draft("built") as draft:
        disk = draft.path / "disk.raw"
        disk.write_bytes(b"")
        os.truncate(disk, 64 * MIB)
        before = write_table(disk, str(uuid.uuid4()), str(uuid.uuid4()))
        record = DiskImage("built", "disk.raw", "raw", 64 * MIB, "", "", recipe={"suite": "bookworm"})
        draft.keep(record)
    image = resize_disk(store, "built", "+64M")
    table = read_table(Path(image.disk), "raw", image.size)
    assert table is not None
    (after,) = table.partitions
    assert (after.start, after.type) == (before.start, before.type) and after.size >= before.size + 64 * MIB
    assert check_disk(store, "built") == []
    os.truncate(image.disk, 32 * MIB)
    assert check_disk(store, "built") == [f"it has {32 * MIB} bytes, and had {128 * MIB}"]


@need_qemu
def test_damage_is_found_and_named(store: DiskStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = add(store, "web", contents(7, 8 * MIB))
    export_disk(store, "web", tmp_path / "web.qcow2", "qcow2")
    image = import_disk(store, tmp_path / "web.qcow2", "web", replace_old=True).image
    with open(image.disk, "r+b") as file:
        (table,) = struct.unpack(">Q", os.pread(file.fileno(), 8, 40))  # the L1 table's offset
        (entry,) = struct.unpack(">Q", os.pread(file.fileno(), 8, table))
        os.pwrite(file.fileno(), struct.pack(">Q", entry | 0x1000000000), table)
    found = check_disk(store, "web")
    assert found and all("damaged" in problem or "lost" in problem or "checked" in problem for problem in found)


@need_qemu
def test_a_file_is_shown_as_it_would_be_imported(
    store: DiskStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(store, "web", contents(7, 8 * MIB))
    for format in ("vmdk", "vhd"):
        file = tmp_path / f"web.{format}"
        export_disk(store, "web", file, format)
        assert main(["image", "show", str(file), "--json"]) == 0
        about = json.loads(capsys.readouterr().out)
        assert (about["kind"], about["format"]) == ("file", format) and about["size"] >= 8 * MIB
    assert main(["image", "show", str(tmp_path / "none.raw")]) == 2
    assert "No such file" in capsys.readouterr().err
