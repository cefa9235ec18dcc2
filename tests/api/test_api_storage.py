# SPDX-License-Identifier: Apache-2.0
"""/v1/storage and /v1/disks: directories, and disks that are there without a domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

Create = Callable[..., dict[str, object]]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_is_left(api: httpx.Client) -> Iterator[None]:
    yield
    for domain in api.get("/domains").json():
        api.delete(f"/domains/{domain['uuid']}")
    for disk in api.get("/disks").json():
        assert api.delete(f"/disks/{disk['uuid']}").status_code in (204, 404)


def test_a_disk_is_made_given_to_a_domain_grown_and_deleted(api: httpx.Client, create: Create) -> None:
    made = api.post("/disks", json={"bytes": MIB, "name": "data", "labels": {"a": "b"}})
    assert made.status_code == 201, made.text
    disk = made.json()
    assert made.headers["Location"] == f"/v1/disks/{disk['uuid']}"
    assert Path(disk["path"]).stat().st_size == disk["bytes"] == MIB
    assert api.post("/disks/data/size", json={"bytes": 2 * MIB}).json()["bytes"] == 2 * MIB
    assert api.post("/disks/data/size", json={"bytes": MIB}).status_code == 422
    create("has", disks=[f"{disk['path']},raw,xvda,rw"])
    assert api.get("/disks/data").json()["domains"] == ["has"]
    assert api.delete("/disks/data").status_code == 409
    assert api.post("/disks/data/size", json={"bytes": 4 * MIB}).status_code in (409, 422)
    assert api.post("/disks", json={"copy_of": disk["uuid"]}).status_code in (409, 422)
    assert api.delete("/domains/has").status_code == 204
    copy = api.post("/disks", json={"copy_of": disk["uuid"], "name": "copy"})
    assert copy.status_code == 201 and copy.json()["bytes"] == 2 * MIB
    assert api.patch("/disks/copy", json={"name": "other", "description": "x"}).json()["name"] == "other"
    assert {each["name"] for each in api.get("/disks").json()} == {"data", "other"}
    assert api.delete("/disks/data").status_code == 204
    assert not Path(disk["path"]).exists()
    assert api.get("/disks/data").status_code == 404


def test_storage_is_a_directory_that_is_taken_in_and_forgotten(api: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "one.img").write_bytes(bytes(4096))
    made = api.post("/storage", json={"name": "second", "path": str(tmp_path)})
    assert made.status_code == 201, made.text
    assert (made.json()["disks"], made.json()["default"]) == (1, False)
    (one,) = api.get("/disks", params={"storage": "second"}).json()
    assert (one["name"], one["bytes"], one["format"]) == ("one.img", 4096, "raw")
    (tmp_path / "two.raw").write_bytes(bytes(512))
    (two,) = api.post("/storage/second/scan").json()
    assert two["name"] == "two.raw"
    assert api.post("/storage", json={"name": "third", "path": str(tmp_path)}).status_code == 422
    assert api.post("/storage", json={"name": "x", "path": "relative"}).status_code == 422
    assert api.patch("/storage/second", json={"name": "renamed"}).json()["name"] == "renamed"
    assert api.post("/disks", json={"bytes": 512, "storage": "renamed"}).json()["storage"] == made.json()["uuid"]
    assert api.delete("/storage/renamed").status_code == 204
    assert api.get("/storage/renamed").status_code == 404
    assert (tmp_path / "one.img").exists()
    assert [each["default"] for each in api.get("/storage").json()] == [True]


@pytest.mark.parametrize(
    "body", [{}, {"bytes": 0}, {"bytes": 512, "format": "iso"}, {"bytes": 512, "name": "\x1b"}, {"bytes": 1 << 60}]
)
def test_what_cannot_be_a_disk_is_refused(api: httpx.Client, body: dict[str, object]) -> None:
    assert api.post("/disks", json=body).status_code == 422
    assert api.get("/disks").json() == []
