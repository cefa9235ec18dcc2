# SPDX-License-Identifier: Apache-2.0
"""Each action writes exactly one line of who did what, whichever door it is asked for at, and whether it is refused."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until

from domzero.dom0 import actions

Json = dict[str, Any]
PASSWORD = "correct horse"
MIB = 1 << 20
DEVICES = {"disks": ["format=raw,vdev=xvdc,devtype=cdrom,target="], "vifs": ["bridge=user"]}
ALL = {
    name
    for name in actions.__all__
    if inspect.isclass(found := getattr(actions, name))
    and issubclass(found, actions.Action)
    and found not in (actions.Action, actions.DomainAction)
}


class Scene:
    """A Domain 0 with a domain that is halted, one that is paused, and who asks."""

    def __init__(self, server: Server, shell: str, place: Path) -> None:
        self.server = server
        self.place = place
        self.shell = shell
        headers = {"Authorization": f"Bearer {server.token}"}
        self.owner = httpx.Client(base_url=f"{server.url}/v1", headers=headers, timeout=60)
        self.reader = httpx.Client(base_url=f"{server.url}/v1", auth=("reader", PASSWORD), timeout=60)
        body = {"name": "reader", "password": PASSWORD, "role": "read-only"}
        assert self.owner.post("/users", json=body).status_code == 201
        self.token = self.owner.post("/users/reader/tokens", json={}).json()["id"]
        self.storage = self.owner.get("/storage").json()[0]["uuid"]
        self.disk = self.owner.post("/disks", json={"bytes": 4096, "name": "spare"}).json()
        self.halted, self.paused = (self.domain(name, shell) for name in ("halted", "paused"))
        self.owner.post(f"/domains/{self.paused}/start", params={"paused": True})
        until(lambda: self.owner.get(f"/domains/{self.paused}").json()["state"] == "paused")
        self.x = XenAPI.Session(server.url)
        self.x.xenapi.login_with_password("root", server.token)
        self.vm = f"OpaqueRef:{self.halted}"
        self.vdi = f"OpaqueRef:{self.disk['uuid']}"

    def domain(self, name: str, shell: str) -> str:
        body = {"name": name, "kernel": shell, "memory_mib": 16, "persistent": True, "start": False, **DEVICES}
        answer = self.owner.post("/domains", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["uuid"])

    def lines(self) -> list[Json]:
        found: list[Json] = self.owner.get("/audit", params={"limit": 200}).json()
        return found

    def since(self, before: list[Json]) -> list[Json]:
        newest = before[0]["id"] if before else 0
        return [line for line in self.lines() if line["id"] > newest]

    def own_task(self) -> str:
        """A task of the owner's that is under way."""
        token = self.x.xenapi_request("event.from", (["pbd"], "", 0.0))["token"]
        return str(self.x.xenapi_request("Async.event.from", (["pbd"], token, 600.0)))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, shell: str) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("audit")
    server = Server(place, "--listen", "127.0.0.1:0")
    scene = Scene(server, shell, place)
    yield scene
    scene.owner.close()
    scene.reader.close()
    assert server.stop() == 0


ONLY_REFUSED = ("FetchImage", "BuildImage")
"""They would ask the network."""


def requests(scene: Scene, name: str) -> dict[str, tuple[str, str, Json | None]]:
    """A request for each action. What most lead to does not matter; that of this name can be done."""
    halted, disk = f"/domains/{scene.halted}", f"/disks/{scene.disk['uuid']}"
    place = scene.place / name
    place.mkdir(exist_ok=True)
    spare = {"RemoveStorage": ("/storage", {"name": name, "path": str(place)}),
             "DeleteDisk": ("/disks", {"bytes": 4096, "name": name})}  # fmt: skip
    uuid = scene.owner.post(spare[name][0], json=spare[name][1]).json()["uuid"] if name in spare else ""
    task = scene.own_task().removeprefix("OpaqueRef:") if name == "CancelTask" else ""
    definition = {"name": "halted", "kernel": scene.shell, "memory_mib": 16, **DEVICES}
    return {
        "AddStorage": ("POST", "/storage", {"name": "more", "path": str(scene.place / "none")}),
        "AddToken": ("POST", "/users/reader/tokens", {}),
        "AddUser": ("POST", "/users", {"name": "more"}),
        "AttachDisk": ("POST", f"{halted}/disks", {"spec": f"{scene.disk['path']},raw,xvdb,r"}),
        "AttachVif": ("POST", f"{halted}/vifs", {"spec": "bridge=user"}),
        "BuildImage": ("POST", "/images/builds", {"name": "x", "first_boot": {}}),
        "CancelTask": ("DELETE", f"/tasks/{task}", None),
        "ChangeDisk": ("PATCH", disk, {"description": "x"}),
        "ChangeDomain": ("PATCH", halted, {"description": "x"}),
        "ChangeMedium": ("PUT", f"{halted}/disks/xvdc/medium", {"target": scene.disk["path"]}),
        "ChangeStorage": ("PATCH", f"/storage/{scene.storage}", {"description": "x"}),
        "ChangeUser": ("PATCH", "/users/reader", {"role": "read-only"}),
        "ClearLog": ("DELETE", "/host/dmesg", None),
        "CloneImage": ("POST", "/images/none/clones", {"name": "x"}),
        "CopyDisk": ("POST", "/disks", {"copy_of": scene.disk["uuid"]}),
        "CreateDisk": ("POST", "/disks", {"bytes": 4096}),
        "CreateDomain": ("POST", "/domains", {"name": "more", "kernel": "/nowhere", "memory_mib": 16}),
        "DefineDomain": (
            "POST",
            "/domains",
            {"name": "another", "kernel": "/nowhere", "persistent": True, "start": False},
        ),
        "DeleteDisk": ("DELETE", f"/disks/{uuid}", None),
        "DestroyDomain": ("DELETE", f"/domains/{scene.paused}", None),
        "DetachDisk": ("DELETE", f"{halted}/disks/xvdz", None),
        "DetachVif": ("DELETE", f"{halted}/vifs/9", None),
        "DumpCore": ("POST", f"{halted}/core", {"path": str(scene.place / "core")}),
        "FetchImage": ("POST", "/images/fetches", {}),
        "Grant": ("PUT", f"/users/reader/grants/{scene.halted}", {"role": "read-only"}),
        "GrowDisk": ("POST", f"{halted}/disks/xvdc/size", {"bytes": 8192}),
        "ImportImage": ("POST", "/images/imports", {"file": str(scene.place / "none"), "name": "x"}),
        "UploadImage": ("PUT", "/images/none", None),
        "UploadKernel": ("PUT", "/images/none/ramdisk", None),
        "LimitDisk": ("PATCH", f"{halted}/disks/xvdc", {"bps": 1 << 20}),
        "PauseDomain": ("POST", f"{halted}/pause", None),
        "PinVcpu": ("PUT", f"{halted}/vcpus/affinity", {"cpus": "all"}),
        "PressDebugKeys": ("POST", "/host/debug-keys", {"keys": "h"}),
        "PressSysRq": ("POST", f"{halted}/sysrq", {"key": "h"}),
        "RebootDomain": ("POST", f"{halted}/reboot", None),
        "RedefineDomain": ("PUT", halted, definition),
        "RemoveImage": ("DELETE", "/images/none", None),
        "RemoveStorage": ("DELETE", f"/storage/{uuid}", None),
        "RemoveToken": ("DELETE", f"/users/reader/tokens/{scene.token}", None),
        "RemoveUser": ("DELETE", "/users/nobody", None),
        "ReplaceNextConfig": ("PUT", f"{halted}/next-config", definition),
        "ResetDomain": ("POST", f"/domains/{scene.paused}/reset", None),
        "RestoreDomain": ("POST", "/restore", {"path": str(scene.place / "none")}),
        "ResumeDomain": ("POST", f"{halted}/resume", None),
        "SaveDomain": ("POST", f"{halted}/save", {"path": str(scene.place / "save")}),
        "SuspendDomain": ("POST", f"{halted}/suspend", None),
        "ResizeDisk": ("POST", f"{disk}/size", {"bytes": 8192}),
        "ScanStorage": ("POST", f"/storage/{scene.storage}/scan", None),
        "SendNmi": ("POST", f"{halted}/nmi", {"vcpu": 0}),
        "SetVif": ("PATCH", f"{halted}/vifs/0", {"link": "down"}),
        "ShutDownDomain": ("POST", f"{halted}/shutdown", None),
        "StartDomain": ("POST", f"/domains/{scene.paused}/start", None),
        "TypeText": ("POST", f"{halted}/console", {"data": "x"}),
        "UndefineDomain": ("DELETE", f"/domains/{scene.paused}/definition", None),
        "UnpauseDomain": ("POST", f"{halted}/unpause", None),
    }


def messages(scene: Scene) -> dict[str, tuple[Any, ...]]:
    """A message for each action that XenAPI has one for."""
    vm, vdi, sr, x = scene.vm, scene.vdi, f"OpaqueRef:{scene.storage}", scene.x.xenapi
    (host,), (network, *_) = x.host.get_all(), x.network.get_all()
    (cd,), (vif, *_) = x.VM.get_VBDs(vm), x.VM.get_VIFs(vm)
    return {
        "AddStorage": ("SR.create", host, {"location": str(scene.place / "none")}, "0", "m", "", "file", "", False),
        "AttachDisk": ("VBD.create", {"VM": vm, "VDI": vdi, "userdevice": "5", "mode": "RO", "type": "Disk"}),
        "AttachVif": ("VIF.create", {"VM": vm, "network": network, "device": "5"}),
        "CancelTask": ("task.cancel", scene.own_task()),
        "ChangeDisk": ("VDI.set_name_description", vdi, "y"),
        "ChangeDomain": ("VM.set_name_description", vm, "y"),
        "ChangeMedium": ("VBD.insert", cd, vdi),
        "ChangeStorage": ("SR.set_name_description", sr, "y"),
        "ClearLog": ("host.dmesg_clear", host),
        "CopyDisk": ("VDI.snapshot", vdi),
        "CreateDisk": ("VDI.create", {"SR": sr, "virtual_size": "4096"}),
        "DefineDomain": ("VM.create", {"name_label": "one more"}),
        "DeleteDisk": ("VDI.destroy", x.VDI.create({"SR": sr, "virtual_size": "4096"})),
        "DetachDisk": ("VBD.destroy", cd),
        "DetachVif": ("VIF.destroy", vif),
        "RedefineDomain": ("VM.set_PV_args", vm, "quiet"),
        "ResizeDisk": ("VDI.resize", x.VDI.create({"SR": sr, "virtual_size": "4096"}), "8192"),
        "ScanStorage": ("SR.scan", sr),
        "StartDomain": ("VM.start", vm, True, False),
        "UnpauseDomain": ("VM.unpause", vm),
        "PressSysRq": ("VM.send_sysrq", vm, "h"),
        "PressDebugKeys": ("host.send_debug_keys", host, "h"),
        "PauseDomain": ("VM.pause", vm),
        "ResetDomain": ("VM.hard_reboot", vm),
        "DestroyDomain": ("VM.hard_shutdown", vm),
        "UndefineDomain": ("VM.destroy", x.VM.create({"name_label": "short"})),
    }


def test_each_action_is_walked_through(scene: Scene) -> None:
    assert set(requests(scene, "")) == ALL


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_request_writes_one_line(scene: Scene, name: str) -> None:
    method, path, body = requests(scene, name)[name]
    kind = getattr(actions, name).kind
    before = scene.lines()
    answer = scene.reader.request(method, path, json=body)
    assert answer.status_code == 403, answer.text
    (line,) = scene.since(before)
    assert (line["actor"], line["via"], line["action"], line["outcome"]) == ("reader", "basic", kind, "refused")
    if name in ONLY_REFUSED:
        return
    before = scene.lines()
    answer = scene.owner.request(method, path, json=body)
    is_done = answer.status_code < 300
    if answer.status_code == 202 and "/tasks/" in answer.headers.get("location", ""):  # the host is slow today
        task = answer.headers["location"].removeprefix("/v1")
        until(lambda: scene.owner.get(task).json()["state"] != "running")
        is_done = scene.owner.get(task).json()["state"] == "done"
    (line,) = scene.since(before)
    assert (line["actor"], line["via"], line["action"]) == ("owner", "token", kind), answer.text
    assert (line["outcome"] == "ok") is is_done, (line, answer.text)


def test_a_message_writes_one_line(scene: Scene) -> None:
    reader = XenAPI.Session(scene.server.url)
    reader.xenapi.login_with_password("reader", PASSWORD)
    for name, (method, *parameters) in messages(scene).items():
        for session, actor in ((reader, "reader"), (scene.x, "owner")):
            before, outcome = scene.lines(), "ok"
            try:
                session.xenapi_request(method, tuple(parameters))
            except XenAPI.Failure as failure:
                outcome = failure.details[0]
            written = scene.since(before)
            assert len(written) == 1, (method, actor, outcome, written)
            line = written[0]
            kind = getattr(actions, name).kind
            assert (line["actor"], line["via"], line["action"]) == (actor, "xenapi", kind), method
            assert (line["outcome"] == "refused") is (actor == "reader") is (outcome == "RBAC_PERMISSION_DENIED")
            assert (line["outcome"] == "ok") is (outcome == "ok"), method


def test_a_change_of_a_device_that_is_not_plugged_writes_one_line(scene: Scene) -> None:
    """Devices that are made while their VM runs wait to be plugged in, or for its next start."""
    x = scene.x.xenapi
    sr, kernel = f"OpaqueRef:{scene.storage}", scene.shell
    vm = x.VM.create({"name_label": "loose", "PV_kernel": kernel, "memory_static_max": str(16 * MIB)})
    vdi = x.VDI.create({"SR": sr, "virtual_size": "4096"})
    (network,) = (each for each in x.network.get_all() if x.network.get_bridge(each) == "user")
    other = x.network.create({"name_label": "other"})
    x.VM.start(vm, True, False)

    def one(method: str, *parameters: Any) -> Any:
        before = scene.lines()
        answer = scene.x.xenapi_request(method, parameters)
        (line,) = scene.since(before)
        assert (line["actor"], line["via"], line["outcome"]) == ("owner", "xenapi", "ok")
        assert UUID(line["domain"]) == UUID(vm.removeprefix("OpaqueRef:")), line
        if line["action"] == "xenapi":
            assert f'"{method}"' in line["detail"]
        return answer

    disk = one("VBD.create", {"VM": vm, "VDI": vdi, "userdevice": "1", "mode": "RW", "type": "Disk"})
    cd = one("VBD.create", {"VM": vm, "userdevice": "2", "mode": "RO", "type": "CD"})
    one("VBD.set_mode", disk, "RO")
    one("VBD.insert", cd, vdi)
    one("VBD.eject", cd)
    one("VBD.destroy", cd)
    vif = one("VIF.create", {"VM": vm, "network": network, "device": "0"})
    one("VIF.move", vif, other)
    one("VIF.set_locking_mode", vif, "unlocked")
    one("VIF.set_ipv4_allowed", vif, ["10.0.0.2"])
    one("VIF.add_to_other_config", vif, "a", "b")
    one("VIF.destroy", vif)
    one("VM.set_actions_after_crash", vm, "restart")
    one("VM.hard_shutdown", vm)
    one("VBD.set_mode", disk, "RW")
    one("VBD.destroy", disk)
    one("VM.destroy", vm)
