# SPDX-License-Identifier: Apache-2.0
"""Messages of XenAPI's that no client's usual way leads over: each does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pyxs  # type: ignore[import-untyped]
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until
from xenapi_client import over_socket, remove_all

MIB = 1 << 20


@pytest.fixture
def xenapi(server: Server, api: httpx.Client) -> Iterator[Any]:
    """XenAPI's client; what it leaves behind is removed."""
    proxy = over_socket(server.socket).xenapi
    yield proxy
    remove_all(proxy)


@pytest.fixture
def vm(xenapi: Any, shell: str) -> str:
    """A halted VM of 16 MiB, 64 MiB at most."""
    given = {
        "name_label": "plain",
        "PV_kernel": shell,
        "PV_args": "console=hvc0",
        "memory_static_max": str(64 * MIB),
        "memory_dynamic_max": str(16 * MIB),
    }
    made: str = xenapi.VM.create(given)
    return made


def refusal(method: Any, *parameters: Any) -> list[str]:
    with pytest.raises(XenAPI.Failure) as found:
        method(*parameters)
    details: list[str] = found.value.details
    return details


def memory(xenapi: Any, vm: str) -> tuple[int, int]:
    """What it starts with, and may have, in MiB."""
    record = xenapi.VM.get_record(vm)
    return int(record["memory_dynamic_max"]) // MIB, int(record["memory_static_max"]) // MIB


def test_a_halted_vms_memory_is_what_was_set_last(xenapi: Any, vm: str) -> None:
    xenapi.VM.set_memory(vm, str(32 * MIB))
    assert memory(xenapi, vm) == (32, 32)
    xenapi.VM.set_memory_static_range(vm, "0", str(48 * MIB))
    assert memory(xenapi, vm) == (32, 48)
    xenapi.VM.set_memory_static_max(vm, str(16 * MIB))
    assert memory(xenapi, vm) == (16, 16)
    xenapi.VM.set_memory_dynamic_min(vm, str(16 * MIB))
    what = refusal(xenapi.VM.set_memory_dynamic_min, vm, str(17 * MIB))
    assert what[0] == "MEMORY_CONSTRAINT_VIOLATION"
    assert xenapi.VM.maximise_memory(vm, str(20 * MIB + 1), False) == str(20 * MIB)


def test_a_running_vms_memory_is_its_balloons_target(xenapi: Any, api: httpx.Client, vm: str) -> None:
    (host,) = xenapi.host.get_all()
    xenapi.VM.assert_can_boot_here(vm, host)
    assert xenapi.VM.compute_memory_overhead(vm) == xenapi.VM.get_memory_overhead(vm) == "0"
    xenapi.VM.start_on(vm, host, False, False)
    assert xenapi.VM.get_resident_on(vm) == host
    assert xenapi.VM.get_boot_record(vm)["domid"] == xenapi.VM.get_domid(vm)
    xenapi.VM.set_memory_target_live(vm, str(24 * MIB))
    assert api.get("/domains/plain").json()["memory_target_mib"] == 24
    xenapi.VM.set_memory_dynamic_max(vm, str(20 * MIB))
    assert api.get("/domains/plain").json()["memory_target_mib"] == 20
    xenapi.VM.wait_memory_target_live(vm)
    assert xenapi.VM.get_memory_target(vm) == str(20 * MIB)
    xenapi.VM.update_allowed_operations(vm)
    assert "pause" in xenapi.VM.get_allowed_operations(vm) and xenapi.VM.get_cooperative(vm)
    assert xenapi.host.get_uncooperative_resident_VMs(host) == []
    assert refusal(xenapi.VM.assert_agile, vm)[0] == "HOST_NOT_ENOUGH_FREE_MEMORY"


def test_a_guest_is_asked_and_obeys(xenapi: Any, server: Server, api: httpx.Client, vm: str) -> None:
    (host,) = xenapi.host.get_all()

    def has_come_back() -> bool:
        domain = api.get("/domains/plain").json()
        return bool(domain["reboots"] == 1 and domain["state"] in ("running", "blocked"))

    xenapi.VM.start(vm, False, False)
    until(lambda: "hello" in api.get("/domains/plain/console").text)
    xenapi.VM.send_sysrq(vm, "h")
    with pyxs.Client(unix_socket_path=str(server.xenstore)) as store:
        node = f"/local/domain/{xenapi.VM.get_domid(vm)}/control/sysrq"
        assert store.read(node.encode()) == b"h"
    assert refusal(xenapi.VM.send_sysrq, vm, "hh")[0] == "INVALID_VALUE"
    xenapi.host.send_debug_keys(host, "q")
    assert "plain" in xenapi.host.get_log(host)
    xenapi.VM.clean_reboot(vm)
    until(has_come_back)
    xenapi.VM.shutdown(vm)
    assert xenapi.VM.get_power_state(vm) == "Halted"


def test_a_copys_disks_are_in_another_storage(xenapi: Any, vm: str, tmp_path: Path) -> None:
    (host,), (sr,) = xenapi.host.get_all(), xenapi.SR.get_by_name_label("Local storage")
    other = xenapi.SR.create(host, {"location": str(tmp_path)}, "0", "other", "", "file", "user", False)
    xenapi.SR.set_name_label(other, "elsewhere")
    assert xenapi.SR.get_by_name_label("elsewhere") == [other]
    disk = xenapi.VDI.create({"SR": sr, "virtual_size": str(MIB), "name_label": "root"})
    place = xenapi.VBD.create({"VM": vm, "VDI": disk, "userdevice": "0", "mode": "RW", "type": "Disk"})
    xenapi.VBD.assert_attachable(place)
    copy = xenapi.VM.copy(vm, "copied", other)
    (copied,) = [xenapi.VBD.get_VDI(each) for each in xenapi.VM.get_VBDs(copy)]
    assert xenapi.VDI.get_SR(copied) == other and len(list(tmp_path.glob("*.raw"))) == 1
    xenapi.VM.start(vm, False, False)
    xenapi.VDI.resize_online(disk, str(2 * MIB))
    assert xenapi.VDI.get_virtual_size(disk) == str(2 * MIB)
    xenapi.VDI.update(disk)
    xenapi.SR.update(other)
    assert refusal(xenapi.VDI.forget, disk)[0] == "OPERATION_NOT_ALLOWED"
    assert refusal(xenapi.SR.assert_can_host_ha_statefile, other)[0] == "OPERATION_NOT_ALLOWED"
    xenapi.VM.destroy(copy)
    xenapi.VDI.destroy(copied)
    (pbd,) = xenapi.SR.get_PBDs(other)
    xenapi.PBD.unplug(pbd)
    assert not xenapi.PBD.get_currently_attached(pbd)
    xenapi.PBD.plug(pbd)
    assert xenapi.PBD.get_currently_attached(pbd)
    xenapi.PBD.unplug(pbd)
    xenapi.SR.destroy(other)


def test_the_events_number_goes_on_and_an_injected_token_is_after_all(xenapi: Any, server: Server, vm: str) -> None:
    session = over_socket(server.socket)
    x = session.xenapi
    session.xenapi_request("event.from", (["vm"], "", 0.0))
    before = int(x.event.get_current_id())
    x.VM.add_tags(vm, "new")
    token = x.event.inject("VM", vm)
    assert int(x.event.get_current_id()) > before
    assert session.xenapi_request("event.from", ([f"vm/{vm}"], token, 0.0))["events"] == []
    (host,) = x.host.get_all()
    assert x.message.get("VM", "x", x.host.get_server_localtime(host)) == {}


def test_a_local_session_is_a_session(server: Server) -> None:
    session = XenAPI.Session("http://localhost/", transport=over_socket(server.socket)._ServerProxy__transport)
    answer = session.session.slave_local_login_with_password("root", "")
    handle = answer["Value"]
    assert session.VM.get_all(handle)["Status"] == "Success"
    assert session.session.local_logout(handle)["Status"] == "Success"
    assert session.VM.get_all(handle)["ErrorDescription"][0] == "SESSION_INVALID"


@pytest.mark.parametrize("name", ["snapshot", "checkpoint", "revert", "pool_migrate"])
def test_what_is_not_there_is_refused_by_name_in_xapis_code(server: Server, vm: str, name: str) -> None:
    x = over_socket(server.socket).xenapi
    assert refusal(getattr(x.VM, name), vm, "x") == ["NOT_IMPLEMENTED", f"VM.{name}"]
    task = getattr(x.Async.VM, name)
    assert refusal(task, vm, "x") == ["NOT_IMPLEMENTED", f"Async.VM.{name}"]
