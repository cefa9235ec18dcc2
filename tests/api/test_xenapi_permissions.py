# SPDX-License-Identifier: Apache-2.0
"""What XenAPI says of roles' permissions is what they may, message by message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from xenapi_client import code_of

from domzero.dom0.actors import Role
from domzero.dom0.xenapi.permissions import ROLES_OF_ACTIONS
from domzero.dom0.xenapi.registry import MESSAGES
from domzero.dom0.xenapi.values import BOOL, INT, Enum, Map, Ref, Set, Type

PASSWORD = "correct horse"
ROLES = [role.value for role in Role]
RUNNING = {
    "VM.pause",
    "VM.clean_reboot",
    "VM.hard_reboot",
    "VM.hard_shutdown",
    "VM.power_state_reset",
    "VM.send_sysrq",
    "VM.set_VCPUs_number_live",
    "VM.set_memory_target_live",
    "VM.set_memory_dynamic_max",
    "VM.set_memory_dynamic_range",
    "VBD.plug",
    "VBD.unplug",
    "VBD.unplug_force",
    "VIF.plug",
    "VIF.unplug",
    "VIF.unplug_force",
}
WAITING = {"VM.clean_shutdown", "VM.shutdown"}
"""Who may waits for the guest: asked only as who may not."""


class Scene:
    """A Domain 0 with a user of each role, and objects to try messages on."""

    def __init__(self, server: Server, shell: str, place: Path) -> None:
        self.server, self.shell, self.place = server, shell, place
        headers = {"Authorization": f"Bearer {server.token}"}
        with httpx.Client(base_url=server.url, headers=headers) as client:
            for role in ROLES:
                body = {"name": role, "password": PASSWORD, "role": role}
                assert client.post("/v1/users", json=body).status_code == 201
        self.owner = self.log_in("root", server.token)
        self.users = {role: self.log_in(role, PASSWORD) for role in ROLES}
        self.x = x = self.owner.xenapi
        (self.sr,) = x.SR.get_by_name_label("Local storage")
        self.network = x.network.create({"name_label": "lan", "bridge": "perm0"})

    def log_in(self, name: str, password: str) -> Any:
        session = XenAPI.Session(self.server.url)
        session.xenapi.login_with_password(name, password)
        return session

    def objects(self, number: str, *, runs: bool, medium: bool) -> dict[str, Any]:
        """New ones, so that one message does not stand in another's way."""
        x, name = self.x, f"vm {number}"
        kernel = self.shell if runs or name == "vm VM.unpause" else ""
        vm = x.VM.create({"name_label": name, "PV_kernel": kernel, "memory_static_max": str(16 << 20)})
        vdi, spare = (x.VDI.create({"SR": self.sr, "virtual_size": "4096"}) for _ in range(2))
        if runs:
            x.VM.start(vm, False, False)
        cd = {"VM": vm, "VDI": spare if medium else "OpaqueRef:NULL", "userdevice": "3", "mode": "RO", "type": "CD"}
        return {
            "VM": vm,
            "VBD": x.VBD.create(cd),
            "VIF": x.VIF.create({"VM": vm, "network": self.network, "device": "0"}),
            "VDI": vdi,
            "SR": self.sr,
            "network": self.network,
            **{kind: getattr(x, kind).get_all()[0] for kind in ("host", "pool", "host_cpu", "host_metrics", "PBD")},
            **{kind: refs[0] for kind in ("PIF", "PIF_metrics") if (refs := getattr(x, kind).get_all())},
            "VM_metrics": x.VM.get_metrics(vm),
            "VM_guest_metrics": x.VM.get_guest_metrics(vm),
            "console": (x.VM.get_consoles(vm) or ["OpaqueRef:NULL"])[0],
            "subject": x.subject.get_by_uuid(
                next(
                    each["uuid"]
                    for each in x.subject.get_all_records().values()
                    if each["subject_identifier"] == "read-only"
                )
            ),
            "role": x.role.get_by_name_label("vm-operator")[0],
        }

    def unplugged_sr(self, name: str) -> str:
        x, path = self.x, self.place / name
        path.mkdir()
        sr: str = x.SR.create(x.host.get_all()[0], {"location": str(path)}, "0", name, "", "file", "", False)
        for pbd in x.SR.get_PBDs(sr):
            x.PBD.unplug(pbd)
        return sr

    def remove(self, objects: dict[str, Any]) -> None:
        x, vm = self.x, objects["VM"]
        if vm in x.VM.get_all():
            if x.VM.get_power_state(vm) != "Halted":
                x.VM.hard_shutdown(vm)
            x.VM.destroy(vm)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, shell: str) -> Iterator[Scene]:
    place = tmp_path_factory.mktemp("permissions")
    server = Server(place, "--listen", "127.0.0.1:0")
    yield Scene(server, shell, place)
    assert server.stop() == 0


def value(type: Type, name: str, objects: dict[str, Any]) -> Any:
    """One that is right for a parameter."""
    if isinstance(type, Ref):
        return objects.get(type.kind, "OpaqueRef:NULL")
    if isinstance(type, Set):
        return []
    if isinstance(type, Map):
        return {"location": "/proc/none"} if name == "device_config" else {}
    if isinstance(type, Enum):
        return {"vm_domain_type": "pv"}.get(type.name.removeprefix("enum "), type.words[0])
    if type is INT:
        return "1" if "cpu" in name.lower() else str(16 << 20)
    return False if type is BOOL else {"key": "h", "keys": "h", "type": "file"}.get(name, "x")


RECORDS = {
    "VM.create": {"name_label": "made"},
    "VBD.create": {"userdevice": "5", "mode": "RO", "type": "Disk"},
    "VIF.create": {"device": "5"},
    "VDI.create": {"virtual_size": "4096"},
    "network.create": {"name_label": "x", "bridge": "no name, this"},
    "subject.create": {"subject_identifier": "read-only"},
}


def parameters(name: str, objects: dict[str, Any]) -> list[Any]:
    if name in RECORDS:
        return [RECORDS[name] | {kind: objects[kind] for kind in ("VM", "VDI", "SR", "network")}]
    message = MESSAGES[name]
    if name in ("VM.set_PV_kernel", "VM.set_PV_ramdisk"):
        return [objects["VM"], ""]  # files of the host are for its owner to name
    found = [value(type, where, objects) for where, type in message.parameters]
    if name == "VM.set_VCPUs_at_startup":
        found[-1] = "1"
    if name.startswith("VDI.resize"):
        found[-1] = "8192"
    if name == "VBD.insert" or name == "VM.copy":
        return found
    return found[: len(found) - message.optional] if name.startswith("VDI.") else found


def guarded() -> list[str]:
    """Messages that not everybody may send."""
    return [
        name
        for name, each in MESSAGES.items()
        if each.do is not None
        and (each.role is not None or name in ROLES_OF_ACTIONS)
        and not name.startswith("user.")  # there are none
    ]


KINDS = sorted({name.partition(".")[0] for name in guarded()})


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in ("VM", "VBD", "VIF") else []) for kind in KINDS]
)
def test_a_message_is_for_who_has_its_permission(scene: Scene, kind: str) -> None:
    x = scene.x
    if kind in ("PIF", "PIF_metrics") and not x.PIF.get_all():
        pytest.skip("no interface of this host has a route to the outside")
    names = {role: set(x.role.get_permissions_name_label(x.role.get_by_name_label(role)[0])) for role in ROLES}
    own = [name for name in guarded() if name.partition(".")[0] == kind]
    shared: dict[bool, dict[str, Any]] = {}
    for name in own:
        least = next(role for role in ROLES if name.lower() in names[role])
        below = ROLES[ROLES.index(least) - 1]
        runs = name in RUNNING or name in WAITING or kind in ("console", "VM_guest_metrics")
        is_setter = name.partition(".")[2].startswith(("set_", "add_", "remove_")) and name not in RUNNING
        if is_setter:
            if runs not in shared:
                shared[runs] = scene.objects(f"{kind} {runs}", runs=runs, medium=False)
            objects = shared[runs]
        else:
            objects = scene.objects(name, runs=runs, medium=name == "VBD.eject")
        if name in ("VBD.unplug", "VBD.unplug_force"):
            x.VBD.plug(objects["VBD"])
        if name in ("VIF.unplug", "VIF.unplug_force"):
            x.VIF.plug(objects["VIF"])
        if name == "VM.unpause":
            x.VM.start(objects["VM"], True, False)
        if name in ("SR.forget", "SR.destroy"):
            objects["SR"] = scene.unplugged_sr(name)
        if name == "subject.remove_from_roles":
            objects["role"] = x.role.get_by_name_label("read-only")[0]
        given = parameters(name, objects)
        assert code_of(scene.users[below], name, *given) == "RBAC_PERMISSION_DENIED", (name, below)
        if name not in WAITING and kind != "subject":
            code = code_of(scene.users[least], name, *given)
            assert code not in ("RBAC_PERMISSION_DENIED", "HANDLE_INVALID", "FIELD_TYPE_ERROR"), (name, least, code)
        if not is_setter:
            scene.remove(objects)
    for objects in shared.values():
        scene.remove(objects)


def test_permissions_are_internal_roles_that_are_found_by_name(scene: Scene) -> None:
    x = scene.x
    (reader,), (admin,) = x.role.get_by_name_label("read-only"), x.role.get_by_name_label("pool-admin")
    every = x.role.get_permissions(admin)
    assert x.role.get_subroles(admin) == every and set(x.role.get_permissions(reader)) < set(every)
    start = next(each for each in every if x.role.get_name_label(each) == "vm.start")
    assert x.role.get_is_internal(start) and not x.role.get_is_internal(admin)
    assert start not in x.role.get_all() and x.role.get_permissions(start) == [start]
    roles = [x.role.get_name_label(role) for role in x.role.get_by_permission(start)]
    assert roles == ["pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator"]
    assert x.role.get_by_permission_name_label("VM.start") == x.role.get_by_permission(start)
    assert x.role.get_by_permission_name_label("vm.no_such_message") == []
    (subject,) = (ref for ref, each in x.subject.get_all_records().items() if each["subject_identifier"] == "read-only")
    assert x.subject.get_permissions_name_label(subject) == x.role.get_permissions_name_label(reader)
    assert code_of(scene.owner, "subject.add_to_roles", subject, start) == "ROLE_NOT_FOUND"


def test_a_session_has_its_users_permissions_and_a_refusal_says_who_has_it(scene: Scene) -> None:
    session = scene.users["vm-operator"]
    held = session.xenapi.session.get_rbac_permissions(session.handle)
    assert "vm.start" in held and "async.vm.start" in held and "vm.destroy" not in held
    assert scene.x.session.get_rbac_permissions(scene.owner.handle) == []  # a superuser's are not listed
    vm = scene.x.VM.create({"name_label": "kept", "memory_static_max": str(16 << 20)})
    with pytest.raises(XenAPI.Failure) as found:
        session.xenapi.VM.destroy(vm)
    code, permission, text = found.value.details
    assert (code, permission) == ("RBAC_PERMISSION_DENIED", "vm.destroy")
    assert text.endswith("roles that have it: pool-admin, pool-operator, vm-power-admin, vm-admin")
    scene.x.VM.destroy(vm)
