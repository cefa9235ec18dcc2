# SPDX-License-Identifier: Apache-2.0
"""`domzero top`: what is expected here xentop of Xen 4.17 printed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from dom0_server import Server

from domzero.cli.top import Domain, View, domains, table

Create = Callable[..., dict[str, object]]
HEAD = (
    "      NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) MAXMEM(%) VCPUS NETS NETTX(k) NETRX(k) VBDS"
    "   VBD_OO   VBD_RD   VBD_WR  VBD_RSECT  VBD_WSECT SSID"
)
HOST = {"total_memory": 8192, "dom0_cpu_seconds": 12.3, "dom0_memory_mib": 512, "nr_cpus": 2}
VIF = {
    **dict.fromkeys(("devid", "spoofed"), 0),
    "sent_bytes": 102400,
    "sent_frames": 100,
    "received_bytes": 204800,
    "received_frames": 200,
    "errors": 3,
    "dropped": 2,
}
DISK = {"devid": 51712, "held": 1, "reads": 22, "writes": 33, "read_bytes": 444 * 512, "written_bytes": 555 * 512}
LONG = Domain(
    *("averylongdomainname", "--b---", 12.9, 524288, 1048576, 2),
    vcpu_seconds=[12.3] * 12,
    vifs=[VIF],
    disks=[DISK],
)


def test_the_table_is_xentops_to_the_character() -> None:
    (dom0,) = domains({"host": HOST, "domains": [], "at": "2026-01-01T00:00:00Z"}, None)
    assert table([LONG, dom0], HOST, View()) == [
        HEAD,
        "averylongd --b---         12    0.0     524288    6.2    1048576      12.5     2    1      100      200    1"
        "        1       22       33        444        555    0",
        "  Domain-0 -----r         12    0.0     524288    6.2   no limit       n/a     2    0        0        0    0"
        "        0        0        0          0          0    0",
    ]


def test_devices_and_vcpus_have_lines_of_their_own() -> None:
    lines = table([LONG], HOST, View(networks=True, vbds=True, vcpus=True, repeat_header=True, full_names=True))
    assert lines[0] == " " * 9 + HEAD
    assert lines[1].startswith("averylongdomainname --b---         12")
    assert lines[2:] == [
        "VCPUs(sec):   0:         12s  1:         12s  2:         12s  3:         12s  4:         12s",
        "          5:         12s  6:         12s  7:         12s  8:         12s  9:         12s",
        "         10:         12s 11:         12s",
        "Net0 RX:   204800bytes      200pkts        0err        2drop"
        "  TX:   102400bytes      100pkts        3err        0drop",
        "VBD BlkBack 51712 [ca: 0]  OO:        1   RD:       22   WR:       33   RSECT:        444   WSECT:        555",
    ]


def test_percents_are_of_the_time_between_two() -> None:
    def metrics(at: str, seconds: float, domid: int) -> dict[str, object]:
        web = {
            "uuid": "u",
            "domid": domid,
            "name": "web",
            "state": "running",
            "cpu_time_seconds": seconds,
            "vcpu_time_seconds": [],
            "memory_mib": 1,
            "max_memory_mib": 1,
            "vcpus": 1,
            "vifs": [],
            "disks": [],
        }
        return {"at": at, "host": HOST, "domains": [web]}

    before = metrics("2026-01-01T00:00:00.000000Z", 1.0, 3)
    assert domains(metrics("2026-01-01T00:00:02.000000Z", 2.0, 3), before)[1].cpu_percent == pytest.approx(50)
    assert domains(metrics("2026-01-01T00:00:02.000000Z", 2.0, 4), before)[1].cpu_percent == 0  # rebooted


def test_batch_mode_prints_real_domains_as_often_as_it_is_told(server: Server, create: Create, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    create("watched", disks=[f"{image},raw,xvda,rw"], vifs=[""])
    lines = server.cli("top", "-b", "-i", "2", "-d", "0.1", "-nxv").stdout.splitlines()
    assert lines.count(HEAD) == 2
    row = next(line for line in lines if line.startswith("   watched "))
    cells = row.split()
    assert re.fullmatch("--b---|-----r", cells[1])
    assert (cells[4], cells[6], cells[8], cells[9], cells[12], cells[-1]) == ("16384", "16384", "1", "1", "1", "0")
    assert any(line.startswith("VBD BlkBack 51712 [ca: 0]  OO:") for line in lines)
    assert any(line.startswith("Net0 RX: ") for line in lines)
    result = server.cli("xl", "top", "-bi1")
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, HEAD)
    assert [each["name"] for each in json.loads(server.cli("top", "--json", "-i1").stdout)["domains"]] == ["watched"]
    assert server.cli("top", "-d", "0").returncode == 2
    assert server.cli("top", "-i", "0").returncode == 2


def test_on_a_terminal_it_is_live_and_q_gives_the_terminal_back(server: Server, create: Create) -> None:
    create("alive", vcpus=2)
    leader, follower = pty.openpty()
    before = termios.tcgetattr(leader)
    command = [sys.executable, "-m", "domzero", "top", "-d", "600"]
    process = subprocess.Popen(command, env=server.env, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    seen = b""
    while b"Quit" not in seen:
        seen += os.read(leader, 4096)
    assert b"\x1b[?1049h" in seen and b"     alive" in seen and b"2 domains:" in seen
    assert b"VCPUs(sec)" not in seen
    os.write(leader, b"v")
    while b"VCPUs(sec)" not in seen:
        seen += os.read(leader, 4096)
    os.write(leader, b"q")
    while b"\x1b[?1049l" not in seen:
        seen += os.read(leader, 4096)
    assert process.wait(20) == 0
    assert termios.tcgetattr(leader) == before
    os.close(leader)
