# SPDX-License-Identifier: Apache-2.0
"""XenAPI suspends a VM and resumes it, with PyPI's XenAPI as the client."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import XenAPI  # type: ignore[import-untyped]
from dom0_server import Server
from waiting import until
from xenapi_client import over_socket

from domzero.lab.listing import listing

Create = Callable[..., dict[str, object]]
NULL = "OpaqueRef:NULL"


def refusal(asked: Callable[[], Any]) -> list[str]:
    with pytest.raises(XenAPI.Failure) as failure:
        asked()
    details: list[str] = failure.value.details
    return details


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here")
def test_a_vm_is_suspended_and_resumed_in_its_states(
    server: Server, api: httpx.Client, create: Create, tmp_path: Path
) -> None:
    kernel = tmp_path / "full.elf"
    kernel.write_bytes(listing("full").pvh_elf())
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    shape = {"kernel": str(kernel), "type": "pvh", "engine": "tcg", "memory_mib": 32, "disks": [f"{disk},raw,xvda"]}
    uuid = create("suspended", **shape, persistent=True)["uuid"]
    until(lambda: "ready" in api.get("/domains/suspended/console").text, 60, "the guest")
    x = over_socket(server.socket).xenapi
    vm = x.VM.get_by_uuid(uuid)
    assert "suspend" in x.VM.get_allowed_operations(vm)
    assert refusal(lambda: x.VM.resume(vm, False, False))[:3] == ["VM_BAD_POWER_STATE", vm, "suspended"]

    x.VM.suspend(vm)
    record = x.VM.get_record(vm)
    assert (record["power_state"], record["resident_on"], record["domid"]) == ("Suspended", NULL, "-1")
    assert set(record["allowed_operations"]) == {"resume", "resume_on", "hard_shutdown"}
    for refused in (lambda: x.VM.start(vm, False, False), lambda: x.VM.suspend(vm), lambda: x.VM.destroy(vm)):
        assert refusal(refused)[0] == "VM_BAD_POWER_STATE"

    task = x.Async.VM.resume(vm, True, False)
    until(lambda: x.task.get_status(task) != "pending", 60, "the task")
    assert x.task.get_status(task) == "success", x.task.get_error_info(task)
    assert x.VM.get_power_state(vm) == "Paused"
    x.VM.unpause(vm)
    assert x.VM.get_power_state(vm) == "Running"
    assert api.get("/domains/suspended/console").text.count("ready") == 1

    host = x.host.get_all()[0]
    x.VM.suspend(vm)
    x.VM.resume_on(vm, host, False, False)
    assert x.VM.get_resident_on(vm) == host
    x.VM.suspend(vm)
    x.VM.hard_shutdown(vm)
    assert x.VM.get_power_state(vm) == "Halted" and "start" in x.VM.get_allowed_operations(vm)


def test_a_domain_that_is_not_defined_is_not_suspended(server: Server, create: Create) -> None:
    uuid = create("passing")["uuid"]
    x = over_socket(server.socket).xenapi
    vm = x.VM.get_by_uuid(uuid)
    assert "suspend" not in x.VM.get_allowed_operations(vm)
    assert refusal(lambda: x.VM.suspend(vm))[0] == "OPERATION_NOT_ALLOWED"
    assert x.VM.get_power_state(vm) == "Running"
