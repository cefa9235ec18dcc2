# SPDX-License-Identifier: Apache-2.0
"""A domain's life as XenAPI's clients make it: from storage, a disk, a network and a record to its end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until
from xenapi_client import over_socket, remove_all

MIB = 1 << 20
NULL = "OpaqueRef:NULL"


@pytest.fixture
def xenapi(server: Server, api: httpx.Client) -> Iterator[Any]:
    """XenAPI's client; what it leaves behind is removed."""
    session = over_socket(server.socket)
    proxy = session.xenapi
    yield proxy
    remove_all(proxy)
    proxy.session.logout()


def record(shell: str, name: str, **fields: object) -> dict[str, object]:
    """What VM.create is given."""
    return {
        "name_label": name,
        "name_description": "made by a test",
        "user_version": "1",
        "is_a_template": False,
        "affinity": NULL,
        "memory_static_max": str(32 * MIB),
        "memory_dynamic_max": str(16 * MIB),
        "memory_dynamic_min": str(16 * MIB),
        "memory_static_min": str(16 * MIB),
        "VCPUs_params": {},
        "VCPUs_max": "2",
        "VCPUs_at_startup": "1",
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        "PV_bootloader": "",
        "PV_kernel": shell,
        "PV_ramdisk": "",
        "PV_args": "console=hvc0",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "HVM_boot_policy": "",
        "HVM_boot_params": {},
        "platform": {},
        "PCI_bus": "",
        "other_config": {"owner": "anna"},
        "recommendations": "",
        **fields,
    }


def vdi(xenapi: Any, name: str, size: int = MIB, **fields: object) -> str:
    (sr,) = xenapi.SR.get_by_name_label("Local storage")
    given = {
        "SR": sr,
        "name_label": name,
        "name_description": "",
        "virtual_size": str(size),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        **fields,
    }
    made: str = xenapi.VDI.create(given)
    return made


def vbd(xenapi: Any, vm: str, disk: str, **fields: object) -> str:
    given = {
        "VM": vm,
        "VDI": disk,
        "userdevice": "autodetect",
        "bootable": True,
        "mode": "RW",
        "type": "Disk",
        "empty": disk == NULL,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **fields,
    }
    made: str = xenapi.VBD.create(given)
    return made


def vif(xenapi: Any, vm: str, network: str, **fields: object) -> str:
    given = {
        "VM": vm,
        "network": network,
        "device": "0",
        "MAC": "",
        "MTU": "1500",
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
        **fields,
    }
    made: str = xenapi.VIF.create(given)
    return made


def test_a_life_from_create_to_destroy(xenapi: Any, api: httpx.Client, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "life"))
    assert (xenapi.VM.get_power_state(vm), xenapi.VM.get_domid(vm)) == ("Halted", "-1")
    disk = vdi(xenapi, "root")
    place = vbd(xenapi, vm, disk)
    network = xenapi.network.create({"name_label": "lab", "name_description": "", "other_config": {}, "MTU": "1500"})
    card = vif(xenapi, vm, network)
    assert xenapi.VM.get_VBDs(vm) == [place] == xenapi.VDI.get_VBDs(disk)
    assert (xenapi.VBD.get_device(place), xenapi.VBD.get_userdevice(place)) == ("xvda", "0")
    assert xenapi.VM.get_other_config(vm) == {"owner": "anna"}
    xenapi.VM.start(vm, False, False)
    seen = xenapi.VM.get_record(vm)
    assert (seen["power_state"], seen["VCPUs_max"], seen["memory_static_max"]) == ("Running", "2", str(32 * MIB))
    assert xenapi.VBD.get_currently_attached(place) and xenapi.VIF.get_currently_attached(card)
    domain = api.get("/domains/life").json()
    assert str(domain["domid"]) == seen["domid"]
    assert xenapi.VDI.get_location(disk) == vm_disk(xenapi, disk) and domain["disks"][0].endswith(".raw")
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VDI.destroy(disk)
    assert found.value.details[:2] == ["VDI_IN_USE", disk]
    until(lambda: "ready" in api.get("/domains/life/console").text or domain_is_up(api))
    xenapi.VM.clean_shutdown(vm)
    assert xenapi.VM.get_power_state(vm) == "Halted"
    xenapi.VM.destroy(vm)
    assert vm not in xenapi.VM.get_all()
    assert disk in xenapi.VDI.get_all() and xenapi.VDI.get_VBDs(disk) == []
    xenapi.network.destroy(network)
    assert network not in xenapi.network.get_all()


def vm_disk(xenapi: Any, disk: str) -> str:
    uuid: str = xenapi.VDI.get_uuid(disk)
    return uuid


def domain_is_up(api: httpx.Client) -> bool:
    return bool(api.get("/domains/life").json()["cpu_time_seconds"] > 0)


def test_a_disk_is_made_grown_copied_and_deleted(xenapi: Any, server: Server) -> None:
    disk = vdi(xenapi, "data", 3 * MIB + 1)
    seen = xenapi.VDI.get_record(disk)
    assert seen["virtual_size"] == str(3 * MIB + 512)
    (sr,) = xenapi.SR.get_by_name_label("Local storage")
    assert seen["SR"] == sr and disk in xenapi.SR.get_VDIs(sr)
    (path,) = server.socket.parent.glob(f"d.sock.storage/{seen['uuid']}.raw")
    assert path.stat().st_size == 3 * MIB + 512 and path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"content" + bytes(3 * MIB + 512 - 7))
    xenapi.VDI.resize(disk, str(4 * MIB))
    assert path.stat().st_size == 4 * MIB
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VDI.resize(disk, str(MIB))
    assert found.value.details[0] == "VDI_TOO_SMALL"
    copy = xenapi.VDI.clone(disk)
    assert copy != disk
    copied = path.with_name(f"{xenapi.VDI.get_uuid(copy)}.raw")
    assert copied.read_bytes()[:7] == b"content" and copied.stat().st_size == 4 * MIB
    xenapi.VDI.set_name_label(copy, "renamed")
    assert xenapi.VDI.get_by_name_label("renamed") == [copy]
    xenapi.VDI.destroy(disk)
    assert not path.exists() and copied.exists()


def test_a_qcow2_disk_is_one(xenapi: Any, server: Server) -> None:
    disk = vdi(xenapi, "q", 8 * MIB, sm_config={"image-format": "qcow2"})
    (path,) = server.socket.parent.glob(f"d.sock.storage/{xenapi.VDI.get_uuid(disk)}.qcow2")
    assert path.read_bytes()[:4] == b"QFI\xfb"
    assert xenapi.VDI.get_virtual_size(disk) == str(8 * MIB)
    xenapi.VDI.resize(disk, str(16 * MIB))
    assert xenapi.VDI.get_virtual_size(disk) == str(16 * MIB)
    copy = xenapi.VDI.copy(disk, xenapi.VDI.get_SR(disk))
    assert xenapi.VDI.get_virtual_size(copy) == str(16 * MIB)


def test_disks_are_plugged_in_and_out_while_the_guest_runs(xenapi: Any, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "plug"))
    xenapi.VM.start(vm, False, False)
    disk = vdi(xenapi, "late")
    place = vbd(xenapi, vm, disk, userdevice="3")
    assert not xenapi.VBD.get_currently_attached(place)
    xenapi.VBD.plug(place)
    assert xenapi.VBD.get_currently_attached(place) and xenapi.VBD.get_device(place) == "xvdd"
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VBD.destroy(place)
    assert found.value.details[0] == "OPERATION_NOT_ALLOWED"
    xenapi.VBD.unplug_force(place)
    assert not xenapi.VBD.get_currently_attached(place)
    xenapi.VBD.destroy(place)
    assert xenapi.VM.get_VBDs(vm) == []
    again = vbd(xenapi, vm, disk)
    xenapi.VM.hard_shutdown(vm)
    xenapi.VM.start(vm, True, False)  # with what was not plugged in
    assert xenapi.VBD.get_currently_attached(again)
    assert xenapi.VM.get_power_state(vm) == "Paused"


def test_a_drive_takes_and_gives_its_medium(xenapi: Any, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "cd"))
    drive = vbd(xenapi, vm, NULL, type="CD", mode="RO")
    assert xenapi.VBD.get_empty(drive) and xenapi.VBD.get_VDI(drive) == NULL
    disk = vdi(xenapi, "cd.iso")
    xenapi.VBD.insert(drive, disk)
    assert xenapi.VBD.get_VDI(drive) == disk and not xenapi.VBD.get_empty(drive)
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VBD.insert(drive, disk)
    assert found.value.details[0] == "VBD_NOT_EMPTY"
    xenapi.VM.start(vm, False, False)
    xenapi.VBD.eject(drive)
    assert xenapi.VBD.get_empty(drive)


def test_a_clone_has_disks_of_its_own(xenapi: Any, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "origin", is_a_template=True))
    disk = vdi(xenapi, "template's")
    vbd(xenapi, vm, disk)
    vif(xenapi, vm, xenapi.network.get_all()[0], MAC="00:16:3e:00:00:07")
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VM.start(vm, False, False)
    assert found.value.details == ["VM_IS_TEMPLATE", vm]
    clone = xenapi.VM.clone(vm, "cloned")
    xenapi.VM.provision(clone)
    assert not xenapi.VM.get_is_a_template(clone)
    (place,) = xenapi.VM.get_VBDs(clone)
    assert xenapi.VBD.get_VDI(place) not in (disk, NULL)
    (card,) = xenapi.VM.get_VIFs(clone)
    assert xenapi.VIF.get_MAC(card) != "00:16:3e:00:00:07"
    xenapi.VM.start(clone, False, False)
    assert xenapi.VM.get_power_state(clone) == "Running"


def test_the_default_template_makes_a_domain_that_only_wants_a_kernel(xenapi: Any, shell: str) -> None:
    (template,) = [vm for vm, each in xenapi.VM.get_all_records().items() if each["is_default_template"]]
    vm = xenapi.VM.clone(template, "from nothing")
    xenapi.VM.provision(vm)
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VM.start(vm, False, False)
    assert found.value.details[:2] == ["INVALID_VALUE", "kernel"]
    xenapi.VM.set_PV_kernel(vm, shell)
    xenapi.VM.set_memory_limits(vm, "0", str(64 * MIB), str(16 * MIB), str(16 * MIB))
    xenapi.VM.set_VCPUs_max(vm, "3")
    xenapi.VM.set_VCPUs_at_startup(vm, "2")
    xenapi.VM.start(vm, False, False)
    seen = xenapi.VM.get_record(vm)
    assert (seen["memory_dynamic_max"], seen["memory_static_max"]) == (str(16 * MIB), str(64 * MIB))
    assert (seen["VCPUs_max"], seen["VCPUs_at_startup"]) == ("3", "2")
    xenapi.VM.set_memory_dynamic_range(vm, str(8 * MIB), str(12 * MIB))
    assert xenapi.VM.get_memory_target(vm) == str(12 * MIB)
    xenapi.VM.set_VCPUs_number_live(vm, "1")
    assert xenapi.VM.get_VCPUs_at_startup(vm) == "1"
    with pytest.raises(XenAPI.Failure):
        xenapi.VM.set_name_label(template, "mine")


def test_what_was_kept_is_there_after_a_restart(tmp_path: Path, shell: str) -> None:
    server = Server(tmp_path)
    proxy = over_socket(server.socket).xenapi
    vm = proxy.VM.create(record(shell, "lasting"))
    proxy.VM.add_tags(vm, "blue")
    other = proxy.VM.create(record(shell, "short-lived"))
    proxy.VM.add_tags(other, "red")
    disk = vdi(proxy, "lasting")
    place = vbd(proxy, vm, disk)
    (sr,) = proxy.SR.get_by_name_label("Local storage")
    assert server.cli("undefine", "short-lived").returncode == 0  # by another door
    assert server.stop() == 0
    half = tmp_path / "d.sock.storage" / ".new-x"
    half.write_bytes(b"half")
    server = Server(tmp_path)
    try:
        proxy = over_socket(server.socket).xenapi
        assert proxy.VM.get_tags(vm) == ["blue"]
        assert proxy.VBD.get_VDI(place) == disk
        assert proxy.SR.get_by_name_label("Local storage") == [sr]
        assert not half.exists()
        with closing(sqlite3.connect(f"{server.socket}.db")) as database:
            rows = database.execute("SELECT object FROM xenapi_fields WHERE name = 'tags'").fetchall()
        assert rows == [(vm.removeprefix("OpaqueRef:"),)]
    finally:
        assert server.stop() == 0


def test_a_directory_becomes_a_storage_and_is_forgotten(xenapi: Any, tmp_path: Path) -> None:
    (tmp_path / "old.raw").write_bytes(bytes(4096))
    (tmp_path / "notes.txt").write_text("no disk")
    (host,) = xenapi.host.get_all()
    location = {"location": str(tmp_path)}
    sr = xenapi.SR.create(host, location, "0", "second", "", "file", "user", False, {})
    (disk,) = xenapi.SR.get_VDIs(sr)
    assert (xenapi.VDI.get_name_label(disk), xenapi.VDI.get_virtual_size(disk)) == ("old.raw", "4096")
    (pbd,) = xenapi.SR.get_PBDs(sr)
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.SR.forget(sr)
    assert found.value.details[0] == "SR_HAS_PBD"
    xenapi.PBD.unplug(pbd)
    xenapi.SR.forget(sr)
    assert sr not in xenapi.SR.get_all() and (tmp_path / "old.raw").exists()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"VCPUs_max": "0"}, "INVALID_VALUE"),
        ({"memory_static_max": "1"}, "INVALID_VALUE"),
        ({"name_label": "a/b"}, "INVALID_VALUE"),
        ({"name_label": 5}, "FIELD_TYPE_ERROR"),
        ({"other_config": {"a": {}}}, "FIELD_TYPE_ERROR"),
        ({"actions_after_crash": "explode"}, "INVALID_VALUE"),
        ({"domain_type": "none of these"}, "INVALID_VALUE"),
        ({"domain_type": "hvm", "HVM_boot_params": {"order": "x"}}, "INVALID_VALUE"),
        ({"domain_type": "hvm", "HVM_boot_params": {"firmware": "x"}}, "INVALID_VALUE"),
        ({"affinity": "OpaqueRef:x"}, "HANDLE_INVALID"),
    ],
)
def test_a_record_that_cannot_be_a_vm_is_refused(xenapi: Any, shell: str, change: dict[str, object], code: str) -> None:
    before = xenapi.VM.get_all()
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VM.create(record(shell, "wrong") | change)
    assert found.value.details[0] == code
    assert xenapi.VM.get_all() == before


def test_weight_cap_and_processors_are_the_domains(xenapi: Any, api: httpx.Client, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "weighs") | {"VCPUs_params": {"weight": "512", "mine": "x"}})
    path = f"/domains/{vm.removeprefix('OpaqueRef:')}"

    def now() -> tuple[int, int]:
        domain = api.get(path).json()
        return domain["cpu_weight"], domain["cap"]

    assert xenapi.VM.get_VCPUs_params(vm) == {"weight": "512", "mine": "x"} and now() == (512, 0)
    assert api.patch(path, json={"cap": 50}).status_code == 200
    assert xenapi.VM.get_VCPUs_params(vm) == {"weight": "512", "cap": "50", "mine": "x"}
    xenapi.VM.set_VCPUs_params(vm, {"cap": "70", "mask": "0", "yours": "y"})
    assert xenapi.VM.get_VCPUs_params(vm) == {"cap": "70", "mask": "0", "yours": "y"} and now() == (256, 70)
    xenapi.VM.start(vm, False, False)
    xenapi.VM.add_to_VCPUs_params_live(vm, "weight", "300")
    xenapi.VM.remove_from_VCPUs_params(vm, "cap")
    assert now() == (300, 0)
    for wrong in ({"weight": "0"}, {"cap": "much"}, {"mask": "none"}):
        with pytest.raises(XenAPI.Failure, match="INVALID_VALUE"):
            xenapi.VM.set_VCPUs_params(vm, wrong)
    xenapi.VM.hard_shutdown(vm)
    xenapi.VM.destroy(vm)


def test_an_operation_that_a_client_has_blocked_is_not_done(xenapi: Any, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "guarded"))
    xenapi.VM.set_blocked_operations(vm, {"destroy": "precious", "clone": "", "hard_shutdown": "", "start": "later"})
    for name, *others in (("destroy",), ("clone", "other"), ("start", False, False)):
        with pytest.raises(XenAPI.Failure, match="OPERATION_BLOCKED"):
            getattr(xenapi.VM, name)(vm, *others)
    assert not {"destroy", "clone", "start"} & set(xenapi.VM.get_allowed_operations(vm))
    xenapi.VM.remove_from_blocked_operations(vm, "start")
    xenapi.VM.start(vm, True, False)
    for name in ("hard_shutdown", "shutdown"):
        with pytest.raises(XenAPI.Failure, match="OPERATION_BLOCKED"):
            getattr(xenapi.VM, name)(vm)
    xenapi.VM.set_blocked_operations(vm, {})
    xenapi.VM.hard_shutdown(vm)
    xenapi.VM.destroy(vm)


def test_a_rate_limit_is_the_interfaces_rate(xenapi: Any, api: httpx.Client, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "slow"))
    (network,) = (each for each in xenapi.network.get_all() if xenapi.network.get_bridge(each) == "user")
    vif = xenapi.VIF.create({"VM": vm, "network": network, "device": "0", "qos_algorithm_type": "ratelimit",
                             "qos_algorithm_params": {"kbps": "100", "mine": "x"}})  # fmt: skip
    path = f"/domains/{vm.removeprefix('OpaqueRef:')}/vifs"

    def rate() -> str:
        return next((word for word in api.get(path).json()[0]["spec"].split(",") if word.startswith("rate=")), "")

    assert rate() == "rate=100KB/s" and xenapi.VIF.get_qos_algorithm_params(vif) == {"kbps": "100", "mine": "x"}
    xenapi.VM.start(vm, True, False)
    xenapi.VIF.set_qos_algorithm_params(vif, {"kbps": "250"})
    assert rate() == "rate=250KB/s"
    assert api.patch(f"{path}/0", json={"rate": "8Mb/s"}).status_code == 200
    assert xenapi.VIF.get_qos_algorithm_params(vif) == {"kbps": "1000"}
    xenapi.VIF.set_qos_algorithm_type(vif, "")
    assert rate() == "" and xenapi.VIF.get_qos_algorithm_type(vif) == ""
    with pytest.raises(XenAPI.Failure, match="INVALID_VALUE"):
        xenapi.VIF.set_qos_algorithm_type(vif, "ratelimit")
        xenapi.VIF.set_qos_algorithm_params(vif, {"kbps": "fast"})
    xenapi.VM.hard_shutdown(vm)
    xenapi.VM.destroy(vm)


def test_a_vm_that_reboots_is_never_halted(xenapi: Any, api: httpx.Client, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "turns"))
    path = f"/domains/{vm.removeprefix('OpaqueRef:')}"
    xenapi.VM.start(vm, False, False)
    seen: set[str] = set()

    def has_come_back() -> bool:
        domain = api.get(path).json()
        seen.add(xenapi.VM.get_power_state(vm))
        return bool(domain["reboots"] == 1 and domain["state"] in ("running", "blocked"))

    until(lambda: "hello" in api.get(f"{path}/console").text)
    api.post(f"{path}/console", json={"data": "reboot\n"})
    until(has_come_back)
    assert seen == {"Running"}
    xenapi.VM.hard_shutdown(vm)
    assert xenapi.VM.get_power_state(vm) == "Halted"
    xenapi.VM.destroy(vm)


def test_a_disks_snapshot_says_of_what_it_is(xenapi: Any) -> None:
    disk = vdi(xenapi, "base")
    snapshot = xenapi.VDI.snapshot(disk)
    record_ = xenapi.VDI.get_record(snapshot)
    assert (record_["is_a_snapshot"], record_["snapshot_of"]) == (True, disk)
    assert xenapi.VDI.get_snapshots(disk) == [snapshot]
    clone = xenapi.VDI.clone(snapshot)
    assert not xenapi.VDI.get_is_a_snapshot(clone)
    xenapi.VDI.destroy(snapshot)
    assert xenapi.VDI.get_snapshots(disk) == []


def test_an_interface_is_locked_and_moved_while_it_is_not_used(xenapi: Any, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "locks"))
    network = xenapi.network.create({"name_label": "one"})
    card = vif(xenapi, vm, network)
    assert xenapi.VIF.get_locking_mode(card) == "locked"
    xenapi.VIF.set_locking_mode(card, "unlocked")
    xenapi.VIF.set_ipv4_allowed(card, ["10.0.0.7"])
    assert (xenapi.VIF.get_locking_mode(card), xenapi.VIF.get_ipv4_allowed(card)) == ("unlocked", ["10.0.0.7"])
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VIF.set_ipv6_allowed(card, ["10.0.0.7"])
    assert found.value.details[0] == "INVALID_VALUE"
    (outside,) = [each for each in xenapi.network.get_all() if xenapi.network.get_bridge(each) == "user"]
    xenapi.VIF.move(card, outside)
    assert xenapi.VIF.get_network(card) == outside
    xenapi.VIF.destroy(card)
    xenapi.network.destroy(network)


def test_operations_are_valid_as_the_record_says(xenapi: Any, shell: str) -> None:
    vm = xenapi.VM.create(record(shell, "operations"))
    assert "start" in xenapi.VM.get_allowed_operations(vm)
    xenapi.VM.assert_operation_valid(vm, "start")
    xenapi.VM.start(vm, False, False)
    with pytest.raises(XenAPI.Failure) as found:
        xenapi.VM.assert_operation_valid(vm, "start")
    assert found.value.details[0] == "OPERATION_NOT_ALLOWED"
    xenapi.VM.hard_reboot(vm)
    xenapi.VM.assert_operation_valid(vm, "clean_shutdown")
    assert xenapi.VM.get_possible_hosts(vm) == xenapi.host.get_all()
    xenapi.VM.power_state_reset(vm)
    assert xenapi.VM.get_power_state(vm) == "Halted"
