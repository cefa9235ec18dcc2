# SPDX-License-Identifier: Apache-2.0
"""Whole VMs out and in again, as XVA files."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dom0_server import Server
from xenapi_client import over_socket, remove_all

MIB = 1 << 20


@pytest.fixture
def xenapi(server: Server, api: httpx.Client) -> Iterator[Any]:
    proxy = over_socket(server.socket).xenapi
    yield proxy
    remove_all(proxy)


@pytest.fixture
def raw(server: Server) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(server.socket))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
        yield client


@pytest.fixture
def vm(xenapi: Any, raw: httpx.Client, shell: str) -> str:
    """A halted VM with a disk of 5 MiB and a half, of which two MiB are not zeros."""
    given = {"name_label": "whole", "PV_kernel": shell, "memory_static_max": str(16 * MIB), "tags": ["kept"]}
    made: str = xenapi.VM.create(given)
    (sr,) = xenapi.SR.get_by_name_label("Local storage")
    vdi = xenapi.VDI.create({"SR": sr, "virtual_size": str(5 * MIB + MIB // 2), "name_label": "root"})
    content = os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB)
    assert raw.put("/import_raw_vdi", params={"vdi": vdi}, content=content).status_code == 200
    xenapi.VBD.create({"VM": made, "VDI": vdi, "userdevice": "0", "bootable": True})
    xenapi.VBD.create({"VM": made, "type": "CD", "userdevice": "3"})
    xenapi.VIF.create({"VM": made, "network": xenapi.network.get_all()[0], "device": "0", "MAC": "00:16:3e:00:00:01"})
    return made


def content_of(xenapi: Any, raw: httpx.Client, vm: str) -> bytes:
    (disk,) = [vbd for vbd in xenapi.VM.get_VBDs(vm) if not xenapi.VBD.get_empty(vbd)]
    return raw.get("/export_raw_vdi", params={"vdi": xenapi.VBD.get_VDI(disk)}).content


def test_what_is_exported_is_imported_again(xenapi: Any, raw: httpx.Client, vm: str) -> None:
    before = content_of(xenapi, raw, vm)
    exported = raw.get("/export", params={"ref": vm})
    assert exported.status_code == 200, exported.text
    with tarfile.open(fileobj=io.BytesIO(exported.content)) as tar:
        names = tar.getnames()
        blocks = [name for name in names if name.startswith("Ref:") and not name.endswith(".checksum")]
        assert names[0] == "ova.xml" and len(blocks) == 3  # the first, one in the middle, the last
        first = tar.extractfile(blocks[0])
        assert first is not None and first.read() == before[:MIB]
    xenapi.VM.set_name_label(vm, "original")
    task = xenapi.task.create("import", "")
    answer = raw.put("/import", params={"task_id": task}, content=exported.content)
    assert answer.status_code == 200, answer.text
    (made,) = xenapi.VM.get_by_name_label("whole")
    assert xenapi.task.get_result(task) == f"<value><array><data><value>{made}</value></data></array></value>"
    assert made != vm and xenapi.VM.get_tags(made) == ["kept"]
    assert content_of(xenapi, raw, made) == before
    devices = sorted(xenapi.VBD.get_device(vbd) for vbd in xenapi.VM.get_VBDs(made))
    assert devices == ["xvda", "xvdd"]
    (vif,) = xenapi.VM.get_VIFs(made)
    assert xenapi.VIF.get_MAC(vif) == "00:16:3e:00:00:01"
    xenapi.VM.start(made, False, False)


def test_another_program_reads_what_is_exported_and_writes_what_is_imported(
    xenapi: Any, raw: httpx.Client, vm: str, tmp_path: Path
) -> None:
    if (xva_img := shutil.which("xva-img")) is None:
        pytest.skip("xva-img is not here: apt-get install xva-img")
    before = content_of(xenapi, raw, vm)
    with tarfile.open(fileobj=io.BytesIO(raw.get("/export", params={"ref": vm}).content)) as exported:
        exported.extractall(tmp_path / "vm", filter="data")
    (disk,) = (tmp_path / "vm").glob("Ref:*")
    subprocess.run([xva_img, "disk-export", f"{disk}/", "disk.raw"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "disk.raw").read_bytes() == before
    changed = before[:MIB] + os.urandom(MIB) + before[2 * MIB :]
    (tmp_path / "disk.raw").write_bytes(changed)
    for block in disk.iterdir():
        block.unlink()
    subprocess.run([xva_img, "disk-import", f"{disk}/", "disk.raw"], cwd=tmp_path, check=True, capture_output=True)
    files = [tmp_path / "vm/ova.xml", *sorted(disk.iterdir())]
    changed_vm = tar(*((str(file.relative_to(tmp_path / "vm")), file.read_bytes()) for file in files))
    xenapi.VM.set_name_label(vm, "original")
    answer = raw.put("/import", content=changed_vm)
    assert answer.status_code == 200, answer.text
    (made,) = xenapi.VM.get_by_name_label("whole")
    assert content_of(xenapi, raw, made) == changed


def ova(vm: str = "", *others: str) -> bytes:
    inner = "".join(f"<value>{each}</value>" for each in (vm, *others) if each)
    objects = f"<member><name>objects</name><value><array><data>{inner}</data></array></value></member>"
    return f"<?xml version='1.0'?><value><struct>{objects}</struct></value>".encode()


def thing(kind: str, name: str, **fields: str) -> str:
    members = "".join(f"<member><name>{key}</name><value>{value}</value></member>" for key, value in fields.items())
    return (
        f"<struct><member><name>class</name><value>{kind}</value></member><member><name>id</name><value>{name}</value>"
        f"</member><member><name>snapshot</name><value><struct>{members}</struct></value></member></struct>"
    )


def tar(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


VM = thing("VM", "Ref:0", name_label="x", memory_static_max=str(16 * MIB))
HVM = thing("VM", "Ref:0", name_label="full", HVM_boot_policy="BIOS order", domain_type="hvm")
VBD = thing("VBD", "Ref:1", VM="Ref:0", VDI="Ref:2", userdevice="0", type="Disk")
VDI = thing("VDI", "Ref:2", virtual_size=str(MIB))
DISK = ("ova.xml", ova(VM, VBD, VDI))
WRONG = hashlib.sha1(b"other").hexdigest().encode()
BAD = {
    "nothing": (b"", "IMPORT_ERROR_PREMATURE_EOF"),
    "no tar": (b"x" * 4096, "IMPORT_ERROR_UNEXPECTED_FILE"),
    "another file first": (tar(("a", b"b")), "IMPORT_ERROR_UNEXPECTED_FILE"),
    "entities": (tar(("ova.xml", b"<!DOCTYPE a>" + ova(VM))), "XMLRPC_UNMARSHAL_FAILURE"),
    "no objects": (tar(("ova.xml", b"<value>1</value>")), "IMPORT_ERROR_UNEXPECTED_FILE"),
    "no disk": (tar(("ova.xml", ova(VM, VBD))), "IMPORT_ERROR_FAILED_TO_FIND_OBJECT"),
    "a block beyond": (tar(DISK, ("Ref:2/00000001", b"x")), "VDI_TOO_SMALL"),
    "a block of another": (tar(DISK, ("Ref:9/00000000", b"x")), "IMPORT_ERROR_UNEXPECTED_FILE"),
    "a path": (tar(DISK, ("../../x", b"x")), "IMPORT_ERROR_UNEXPECTED_FILE"),
    "a wrong checksum": (
        tar(DISK, ("Ref:2/00000000", b"x"), ("Ref:2/00000000.checksum", WRONG)),
        "IMPORT_ERROR_SOME_CHECKSUMS_FAILED",
    ),
    "a block again": (tar(DISK, *[("Ref:2/00000000", b"x")] * 2), "IMPORT_ERROR_UNEXPECTED_FILE"),
    "a large block": (tar(DISK, ("Ref:2/00000000", bytes(MIB + 1))), "IMPORT_ERROR_UNEXPECTED_FILE"),
    "cut off": (tar(DISK, ("Ref:2/00000000", bytes(MIB)))[: MIB // 2], "IMPORT_ERROR_PREMATURE_EOF"),
}


@pytest.mark.parametrize(("body", "code"), BAD.values(), ids=BAD)
def test_a_file_that_is_none_leaves_nothing(
    xenapi: Any, raw: httpx.Client, server: Server, body: bytes, code: str
) -> None:
    def left() -> tuple[int, int, list[Path]]:
        vdis = [vdi for vdi, each in xenapi.VDI.get_all_records().items() if each["managed"]]
        return len(xenapi.VM.get_all()), len(vdis), list(server.socket.parent.glob("d.sock.storage/*"))

    before = left()
    answer = raw.put("/import", content=body)
    assert 400 <= answer.status_code < 500
    assert answer.text.split(":")[0].strip() == code, answer.text
    assert left() == before


def test_an_empty_block_has_a_number_and_nothing_of_the_disk(xenapi: Any, raw: httpx.Client) -> None:
    """XAPI sends one when it has come upon zeros for a while, so that the other end goes on waiting; the numbers
    behind it are one more than their places."""
    first, last = os.urandom(MIB), os.urandom(MIB)
    vdi = thing("VDI", "Ref:2", virtual_size=str(8 * MIB))
    blocks = (("Ref:2/00000000", first), ("Ref:2/00000005", b""), ("Ref:2/00000008", last))
    sent = [file for name, data in blocks for file in ((name, data), (f"{name}.checksum", sha1(data)))]
    made = raw.put("/import", content=tar(("ova.xml", ova(VM, VBD, vdi)), *sent)).text.strip()
    assert content_of(xenapi, raw, made) == first + bytes(6 * MIB) + last


def sha1(data: bytes) -> bytes:
    return hashlib.sha1(data).hexdigest().encode()


def test_a_machine_of_full_virtualization_is_imported_as_such(xenapi: Any, raw: httpx.Client) -> None:
    made = raw.put("/import", content=tar(("ova.xml", ova(HVM, VBD, VDI)))).text.strip()
    record = xenapi.VM.get_record(made)
    assert (record["domain_type"], record["HVM_boot_policy"]) == ("hvm", "BIOS order")
    (vbd,) = record["VBDs"]
    assert (xenapi.VBD.get_userdevice(vbd), xenapi.VBD.get_device(vbd)) == ("0", "hda")
    vdi = xenapi.VBD.get_VDI(vbd)
    xenapi.VM.destroy(made)
    xenapi.VDI.destroy(vdi)


def test_a_vm_that_runs_is_not_exported(xenapi: Any, raw: httpx.Client, vm: str) -> None:
    xenapi.VM.start(vm, False, False)
    refused = raw.get("/export", params={"uuid": vm.removeprefix("OpaqueRef:")})
    assert (refused.status_code, refused.text.split(":")[0]) == (409, "VM_BAD_POWER_STATE")
    assert raw.get("/export", params={"uuid": "x"}).status_code == 404
