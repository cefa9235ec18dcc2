# SPDX-License-Identifier: Apache-2.0
"""Kernels that start at their PVH entry, in a QEMU: the lab's guest of full virtualization does as it is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from dom0_server import Server
from waiting import until

from domzero.lab.listing import listing

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here (qemu-system-x86)"
)
Create = Callable[..., dict[str, object]]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pvh") / "full.elf"
    path.write_bytes(listing("full").pvh_elf())
    return str(path)


@pytest.fixture
def start(create: Create, kernel: str) -> Create:
    def start(name: str, **fields: object) -> dict[str, object]:
        return create(name, **{"kernel": kernel, "type": "pvh", "engine": "tcg", "memory_mib": 32, **fields})

    return start


def console(api: httpx.Client, name: str) -> str:
    return api.get(f"/domains/{name}/console").text


def tell(api: httpx.Client, name: str, letter: str) -> None:
    until(lambda: "full: ready" in console(api, name), 60, "the guest's first words")
    assert api.post(f"/domains/{name}/console", json={"data": letter}).status_code == 204


def end_of(api: httpx.Client, name: str) -> str:
    until(lambda: api.get(f"/domains/{name}").json()["exit"] is not None, 30, "its end")
    return str(api.get(f"/domains/{name}").json()["exit"]["reason"])


def test_a_kernel_with_a_pvh_entry_runs_and_powers_off(api: httpx.Client, start: Create) -> None:
    domain = start("off", persistent=True)
    assert (domain["type"], domain["engine"], domain["hvm"]) == ("pvh", "tcg", None)
    assert api.get("/domains/off/screenshot").status_code == 409
    vcpus = api.get("/domains/off/vcpus").json()
    assert len(vcpus) == 1 and vcpus[0]["state"] == "running"
    tell(api, "off", "q")
    assert end_of(api, "off") == "poweroff"


def test_a_reset_and_a_panic_are_what_the_configuration_says(api: httpx.Client, start: Create) -> None:
    start("again", on_crash="preserve")
    tell(api, "again", "r")
    until(lambda: api.get("/domains/again").json()["reboots"] == 1, 30, "its reboot")
    until(lambda: console(api, "again").count("full: ready") == 2, 60, "its second start")
    tell(api, "again", "c")
    until(lambda: api.get("/domains/again").json()["state"] == "crashed", 30, "its crash")
    assert api.get("/domains/again").json()["exit"]["reason"] == "crash"


def test_pause_memory_and_core_dump_are_qemus(api: httpx.Client, start: Create, tmp_path: Path) -> None:
    start("kept", memory_mib=32)
    tell(api, "kept", "e")
    assert api.post("/domains/kept/pause").status_code < 300
    assert api.get("/domains/kept").json()["state"] == "paused"
    core = api.post("/domains/kept/core", json={"path": str(tmp_path / "core")})
    assert core.status_code in (201, 202), core.text
    until(lambda: (tmp_path / "core").exists(), 30, "the dump")
    assert (tmp_path / "core").read_bytes()[:4] == b"\x7fELF" and (tmp_path / "core").stat().st_size > 32 << 20
    assert api.post("/domains/kept/unpause").status_code < 300
    assert api.get("/domains/kept/metrics").status_code == 200
    assert api.put("/domains/kept/vcpus/affinity", json={"vcpu": 0, "cpus": "0"}).status_code < 300
    assert api.get("/domains/kept/vcpus").json()[0]["affinity"] == [0]


def test_a_kernel_without_a_pvh_entry_is_refused(api: httpx.Client, shell: str) -> None:
    body = {"name": "none", "kernel": shell, "type": "pvh", "engine": "tcg", "memory_mib": 32}
    refused = api.post("/domains", json=body)
    assert refused.status_code == 422 and "no PVH entry note" in refused.text


def test_run_chooses_the_type_and_ends_as_the_guest_does(kernel: str, server: Server) -> None:
    command = [sys.executable, "-m", "domzero", "run", "--kernel", kernel, "--memory", "32", "--engine", "tcg"]
    process = subprocess.Popen(
        [*command, "--timeout", "60", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=server.env,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "full: ready\n"
    process.stdin.write("rt")
    process.stdin.flush()
    assert process.stdout.readline() == "full: ready\n"
    process.stdin.write("t")
    process.stdin.flush()
    assert re.fullmatch(r"[0-9a-f]{16}\n", process.stdout.readline())
    process.stdin.write("q")
    process.stdin.close()
    assert process.wait(60) == 0
    said = process.stderr.read()
    assert "type pvh: full.elf has a PVH entry note, and none for PV" in said and "it is started again" in said
    assert '"ending": "poweroff"' in said and '"boots": 2' in said
