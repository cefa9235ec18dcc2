# SPDX-License-Identifier: Apache-2.0
"""What users may over XenAPI: what their role gives over any other door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from xenapi_client import code_of

PASSWORD = "correct horse"
ROLES = ("read-only", "vm-operator", "vm-admin", "vm-power-admin", "pool-operator", "pool-admin")


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("roles"), "--listen", "127.0.0.1:0")
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"}) as client:
        for role in ROLES:
            answer = client.post("/v1/users", json={"name": role, "password": PASSWORD, "role": role})
            assert answer.status_code == 201, answer.text
        assert client.post("/v1/users", json={"name": "nothing", "password": PASSWORD}).status_code == 201
    yield server
    assert server.stop() == 0


def session_of(server: Server, name: str, password: str = PASSWORD) -> Any:
    session = XenAPI.Session(server.url)
    session.xenapi.login_with_password(name, password)
    return session


def refused(session: Any, method: str, *parameters: Any) -> bool:
    """Whether it is the role that forbids it; any other failure says that it is allowed."""
    try:
        session.xenapi_request(method, parameters)
    except XenAPI.Failure as failure:
        return bool(failure.details[0] == "RBAC_PERMISSION_DENIED")
    return False


@pytest.mark.parametrize(
    ("method", "least"),
    [
        ("VM.get_all_records", "read-only"),
        ("VM.start", "vm-operator"),
        ("VM.add_tags", "vm-admin"),
        ("VM.set_name_label", "vm-admin"),
        ("VM.destroy", "vm-admin"),
        ("VDI.create", "vm-admin"),
        ("SR.set_name_description", "pool-operator"),
        ("network.create", "pool-operator"),
        ("pool.add_to_other_config", "pool-operator"),
        ("host.dmesg_clear", "pool-operator"),
        ("SR.create", "pool-admin"),
    ],
)
def test_each_message_needs_its_role(tcp: Server, shell: str, method: str, least: str) -> None:
    owner = session_of(tcp, "root", tcp.token)
    x = owner.xenapi
    (sr,) = x.SR.get_by_name_label("Local storage")
    (host,), (pool,) = x.host.get_all(), x.pool.get_all()
    vm = x.VM.create({"name_label": "target", "PV_kernel": shell, "memory_static_max": str(16 << 20)})
    parameters = {
        "VM.get_all_records": (),
        "VM.start": (vm, False, False),
        "VM.add_tags": (vm, "x"),
        "VM.set_name_label": (vm, "target"),
        "VM.destroy": (vm,),
        "VDI.create": ({"SR": sr, "virtual_size": "0"},),
        "SR.set_name_description": (sr, "x"),
        "network.create": ({"name_label": "x", "bridge": "no name, this"},),
        "pool.add_to_other_config": (pool, "x", "y"),
        "host.dmesg_clear": (host,),
        "SR.create": (host, {"location": "/proc/none"}, "0", "x", "", "file", "", False, {}),
    }[method]
    try:
        for role in ROLES:
            expected = ROLES.index(role) < ROLES.index(least)
            assert refused(session_of(tcp, role), method, *parameters) is expected, role
    finally:
        if vm in x.VM.get_all():
            if x.VM.get_power_state(vm) != "Halted":
                x.VM.hard_shutdown(vm)
            x.VM.destroy(vm)


def test_a_wrong_password_does_not_log_in(tcp: Server) -> None:
    with pytest.raises(XenAPI.Failure) as found:
        session_of(tcp, "vm-admin", "wrong")
    assert found.value.details[0] == "SESSION_AUTHENTICATION_FAILED"


def test_who_has_no_role_sees_what_is_granted_and_nothing_else(tcp: Server, shell: str) -> None:
    owner = session_of(tcp, "root", tcp.token)
    x = owner.xenapi
    (sr,) = x.SR.get_by_name_label("Local storage")
    (net,) = (each for each in x.network.get_all() if x.network.get_bridge(each) == "user")
    vms, vbds, vdis, vifs = [], [], [], []
    for name in ("theirs", "other"):
        vms.append(x.VM.create({"name_label": name, "PV_kernel": shell, "memory_static_max": str(16 << 20)}))
        vdis.append(x.VDI.create({"SR": sr, "virtual_size": "4096"}))
        vbds.append(x.VBD.create({"VM": vms[-1], "VDI": vdis[-1], "userdevice": "0", "mode": "RW", "type": "Disk"}))
        vifs.append(x.VIF.create({"VM": vms[-1], "network": net, "device": "0"}))
    theirs, other = vms
    nobody = session_of(tcp, "nothing")
    assert nobody.xenapi.VM.get_all() == []
    with httpx.Client(base_url=f"{tcp.url}/v1", headers={"Authorization": f"Bearer {tcp.token}"}) as client:
        path = f"/users/nothing/grants/{theirs.removeprefix('OpaqueRef:')}"
        assert client.put(path, json={"role": "vm-admin"}).status_code == 200
        n = nobody.xenapi
        seen = {kind: getattr(n, kind).get_all() for kind in ("VM", "VBD", "VDI", "VIF", "VM_metrics")}
        assert seen == {"VM": [theirs], "VBD": vbds[:1], "VDI": vdis[:1], "VIF": vifs[:1],
                        "VM_metrics": [x.VM.get_metrics(theirs)]}  # fmt: skip
        assert list(n.VM.get_all_records()) == [theirs] and n.VM.get_by_name_label("other") == []
        for kind in ("PBD", "subject", "host_cpu", "task"):
            assert getattr(n, kind).get_all() == [], kind
        ((host, record),), (pool,) = n.host.get_all_records().items(), n.pool.get_all()
        assert record["resident_VMs"] == record["PBDs"] == [] and n.host.get_metrics(host) == "OpaqueRef:NULL"
        assert (n.pool.get_master(pool), n.pool.get_default_SR(pool)) == (host, sr)
        assert n.session.get_this_host(nobody.handle) == host and n.VDI.get_SR(vdis[0]) == sr
        assert n.SR.get_all() == [sr] and (n.SR.get_VDIs(sr), n.SR.get_PBDs(sr)) == (vdis[:1], [])
        assert n.network.get_all() == [net] and n.network.get_VIFs(net) == vifs[:1]
        assert x.network.get_VIFs(net) == vifs
        for method in ("host.dmesg", "host.compute_free_memory", "pool.add_tags", "host.set_name_description"):
            given = (pool if method.startswith("pool") else host, *("x",) * method.count("_tags"))
            given += ("x",) * method.endswith("description")
            assert code_of(nobody, method, *given) == "RBAC_PERMISSION_DENIED", method
        for kind, hidden in (
            ("VM", other),
            ("VBD", vbds[1]),
            ("VDI", vdis[1]),
            ("PBD", x.SR.get_PBDs(sr)[0]),
            ("host_metrics", x.host.get_metrics(host)),
        ):
            assert code_of(nobody, f"{kind}.get_record", hidden) == "HANDLE_INVALID", kind
        assert code_of(nobody, "VM.get_by_uuid", other.removeprefix("OpaqueRef:")) == "UUID_INVALID"
        assert code_of(nobody, "VM.start", other, False, False) == "HANDLE_INVALID"
        wanted = {"VM": theirs, "VDI": vdis[1], "userdevice": "1", "mode": "RW", "type": "Disk"}
        assert code_of(nobody, "VBD.create", wanted) == "HANDLE_INVALID"  # another's disk
        assert code_of(nobody, "VBD.create", {**wanted, "VM": other, "VDI": vdis[0]}) == "HANDLE_INVALID"
        assert code_of(nobody, "VIF.create", {"VM": other, "network": net, "device": "1"}) == "HANDLE_INVALID"
        for method, *parameters in (
            ("VM.create", {"name_label": "more"}), ("VM.clone", theirs, "more"), ("VDI.create", {"SR": sr}),
            ("VDI.set_name_label", vdis[0], "x"), ("SR.get_supported_types",),
        ):  # fmt: skip
            assert code_of(nobody, method, *parameters) == "RBAC_PERMISSION_DENIED", method
        events = nobody.xenapi_request("event.from", (["*"], "", 0.0))
        assert {each["ref"] for each in events["events"] if each["class"] == "vm"} == {theirs}
        told = {each["class"]: each.get("snapshot") for each in events["events"]}
        assert set(told) == {"vm", "vbd", "vdi", "vif", "vm_metrics", "host", "pool", "network", "sr"}
        assert (told["host"]["resident_VMs"], told["host"]["PBDs"], told["sr"]["VDIs"]) == ([], [], vdis[:1])
        assert told["network"]["VIFs"] == vifs[:1]
        assert int(events["valid_ref_counts"]["vm"]) == 1
        n.VM.set_name_description(theirs, "mine")
        n.VBD.add_to_other_config(vbds[0], "a", "b")
        task = nobody.xenapi_request("Async.VM.start", (theirs, False, False))
        assert task in n.task.get_all() and code_of(session_of(tcp, "read-only"), "task.get_record", task) == ""
        for refused_path in (
            f"/export?uuid={other[10:]}",
            f"/vm_rrd?uuid={other[10:]}",
            f"/vncsnapshot?uuid={other[10:]}",
        ):
            answer = httpx.get(f"{tcp.url}{refused_path}&session_id={nobody.handle}")
            assert answer.status_code in (403, 404), answer.text
        updates = httpx.get(f"{tcp.url}/rrd_updates?start=0&session_id={nobody.handle}")
        assert updates.status_code == 200 and other[10:] not in updates.text
        assert client.delete(path).status_code == 200
    assert nobody.xenapi.VM.get_all() == [] and code_of(nobody, "VM.get_record", theirs) == "HANDLE_INVALID"
    if x.VM.get_power_state(theirs) != "Halted":
        x.VM.hard_shutdown(theirs)
    for vm in vms:
        x.VM.destroy(vm)
    for vdi in vdis:
        x.VDI.destroy(vdi)


def test_a_session_ends_with_its_user_and_follows_the_role(tcp: Server) -> None:
    with httpx.Client(base_url=tcp.url, headers={"Authorization": f"Bearer {tcp.token}"}) as client:
        client.post("/v1/users", json={"name": "anna", "password": PASSWORD, "role": "vm-admin"})
        session = session_of(tcp, "anna")
        handle = session.handle
        assert not session.xenapi.session.get_is_local_superuser(handle)
        assert session.xenapi.session.get_auth_user_name(handle) == "anna"
        assert "anna" in {each["subject_identifier"] for each in session.xenapi.subject.get_all_records().values()}
        assert client.patch("/v1/users/anna", json={"role": "read-only"}).status_code == 200
        (network,) = session.xenapi.network.get_all()
        assert refused(session, "network.add_tags", network, "x")
        assert client.delete("/v1/users/anna").status_code == 204
    assert session.VM.get_all(handle)["ErrorDescription"][0] == "SESSION_INVALID"


def test_subjects_are_users(tcp: Server) -> None:
    x = session_of(tcp, "root", tcp.token).xenapi
    roles = {x.role.get_name_label(role): role for role in x.role.get_all()}
    subject = x.subject.create({"subject_identifier": "carla", "other_config": {}})
    assert refused(session_of(tcp, "pool-operator"), "subject.create", {"subject_identifier": "dan"})
    assert code_of(session_of(tcp, "root", tcp.token), "subject.create", {"subject_identifier": "carla"}) == (
        "SUBJECT_ALREADY_EXISTS"
    )
    x.subject.add_to_roles(subject, roles["read-only"])
    x.subject.add_to_roles(subject, roles["vm-admin"])
    assert x.subject.get_roles(subject) == [roles["vm-admin"]]
    with httpx.Client(base_url=f"{tcp.url}/v1", headers={"Authorization": f"Bearer {tcp.token}"}) as client:
        assert client.get("/users/carla").json()["role"] == "vm-admin"
        assert client.patch("/users/carla", json={"password": PASSWORD}).status_code == 200
    carla = session_of(tcp, "carla")
    with pytest.raises(XenAPI.Failure, match="ROLE_ALREADY_EXISTS"):
        x.subject.add_to_roles(subject, roles["vm-operator"])  # covered
    with pytest.raises(XenAPI.Failure, match="ROLE_NOT_FOUND"):
        x.subject.remove_from_roles(subject, roles["read-only"])
    assert "carla" in x.session.get_all_subject_identifiers()
    assert refused(session_of(tcp, "read-only"), "session.logout_subject_identifier", "carla")
    x.session.logout_subject_identifier("carla")
    assert carla.VM.get_all(carla.handle)["ErrorDescription"][0] == "SESSION_INVALID"
    x.subject.remove_from_roles(subject, roles["vm-admin"])
    assert x.subject.get_roles(subject) == []
    x.subject.destroy(subject)
    assert subject not in x.subject.get_all()


def test_what_was_done_is_in_the_audit_log(tcp: Server, shell: str) -> None:
    session = session_of(tcp, "vm-admin")
    vm = session.xenapi.VM.create({"name_label": "seen", "memory_static_max": str(16 << 20)})
    session.xenapi.VM.destroy(vm)
    with httpx.Client(base_url=tcp.url, headers={"Authorization": f"Bearer {tcp.token}"}) as client:
        lines = client.get("/v1/audit").json()
    lines = lines["items"] if isinstance(lines, dict) else lines
    mine = [line for line in lines if line["actor"] == "vm-admin" and line["domain"] == vm.removeprefix("OpaqueRef:")]
    assert [line["action"] for line in mine] == ["domain.undefine", "domain.define"]
    assert {line["via"] for line in mine} == {"xenapi"}


def test_disks_go_in_and_out_for_who_may_make_them(tcp: Server) -> None:
    x = session_of(tcp, "root", tcp.token).xenapi
    (sr,) = x.SR.get_by_name_label("Local storage")
    vdi = x.VDI.create({"SR": sr, "virtual_size": "4096"})
    for role in ("read-only", "vm-operator", "vm-admin"):
        wanted = 200 if role == "vm-admin" else 403
        auth = (role, PASSWORD)
        put = httpx.put(f"{tcp.url}/import_raw_vdi", params={"vdi": vdi}, content=b"x", auth=auth)
        assert put.status_code == wanted, put.text
        assert httpx.get(f"{tcp.url}/export_raw_vdi", params={"vdi": vdi}, auth=auth).status_code == wanted
    x.VDI.destroy(vdi)
