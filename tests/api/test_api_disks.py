# SPDX-License-Identifier: Apache-2.0
"""Disks of running domains, over HTTP and by the verbs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from building import build_guests
from dom0_server import Server
from waiting import until

Json = dict[str, object]
Create = Callable[..., Json]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


def test_disks_are_attached_listed_and_detached(api: httpx.Client, create: Create, image: Path) -> None:
    domain = create("one", disks=[f"{image},raw,xvda,ro"])
    assert domain["disks"] == [f"{image},raw,xvda,ro"]
    path = f"/domains/{domain['uuid']}/disks"
    (disk,) = api.get(path).json()
    assert (disk["vdev"], disk["devid"], disk["bytes"], disk["writable"]) == ("xvda", 51712, 1 << 20, False)
    other = image.with_name("other.img")
    other.write_bytes(bytes(4096))
    answer = api.post(path, json={"spec": str(other)})
    assert answer.status_code == 201 and answer.json()["vdev"] == "xvdb"
    assert len(api.get(f"/domains/{domain['uuid']}").json()["disks"]) == 2
    assert api.post(path, json={"spec": f"{image},raw,xvdb"}).status_code == 422  # taken
    assert api.delete(f"{path}/xvdb").status_code == 204
    assert [disk["vdev"] for disk in api.get(path).json()] == ["xvda"]
    assert api.delete(f"{path}/xvdb").status_code == 422
    assert api.post(path, json={"spec": str(other)}).status_code == 201  # its image was let go of


def test_a_disk_without_a_name_has_the_next_free_one_and_keeps_it(
    api: httpx.Client, create: Create, server: Server, tmp_path: Path
) -> None:
    images = [tmp_path / f"{n}.img" for n in range(5)]
    for each in images:
        each.write_bytes(bytes(4096))
    domain = create("named", disks=[str(images[0]), f"{images[1]},raw,xvdc,w", str(images[2])])
    path = f"/domains/{domain['uuid']}/disks"

    def there() -> dict[str, int]:
        return {disk["vdev"]: images.index(Path(disk["target"])) for disk in api.get(path).json()}

    assert there() == {"xvda": 0, "xvdc": 1, "xvdb": 2}
    assert api.delete(f"{path}/xvda").status_code == 204
    assert there() == {"xvdc": 1, "xvdb": 2}
    assert api.post(path, json={"spec": str(images[3])}).json()["vdev"] == "xvda"
    assert server.cli("block-attach", str(domain["name"]), str(images[4])).returncode == 0
    expected = {"xvda": 3, "xvdb": 2, "xvdc": 1, "xvdd": 4}
    assert there() == expected
    before = api.get(f"/domains/{domain['uuid']}").json()["domid"]
    assert api.post(f"/domains/{domain['uuid']}/console", json={"data": "reboot\n"}).is_success
    until(lambda: api.get(f"/domains/{domain['uuid']}").json()["domid"] not in (None, before))
    until(lambda: api.get(path).is_success and there() == expected)


def test_limits_are_changed_while_a_domain_runs_and_are_kept_over_a_reboot(
    api: httpx.Client, create: Create, server: Server, image: Path
) -> None:
    domain = create("bounded", disks=[f"{image},raw,xvda,w,iops=100,iops_max=200"])
    name, path = str(domain["name"]), f"/domains/{domain['uuid']}/disks"

    def limits() -> tuple[int, ...]:
        (disk,) = api.get(path).json()
        return tuple(disk[each] for each in ("bps", "bps_max", "iops", "iops_max"))

    assert limits() == (0, 0, 100, 200)
    answer = api.patch(f"{path}/xvda", json={"bps": 1 << 20})
    assert answer.status_code == 200 and answer.json()["bps"] == 1 << 20
    assert server.cli("block-set", name, "51712", "iops=0", "iops_max=0", "bps_max=2M").returncode == 0
    assert limits() == (1 << 20, 2 << 20, 0, 0)
    for body in ({"bps": 0}, {"bps": -1}, {"bps": 10**16}, {"bps": None}, {"bps": 1.5}, {"iops_max": 3}, {"x": 1}):
        assert api.patch(f"{path}/xvda", json=body).status_code == 422
    assert api.patch(f"{path}/xvdb", json={"bps": 1}).status_code == 422
    wrong = server.cli("block-set", name, "xvda", "speed=3")
    assert wrong.returncode == 2 and "no such limit" in wrong.stderr
    assert limits() == (1 << 20, 2 << 20, 0, 0)
    before = api.get(f"/domains/{domain['uuid']}").json()["domid"]
    assert api.post(f"/domains/{domain['uuid']}/console", json={"data": "reboot\n"}).is_success
    until(lambda: api.get(f"/domains/{domain['uuid']}").json()["domid"] not in (None, before))
    until(lambda: api.get(path).is_success and limits() == (1 << 20, 2 << 20, 0, 0))


def test_a_disk_grows_and_a_cd_changes_while_a_domain_runs(
    api: httpx.Client, create: Create, server: Server, image: Path, tmp_path: Path
) -> None:
    cd = tmp_path / "cd, of commas.iso"
    cd.write_bytes(bytes(2 << 20))
    domain = create("changed", disks=[f"{image},raw,xvda,w", ",,hdc,cdrom"])
    name, path = str(domain["name"]), f"/domains/{domain['uuid']}/disks"

    def there() -> list[tuple[object, ...]]:
        return [(disk["vdev"], disk["bytes"], disk["target"]) for disk in api.get(path).json()]

    assert there() == [("hdc", 0, ""), ("xvda", 1 << 20, str(image))]
    assert "hdc: (empty)" in server.cli("block-list", name).stdout
    assert api.post(f"{path}/xvda/size", json={"bytes": 3 << 20}).json()["bytes"] == 3 << 20
    assert server.cli("block-resize", name, "xvda", "4M").returncode == 0
    os.truncate(image, 5 << 20)
    assert json.loads(server.cli("block-resize", "--json", name, "xvda").stdout)["bytes"] == 5 << 20
    assert server.cli("cd-insert", name, "5632", str(cd)).returncode == 0
    assert there() == [("hdc", 2 << 20, str(cd)), ("xvda", 5 << 20, str(image))]
    assert server.read_store(f"/local/domain/0/backend/vbd/{domain['domid']}/5632/params") == str(cd)
    for answer, why in (
        (api.post(f"{path}/xvda/size", json={"bytes": 1 << 20}), "smaller"),
        (api.post(f"{path}/xvda/size", json={"bytes": 512 + 1}), "512"),
        (api.post(f"{path}/hdc/size", json={"bytes": 3 << 20}), "read-only"),
        (api.post(f"{path}/xvdz/size", json={}), "no disk"),
        (api.put(f"{path}/xvda/medium", json={"target": str(cd)}), "no CD drive"),
        (api.put(f"{path}/hdc/medium", json={"target": "/no/such.iso"}), "No such file"),
        (api.put(f"{path}/hdc/medium", json={"target": str(cd), "format": "qcow2"}), "qcow2"),
        (api.delete(f"{path}/xvda/medium"), "no CD drive"),
    ):
        assert answer.status_code == 422 and why in answer.text
    before = api.get(f"/domains/{domain['uuid']}").json()["domid"]
    assert api.post(f"/domains/{domain['uuid']}/console", json={"data": "reboot\n"}).is_success
    until(lambda: api.get(f"/domains/{domain['uuid']}").json()["domid"] not in (None, before))
    until(lambda: api.get(path).is_success and there()[0] == ("hdc", 2 << 20, str(cd)))
    assert server.cli("cd-eject", name, "hdc").returncode == 0
    assert there()[0] == ("hdc", 0, "")
    create("next", disks=[f"target={cd}"])  # it was let go of


@pytest.mark.parametrize("width", ["64", "32"])
def test_a_disk_that_the_guest_lets_go_of_later_is_not_there_at_the_next_start(
    api: httpx.Client, create: Create, server: Server, image: Path, tmp_path: Path, width: str
) -> None:
    kernel = build_guests(tmp_path / "guests", "devices") / width / "device_disk_plug"
    other = image.with_name("other.img")
    other.write_bytes(bytes(4096))
    domain = create("late", kernel=str(kernel), disks=[f"{image},raw,xvda,w", f"{other},raw,xvdb,w"])
    path = f"/domains/{domain['uuid']}"

    def there() -> list[str]:
        return [disk["vdev"] for disk in api.get(f"{path}/disks").json()]

    until(lambda: "in use" in api.get(f"{path}/console").text)
    assert api.post(f"{path}/pause").status_code == 200
    answer = api.delete(f"{path}/disks/xvda")
    assert answer.status_code == 409 and "has been asked, and still uses xvda" in answer.json()["detail"]
    assert there() == ["xvda", "xvdb"] and len(api.get(path).json()["disks"]) == 2
    assert api.post(f"{path}/unpause").status_code == 200
    until(lambda: "let go of" in api.get(f"{path}/console").text)
    assert there() == ["xvdb"] and api.get(path).json()["disks"] == [f"{other},raw,xvdb,w"]
    # Another takes its place; it was not the one that is taken away.
    assert server.cli("block-attach", "late", str(image), "raw", "xvda", "w").returncode == 0
    assert there() == ["xvda", "xvdb"] and len(api.get(path).json()["disks"]) == 2
    assert api.get(f"{path}/audit").json()["problems"] == []
    assert api.post(f"{path}/shutdown").status_code == 202
    until(lambda: "PASS disk_plug" in api.get(f"{path}/console").text)


def test_bad_disks_are_refused_with_the_reason_and_leave_nothing(
    api: httpx.Client, shell: str, server: Server, image: Path, create: Create
) -> None:
    workers = server.workers()
    for spec, why in (
        ("/no/such.img", "No such file"),
        (f"{image},vpc,xvda", "no such format"),
        (f"{image},raw,foo", "no such vdev"),
        (f"{image},qcow2,xvda", "qcow2"),
        (f"{image}\0", "NUL"),
        ("/proc/self/mem", "smaller than a sector"),
        ("/dev/zero", "neither a regular file nor a block device"),
    ):
        answer = api.post("/domains", json={"name": "bad", "kernel": shell, "memory_mib": 16, "disks": [spec]})
        assert answer.status_code == 422 and why in answer.text
    until(lambda: server.workers() == workers)
    create("first", disks=[str(image)])
    answer = api.post("/domains", json={"name": "second", "kernel": shell, "memory_mib": 16, "disks": [str(image)]})
    assert answer.status_code == 422 and "in use" in answer.text


def test_a_killed_worker_lets_go_of_its_images(api: httpx.Client, create: Create, image: Path) -> None:
    domain = create("killed", disks=[str(image)])
    pid = api.get(f"/domains/{domain['uuid']}").json()["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not api.get(f"/domains/{domain['uuid']}").json()["exists"])
    create("next", disks=[str(image)])


def test_the_verbs_take_relative_paths_and_names_as_xl_does(server: Server, create: Create, image: Path) -> None:
    domain = create("plugged")
    name = str(domain["name"])
    relative = os.path.relpath(image)
    assert server.cli("block-attach", name, relative, "raw", "xvdc", "w").returncode == 0
    listed = json.loads(server.cli("block-list", "--json", name).stdout)
    (disk,) = listed
    assert disk["vdev"] == "xvdc" and Path(disk["target"]).is_absolute() and image.samefile(disk["target"])
    assert f"xvdc: {disk['target']} (raw)" in server.cli("block-list", name).stdout
    again = server.cli("block-attach", name, relative)
    assert again.returncode == 2 and "in use" in again.stderr
    assert server.cli("block-detach", name, "51744").returncode == 0
    gone = server.cli("block-detach", name, "xvdc")
    assert gone.returncode == 2 and "there is no disk xvdc" in gone.stderr
    assert json.loads(server.cli("block-list", "--json", name).stdout) == []
