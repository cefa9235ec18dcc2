# SPDX-License-Identifier: Apache-2.0
"""`domzero image build`: options, what goes into the new system, and a disk made of a very small one."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lz4.block
import pytest
import zstandard
from other_user import NOBODY, as_user
from waiting import until

from domzero.cli.main import main
from domzero.dom0.images import debian_disk, mmdebstrap
from domzero.dom0.images.debian import CMDLINE
from domzero.dom0.images.debian_base import PACKAGES, BaseRecipe, _held, _tidy, command, make_recipe
from domzero.dom0.images.debian_disk import DiskRecipe, build_debian, matches
from domzero.dom0.images.options import FirstBoot, read_ssh_keys
from domzero.dom0.images.overlay import SETUP_DIR, make_tar, setup_script, system_files
from domzero.dom0.images.sources import check_mirror, host_sources
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.images.tools import find_tool
from domzero.dom0.images.unpacked import HOOK_SCRIPT
from domzero.errors import ConfigError, DomzeroError, ImageError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@here"
TOOLS = ("mmdebstrap", "mke2fs", "sfdisk", "debugfs")
need_tools = pytest.mark.skipif(
    any(find_tool(tool) is None for tool in TOOLS), reason="not all here: mmdebstrap e2fsprogs fdisk"
)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"hostname": "a_b"}, "hostname"),
        ({"hostname": "x" * 65}, "hostname"),
        ({"hostname": "a\nb"}, "hostname"),
        ({"user": "root"}, "user"),
        ({"user": "a b"}, "user"),
        ({"user": "$(id)"}, "user"),
        ({"ssh_keys": ("ssh-rsa AAAA\nssh-rsa BBBB",)}, "ssh-key"),
        ({"ssh_keys": ("hello world",)}, "ssh-key"),
        ({"password": "a\nroot:b"}, "password"),
        ({"password": ""}, "password"),
        ({"run": (" ",)}, "run"),
    ],
)
def test_options_that_cannot_be_are_told_by_their_key(options: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FirstBoot(**options).check()  # type: ignore[arg-type]
    assert caught.value.key == key


def test_public_keys_are_a_word_or_in_a_file_and_private_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# mine\n{KEY}\n\n{KEY}2\n")
    (tmp_path / "private").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    (tmp_path / "none").write_text("# nothing\n")
    assert read_ssh_keys(KEY) == [KEY]
    assert read_ssh_keys(str(tmp_path / "keys")) == [KEY, f"{KEY}2"]
    with pytest.raises(ConfigError, match="is a private key"):
        read_ssh_keys(str(tmp_path / "private"))
    for name in ("none", "missing"):
        with pytest.raises(DomzeroError):
            read_ssh_keys(str(tmp_path / name))


def test_a_mirror_is_an_address_or_a_line_of_sources_list() -> None:
    assert check_mirror("http://mirror/debian", "trixie") == "deb http://mirror/debian trixie main"
    assert check_mirror("deb http://mirror/debian sid main contrib", "trixie").startswith(
        "deb http://mirror/debian sid"
    )
    for bad in ("mirror", "--simulate", "deb-src http://m s main", "http://m\ndeb http://n s main"):
        with pytest.raises(ConfigError):
            check_mirror(bad, "trixie")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not here")
def test_the_machines_own_mirrors_are_debians_of_that_suite_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    lists = tmp_path / "lists"
    (lists / "partial").mkdir(parents=True)
    sources = []
    for host, origin, suite in (("m1", "Debian", "bookworm"), ("m2", "Docker", "bookworm"), ("m3", "Debian", "trixie")):
        sources.append(f"deb http://{host}/debian {suite} main\n")
        (lists / f"{host}_debian_dists_{suite}_main_binary-amd64_Packages").touch()
        (lists / f"{host}_debian_dists_{suite}_Release").write_text(
            f"Origin: {origin}\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: main\nSHA256:\n"
        )
    (tmp_path / "sources.list").write_text("".join(sources))
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        f'Dir::State::lists "{lists}";\nDir::Cache "{tmp_path}";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    assert host_sources("bookworm") == ["deb http://m1/debian/ bookworm main"]
    assert host_sources("sid") == []


@pytest.mark.parametrize(
    "word", ["--suite=../x", "--packages=a;b", "--packages=-x", "--kernel-package=$x", "--size=1M"]
)
def test_words_that_would_be_options_or_code_are_refused(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["image", "build", "debian", word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("domzero: ")
    assert not (tmp_path / "data").exists()


def test_the_tools_that_are_missing_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("domzero.dom0.images.tools._SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert main(["image", "build", "debian", "--json"]) == 2
    (error,) = json.loads(capsys.readouterr().err)["errors"]
    assert error["hint"] == "apt-get install mmdebstrap e2fsprogs fdisk"


@need_tools
def test_an_ordinary_user_without_ids_of_his_own_is_told_how_to_get_some() -> None:
    if find_tool("newuidmap") is None:
        pytest.skip("newuidmap is not here (uidmap)")

    def action() -> bytes:
        try:
            return mmdebstrap.choose_mode().encode()
        except ImageError as error:
            return str(error).encode()

    assert b"user ids of your own (/etc/subuid)" in as_user(NOBODY, action)


def test_a_base_is_named_by_all_that_it_is_made_from() -> None:
    recipe = BaseRecipe("bookworm", ("deb http://m bookworm main",), ("hello",))
    others = [
        BaseRecipe("trixie", recipe.sources, recipe.packages),
        BaseRecipe("bookworm", (), recipe.packages),
        BaseRecipe("bookworm", recipe.sources, ()),
        BaseRecipe("bookworm", recipe.sources, recipe.packages, "linux-image-cloud-amd64"),
        BaseRecipe("bookworm", recipe.sources, recipe.packages, apt_options=('Acquire::http::Proxy "x";',)),
    ]
    assert len({each.digest for each in [recipe, *others]}) == 1 + len(others)
    assert recipe.digest == BaseRecipe("bookworm", ("deb http://m bookworm main",), ("hello",)).digest
    arguments = command(recipe, Path("/early.tar"))
    assert arguments[-3:] == ["bookworm", "-", "deb http://m bookworm main"]
    assert f"--include={','.join((*PACKAGES, 'linux-image-amd64', 'hello'))}" in arguments


def test_an_image_knows_whether_it_was_made_from_a_recipe_without_having_its_password() -> None:
    from domzero.dom0.images.debian_disk import _password_mark

    recipe = DiskRecipe(BaseRecipe(), FirstBoot(password="secret"))
    kept = {**recipe.record(), "password": _password_mark("secret", "salt")}
    image = DiskImage("a", "d", "raw", recipe.size, "", "", recipe=json.loads(json.dumps(kept)))
    assert "secret" not in json.dumps(kept)
    assert matches(image, recipe)
    for other in (FirstBoot(password="other"), FirstBoot(), FirstBoot(password="secret", user="me")):
        assert not matches(image, DiskRecipe(BaseRecipe(), other))


def test_the_system_starts_from_its_root_and_says_who_it_is() -> None:
    files = system_files(
        FirstBoot("web.example.org", "me", (KEY,), "secret", ("id",)), "a-uuid", "nameserver 1.2.3.4\n"
    )
    assert files["etc/hostname"].data == "web\n"
    assert "127.0.1.1\tweb.example.org web\n" in files["etc/hosts"].data
    assert files["etc/fstab"].data.startswith("UUID=a-uuid / ext4 ")
    assert files["boot/grub/grub.cfg"].data.count(f"root=UUID=a-uuid ro {CMDLINE}") == 3
    assert files["etc/sudoers.d/domzero"].mode == 0o440
    assert files[f"{SETUP_DIR}/password"].data == "me:secret\n"
    assert files[f"{SETUP_DIR}/password"].mode == 0o600
    assert files[f"{SETUP_DIR}/run-0000"].data == "id\n"
    assert files[f"{SETUP_DIR}/authorized_keys"].data == f"{KEY}\n"
    assert not any("secret" in file.data for name, file in files.items() if name != f"{SETUP_DIR}/password")
    with tarfile.open(fileobj=io.BytesIO(make_tar(files))) as archive:
        assert {member.uid for member in archive} == {0}
        names = [member.name for member in archive]
    for name in files:  # a directory comes before what is in it
        assert names.index(os.path.dirname(f"./{name}")) < names.index(f"./{name}")


@pytest.mark.parametrize(
    "first", [FirstBoot(), FirstBoot(user="me"), FirstBoot(password="x"), FirstBoot(user="me", ssh_keys=(KEY,))]
)
def test_the_script_that_finishes_it_is_a_shell_script(first: FirstBoot) -> None:
    subprocess.run(["sh", "-n"], input=setup_script(first), text=True, check=True)


def lz4_kernel(data: bytes) -> bytes:
    """LZ4's legacy frame, of one block."""
    block: bytes = lz4.block.compress(data, store_size=False)
    return struct.pack("<II", 0x184C2102, len(block)) + block


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data) + bytes(4),
    "lz4": lambda data: lz4_kernel(data) + bytes(4),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data) + bytes(4),
}
"""As Linux packs its kernels: all but gzip's have their size behind them."""


def packed_kernel(payload: bytes) -> bytes:
    """A kernel with what its header says of what is packed in it, 2 KiB into it."""
    header = bytearray(2048 + 100)
    header[497] = 3
    struct.pack_into("<II", header, 584, 100, len(payload))
    return bytes(header) + payload + b"behind"


def run_hook(root: Path) -> str:
    """Runs the hook in a directory that stands for its system's root."""
    script = HOOK_SCRIPT.replace("/boot/xen", f"{root}/boot/xen").replace('"/$link"', f'"{root}/$link"')
    result = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    return result.stderr


def test_kernels_are_kept_unpacked_whatever_they_are_packed_with(tmp_path: Path) -> None:
    if any(shutil.which(tool) is None for tool in PACKERS):
        pytest.skip("gzip, xz, lz4 or zstd is not here")
    (tmp_path / "boot" / "xen").mkdir(parents=True)
    contents = {name: b"\x7fELF" + name.encode() * 1000 + bytes(100_000) for name in PACKERS}
    for name, pack in PACKERS.items():
        (tmp_path / "boot" / f"vmlinuz-{name}").write_bytes(packed_kernel(pack(contents[name])))
    unpacked = tmp_path / "boot" / "xen"
    link, old = tmp_path / "vmlinuz", tmp_path / "vmlinuz.old"
    link.symlink_to("boot/vmlinuz-gzip")
    old_name = "gzip"
    for name in ("xz", "lz4", "zstd"):  # upgrades
        old.unlink(missing_ok=True)
        link.rename(old)
        link.symlink_to(f"boot/vmlinuz-{name}")
        assert run_hook(tmp_path) == ""
        assert (unpacked / "vmlinuz").read_bytes() == contents[name]
        assert (unpacked / "vmlinuz.old").read_bytes() == contents[old_name]
        old_name = name
    (tmp_path / "boot" / "vmlinuz-gzip").unlink()
    old.unlink()
    made = (unpacked / "vmlinuz-zstd").stat().st_mtime_ns
    assert run_hook(tmp_path) == ""
    assert sorted(os.listdir(unpacked)) == ["vmlinuz", "vmlinuz-lz4", "vmlinuz-xz", "vmlinuz-zstd"]
    assert (unpacked / "vmlinuz-zstd").stat().st_mtime_ns == made

    # What is damaged, or packed in another way, is there as it is; and is unpacked when it comes anew.
    for number, bad in enumerate((b"", b"\x28\xb5\x2f\xfd damaged", b"LZO!", PACKERS["xz"](b"no ELF")), 1):
        kernel = tmp_path / "boot" / f"vmlinuz-bad{number}"
        kernel.write_bytes(packed_kernel(bad))
        link.unlink()
        link.symlink_to(f"boot/{kernel.name}")
        assert f"{kernel} is not unpacked" in run_hook(tmp_path)
        assert (unpacked / "vmlinuz").resolve() == kernel
        assert not (unpacked / ".new").exists()
        kernel.write_bytes(packed_kernel(PACKERS["zstd"](contents["zstd"])))
        run_hook(tmp_path)
        assert (unpacked / "vmlinuz").read_bytes() == contents["zstd"]


def test_the_reason_of_a_failure_is_a_line_that_can_be_read() -> None:
    command = "E: env chroot /root dpkg --install " + " ".join(
        f"/archives/package{number}.deb" for number in range(200)
    )
    reason = mmdebstrap.Failure(25, ["I: installing", f"{command} failed"]).reason()
    assert reason.startswith("env chroot /root dpkg") and reason.endswith("package199.deb failed") and len(reason) < 310
    full = mmdebstrap.Failure(25, ["dpkg: error: cannot copy: No space left on device", f"{command} failed"])
    assert full.is_of_space and full.reason() == "No space left on device"


def test_what_a_killed_build_has_left_in_the_cache_is_deleted_and_another_builds_is_not(tmp_path: Path) -> None:
    left, used, new = (tmp_path / f".new-{name}" for name in ("left", "used", "new"))
    for path in (left, used, new):
        path.mkdir()
        (path / "base.tar.zst").write_bytes(b"half")
    for path in (left, used):
        os.utime(path, (1, 1))
    with _held(used):
        _tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new-new", ".new-used"]


def processes_naming(text: str) -> list[str]:
    """Processes with this text in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if text.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def small_base(path: Path, *, fill: int = 0) -> None:
    """A base with a shell, its libraries, and commands that do what setup needs of them: nothing."""
    shell = os.path.realpath("/bin/sh")
    programs = [shell, *(tool for name in ("rm", "cp", "ln", "touch", "cat", "id") if (tool := shutil.which(name)))]
    libraries: set[str] = set()
    for program in programs:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        libraries |= set(re.findall(r"(/\S+) \(0x", listed))
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:

        def add(name: str, data: bytes, mode: int = 0o755, uid: int = 0) -> None:
            entry = tarfile.TarInfo(f"./{name}")
            entry.size, entry.mode, entry.uid, entry.gid = len(data), mode, uid, uid
            archive.addfile(entry, io.BytesIO(data))

        for name in ("bin", "proc", "sys", "tmp", "var", "var/lib", "var/lib/dbus", "var/log", "etc/ssh", "root"):
            entry = tarfile.TarInfo(f"./{name}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for library in sorted(libraries):
            add(library.lstrip("/"), Path(os.path.realpath(library)).read_bytes())
        add("bin/sh", Path(shell).read_bytes())
        for program in programs[1:]:
            add(f"bin/{os.path.basename(program)}", Path(os.path.realpath(program)).read_bytes())
        for name in ("systemctl", "apt-get", "passwd"):
            add(f"bin/{name}", b"#!/bin/sh\nexit 0\n")
        add("etc/ssh/ssh_host_rsa_key", b"the same for all")
        add("etc/machine-id", b"the same for all")
        add("bin/setuid", b"s", 0o4755, 7)
        add("fill", os.urandom(fill))
    path.write_bytes(zstandard.ZstdCompressor().compress(output.getvalue()))


@pytest.fixture
def small(tmp_path: Path) -> tuple[DiskStore, Path, BaseRecipe]:
    """A store, and a cache with a small base and a GRUB."""
    tmp_path.chmod(0o755)
    recipe, cache = BaseRecipe(), tmp_path / "cache"
    for name in ("bases", "grub"):
        (cache / name).mkdir(parents=True)
    (cache / "grub" / "grub-x86_64-xen.bin").write_bytes(b"GRUB")
    small_base(cache / "bases" / f"{recipe.digest}.tar.zst")
    return DiskStore(tmp_path / "data"), cache, recipe


def on_disk(image: DiskImage, *requests: str) -> str:
    program = find_tool("debugfs")
    assert program is not None
    script = "".join(f"{request}\n" for request in requests)
    file = f"{image.disk}?offset={1 << 20}"
    result = subprocess.run([program, "-f", "-", file], input=script, capture_output=True, text=True, check=True)
    return result.stdout


@need_tools
def test_a_disk_has_the_systems_files_with_their_owners(
    small: tuple[DiskStore, Path, BaseRecipe], tmp_path: Path
) -> None:
    store, cache, base = small
    said: list[str] = []
    first = FirstBoot("web", run=("id -u > /root/ran; echo $0 >> /root/ran",))
    recipe = DiskRecipe(base, first, 1 << 30)
    try:
        image, built = build_debian(store, "web", recipe, progress=said.append, cache=cache)
    except ImageError as error:
        pytest.skip(f"no file system can be made here: {error}")
    assert built and image.size == 1 << 30 and any("from the cache" in line for line in said)
    assert os.stat(image.disk).st_blocks * 512 < 100 << 20
    assert [path.name for path in store.root.iterdir()] == ["web"]

    check = find_tool("e2fsck")
    assert check is not None
    subprocess.run([check, "-f", "-n", f"{image.disk}?offset={1 << 20}"], check=True, capture_output=True)
    assert on_disk(image, "cat /etc/hostname").endswith("web\n")
    assert "search" not in on_disk(image, "cat /boot/grub/grub.cfg")
    assert on_disk(image, "cat /root/ran").endswith("0\n.domzero/run-0000\n")
    assert re.search(r"User: +7 +Group: +7", on_disk(image, "stat /bin/setuid"))
    assert "Mode:  04755" in on_disk(image, "stat /bin/setuid")
    assert "Size: 0\n" in on_disk(image, "stat /etc/machine-id").replace("   ", " ").replace("  ", " ")
    for gone in ("/etc/ssh/ssh_host_rsa_key", f"/{SETUP_DIR}", "/proc/self", "/dev/null"):
        assert "Inode:" not in on_disk(image, f"stat {gone}"), gone
    assert "Type: directory" in on_disk(image, "stat /dev")

    assert build_debian(store, "web", recipe, progress=said.append, cache=cache) == (image, False)
    assert not any("warning" in line for line in said)
    other = DiskRecipe(base, FirstBoot("mail"), 1 << 30)
    with pytest.raises(ConfigError, match="it was made differently"):
        build_debian(store, "web", other, progress=said.append, cache=cache)
    again, built = build_debian(store, "web", other, progress=said.append, cache=cache, replace=True)
    assert built and on_disk(again, "cat /etc/hostname").endswith("mail\n")


@need_tools
def test_what_does_not_fit_or_fails_inside_is_said_and_leaves_nothing(
    small: tuple[DiskStore, Path, BaseRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, cache, base = small
    if "root" not in (mode := mmdebstrap.choose_mode()):
        pytest.skip(f"in mode {mode}")
    recipe = DiskRecipe(base, FirstBoot(run=("echo trouble >&2; exit 7",)), 1 << 30)
    with pytest.raises(ImageError, match="--run: exit status 7"):
        build_debian(store, "web", recipe, progress=lambda line: None, cache=cache)
    damaged = cache / "bases" / f"{base.digest}.tar.zst"
    damaged.write_bytes(damaged.read_bytes()[:-100] + bytes(100))
    with pytest.raises(ImageError, match="was damaged, and is deleted now"):
        build_debian(store, "web", DiskRecipe(base, FirstBoot(), 1 << 30), progress=lambda line: None, cache=cache)
    # A disk that is smaller than any is full sooner.
    monkeypatch.setattr(debian_disk, "SIZE_MIN", size := 64 << 20)
    small_base(damaged, fill=size - (1 << 20))
    with pytest.raises(ImageError, match="do not fit on a disk of this size"):
        build_debian(store, "web", DiskRecipe(base, FirstBoot(), size), progress=lambda line: None, cache=cache)
    assert store.images() == [] and list(store.root.iterdir()) == []


@need_tools
def test_what_an_ordinary_users_build_is_made_in_can_be_replaced_by_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may write into the directory, as the build's own root is another user; so it is sticky."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    modes: list[int] = []

    def look(_: object) -> None:
        modes.extend(path.stat().st_mode & 0o7777 for path in tmp_path.iterdir())

    assert mmdebstrap.run("unshare", ["--no-such-option"], progress=print, meter=None, output=look) is not None
    assert modes == [0o1777] and list(tmp_path.iterdir()) == []


@need_tools
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing(
    number: signal.Signals,
    small: tuple[DiskStore, Path, BaseRecipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its --run command never ends by itself."""
    _, cache, _ = small
    recipe = make_recipe()
    small_base(cache / "bases" / f"{recipe.digest}.tar.zst")
    shutil.move(cache, tmp_path / "c" / "domzero")
    work = tmp_path / "work"
    work.mkdir(mode=0o777)
    work.chmod(0o777)
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(tmp_path / "d"),
        "XDG_CACHE_HOME": str(tmp_path / "c"),
        "TMPDIR": str(work),
    }
    command = [sys.executable, "-m", "domzero", "image", "build", "debian", "--size", "1G"]
    command += ["--run", "echo here > /tmp/here; while :; do :; done"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        until(lambda: any(work.glob("*/mmdebstrap.*/tmp/here")) or process.poll() is not None)
        assert process.poll() is None, process.stderr and process.stderr.read()
        process.send_signal(number)
        assert process.wait(60) != 0
    finally:
        process.kill()
        if process.stderr is not None:
            process.stderr.close()
    store = DiskStore(tmp_path / "d" / "domzero")
    if number != signal.SIGKILL:
        assert list(store.root.iterdir()) == [] and list(work.iterdir()) == []
        return
    until(lambda: not processes_naming(str(work)))
    for left in work.iterdir():
        os.utime(left, (1, 1))  # long ago
    first = FirstBoot(run=("exit 7",))
    with pytest.raises(ImageError, match="exit status 7"):
        monkeypatch.setenv("TMPDIR", str(work))
        build_debian(
            store, "other", DiskRecipe(recipe, first, 1 << 30), progress=print, cache=tmp_path / "c" / "domzero"
        )
    assert list(store.root.iterdir()) == [] and list(work.iterdir()) == []


@need_tools
def test_a_suite_that_is_not_known_to_start_is_built_with_a_warning(
    small: tuple[DiskStore, Path, BaseRecipe], tmp_path: Path
) -> None:
    store, cache, base = small
    said: list[str] = []
    forky = BaseRecipe("forky")
    bases = cache / "bases"
    shutil.copy(bases / f"{base.digest}.tar.zst", bases / f"{forky.digest}.tar.zst")
    recipe = DiskRecipe(forky, FirstBoot(), 1 << 30)
    build_debian(store, "web", recipe, progress=said.append, cache=cache)
    assert said[0].startswith("warning: forky is not known to start")
