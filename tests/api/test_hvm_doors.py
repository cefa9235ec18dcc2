# SPDX-License-Identifier: Apache-2.0
"""An HVM domain's life at every door: HTTP, `domzero`, `xl` and XenAPI do the same to it, and see what others did."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import pytest
from created import changed
from dom0_server import Server
from waiting import until
from xenapi_client import over_socket

from domzero.cli.xl.door import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu-system-x86_64 is not here"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """xl's configuration of a domain that has an empty CD drive, and a disk that nothing starts from."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    path = tmp_path / "hvm.cfg"
    path.write_text(
        f"""
        name = "doors"
        builder = "hvm"
        memory = 32
        vcpus = 1
        maxvcpus = 2
        engine = "tcg"
        boot = "cd"
        disk = ["{disk},raw,hda,rw", "format=raw, vdev=hdc, devtype=cdrom, target="]
        vif = ["bridge=doors, model=e1000"]
        vnc = 1
        usbdevice = "tablet"
        viridian = 1
        """
    )
    return path


@pytest.fixture
def session(server: Server) -> Iterator[Any]:
    session = over_socket(server.socket)
    yield session.xenapi
    session.xenapi.session.logout()


def xl(server: Server, *arguments: str) -> str:
    """What `domzero xl` prints; it ends well."""
    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error):
        status = run([f"--socket={server.socket}", *arguments])
    assert status == 0, error.getvalue()
    return output.getvalue()


def cli(server: Server, *arguments: str) -> str:
    """What `domzero` prints; it ends well."""
    done = server.cli(*arguments)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_what_one_door_does_the_others_see(
    server: Server, api: httpx.Client, session: Any, file: Path, tmp_path: Path
) -> None:
    medium = tmp_path / "medium.iso"
    medium.write_bytes(bytes(2 << 20))

    # xl makes it, and all of them list it.
    xl(server, "create", str(file))
    domain = api.get("/domains/doors").json()
    assert (domain["type"], domain["state"]) == ("hvm", "running")
    row = next(line for line in xl(server, "list").splitlines() if line.startswith("doors"))
    assert row.split()[1:4] == [str(domain["domid"]), "32", "1"]
    assert "doors" in cli(server, "list")
    (vm,) = session.VM.get_by_name_label("doors")
    assert session.VM.get_uuid(vm) == domain["uuid"] and session.VM.get_domain_type(vm) == "hvm"

    # Pause and go on, each by another.
    for pause, unpause in (
        (lambda: xl(server, "pause", "doors"), lambda: session.VM.unpause(vm)),
        (lambda: session.VM.pause(vm), lambda: cli(server, "unpause", "doors")),
        (lambda: cli(server, "pause", "doors"), lambda: xl(server, "unpause", "doors")),
    ):
        pause()
        assert api.get("/domains/doors").json()["state"] == "paused"
        assert session.VM.get_power_state(vm) == "Paused"
        unpause()
        assert session.VM.get_power_state(vm) == "Running"

    # CDs change by xl, `domzero` and HTTP.
    def size() -> int:
        disks = {each["vdev"]: each["bytes"] for each in api.get("/domains/doors/disks").json()}
        return int(disks["hdc"])

    xl(server, "cd-insert", "doors", "hdc", str(medium))
    assert size() == 2 << 20 and str(medium) in cli(server, "block-list", "doors")
    xl(server, "cd-eject", "doors", "hdc")
    assert size() == 0
    cli(server, "cd-insert", "doors", "hdc", str(medium))
    assert size() == 2 << 20
    changed(api, api.delete("/domains/doors/disks/hdc/medium"))
    assert size() == 0

    # Disks, interfaces and vCPUs come.
    xl(server, "block-attach", "doors", f"{medium},raw,xvdb,r")
    xl(server, "network-attach", "doors", "bridge=doors", "model=virtio")
    assert [each["vdev"] for each in api.get("/domains/doors/disks").json()] == ["hda", "hdc", "xvdb"]
    assert len(session.VM.get_VBDs(vm)) == 3 and len(session.VM.get_VIFs(vm)) == 2
    xl(server, "vcpu-set", "doors", "2")
    states = [each["state"] for each in api.get("/domains/doors/vcpus").json()]
    assert states == ["running", "running"]
    assert len([line for line in xl(server, "vcpu-list", "doors").splitlines() if line.startswith("doors")]) == 2

    # Screen and console.
    picture = tmp_path / "doors.png"
    cli(server, "screenshot", "doors", "-o", str(picture))
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert [session.console.get_protocol(each) for each in session.VM.get_consoles(vm)] == ["rfb", "vt100"]
    assert api.get("/domains/doors/vnc").json()["address"]

    # It is reset by one, and started again by Domain 0; another destroys it.
    xl(server, "reboot", "doors")
    until(lambda: api.get("/domains/doors").json()["reboots"] == 1, 60, "its reboot")
    until(lambda: api.get("/domains/doors").json()["state"] == "running", 60, "its next start")
    xl(server, "shutdown", "doors")  # nobody listens to the button
    xl(server, "destroy", "doors")
    assert api.get("/domains/doors").json()["state"] == "destroyed"
    assert "doors" not in xl(server, "list")
