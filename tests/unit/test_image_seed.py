# SPDX-License-Identifier: Apache-2.0
"""What cloud images are told at their first start: `domzero image seed`, and the options of `run` and `create`."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from domzero.cli.main import main
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.seed import Documents, make_seed, user_data
from domzero.dom0.images.store import DiskImage, DiskStore

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@here"


def test_a_seed_is_what_cloud_init_looks_for(tmp_path: Path) -> None:
    pycdlib = pytest.importorskip("pycdlib")
    target = tmp_path / "seed.iso"
    first = FirstBoot("web", "me", (KEY,), "secret", ("touch /done",))
    make_seed(target, Documents(user_data(first), first.hostname, "version: 2\n"))
    assert target.stat().st_mode & 0o077 == 0
    iso = pycdlib.PyCdlib()
    iso.open(str(target))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    files = {}
    for name in ("user-data", "meta-data", "network-config"):
        output = io.BytesIO()
        iso.get_file_from_iso_fp(output, rr_path=f"/{name}")
        files[name] = output.getvalue().decode()
        again = io.BytesIO()
        iso.get_file_from_iso_fp(again, joliet_path=f"/{name}")
        assert again.getvalue() == output.getvalue()
    iso.close()
    head, _, body = files["user-data"].partition("\n")
    config = json.loads(body)
    assert head == "#cloud-config"
    assert config["users"][0]["ssh_authorized_keys"] == [KEY]
    assert config["chpasswd"]["users"] == [{"name": "me", "password": "secret", "type": "text"}]
    assert config["runcmd"] == ["touch /done"]
    assert json.loads(files["meta-data"])["local-hostname"] == "web"
    assert files["network-config"] == "version: 2\n"


def test_a_seed_from_a_file_takes_it_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pycdlib")
    (tmp_path / "user-data").write_text("#cloud-config\nhostname: x\n")
    (tmp_path / "other").write_text("hostname: x\n")
    target = str(tmp_path / "seed.iso")
    assert main(["image", "seed", target, "--user-data", str(tmp_path / "user-data"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": target}
    assert b"hostname: x\n" in Path(target).read_bytes()
    assert main(["image", "seed", target, "--user-data", str(tmp_path / "other")]) == 2
    assert main(["image", "seed", target, "--user-data", str(tmp_path / "user-data"), "--user", "me"]) == 2
    assert main(["image", "seed", str(tmp_path / "none" / "seed.iso")]) == 2
    assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == [
        " user-data",
        " user-data",
        f" {tmp_path / 'none' / 'seed.iso'}",
    ]


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("user-data", "#cloud-config\nusers: [a\nruncmd: x\n", "line 3, column 7: "),
        ("user-data", "#cloud-config\n- a\n", "no list of `key: value`"),
        ("user-data", "#cloud-config\n" + "[" * 5000, "nested too deeply"),
        ("network-config", "ethernets: {}\n", "no `version:`"),
        ("network-config", "version: 2\n\tethernets: {}\n", "line 2, column 1: "),
    ],
)
def test_documents_that_cloud_init_would_not_read_are_told_with_their_line(
    option: str, text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("yaml")
    (tmp_path / "document").write_text(text)
    target = tmp_path / "seed.iso"
    assert main(["image", "seed", str(target), f"--{option}", str(tmp_path / "document")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"domzero: {option}: ") and message in error and error.count("\n") == 1
    assert not target.exists()


def test_what_an_image_is_told_stays_with_it_and_is_its_last_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycdlib")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    grub = tmp_path / "cache" / "domzero" / "grub" / "grub-x86_64-xen.bin"
    grub.parent.mkdir(parents=True)
    grub.write_bytes(b"GRUB")
    (tmp_path / "cloud.raw").write_bytes(bytes(1 << 20))
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(512))
    assert main(["image", "import", str(tmp_path / "cloud.raw")]) == 0
    capsys.readouterr()

    def disks(*options: str) -> list[str]:
        assert main(["create", "--image", "cloud", "-n", "-q", "--disk", f"{other},raw,xvdb", *options]) == 0
        found: list[str] = json.loads(capsys.readouterr().out)["disks"]
        return found

    assert len(disks()) == 2
    image = DiskStore().find("cloud")
    seed = Path(image.disk).parent / "seed.iso"
    assert f"access=ro,vdev=xvdc,target={seed}" in disks("--user", "me", "--password", "secret")[2]
    first = seed.read_bytes()
    assert b'"local-hostname": "cloud"' in first and seed.stat().st_mode & 0o077 == 0
    assert len(disks()) == 3 and seed.read_bytes() == first
    ids = []
    for password in ("secret", "other", "secret"):
        disks("--user", "me", "--password", password)
        found = re.search(rb"domzero-[0-9a-f]{32}", seed.read_bytes())
        assert found is not None
        ids.append(found[0])
    assert ids[0] == ids[2] != ids[1]
    assert main(["image", "show", "cloud", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == str(seed)
    assert main(["image", "clone", "cloud", "two"]) == 0
    assert not (DiskStore().root / "two" / "seed.iso").exists()


def test_an_image_without_cloud_init_is_not_told_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with DiskStore().draft("built") as draft:
        (draft.path / "disk.raw").write_bytes(bytes(512))
        draft.keep(DiskImage("built", "disk.raw", "raw", 512, "", "", recipe={"packages": ["nginx"]}))
    for image, error in ((["--image", "built"], "built without cloud-init"), (["--kernel", "k"], "--image names")):
        for verb in ("run", "create"):
            assert main([verb, *image, "--user", "me"]) == 2
            assert error in capsys.readouterr().err
