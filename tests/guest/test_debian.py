# SPDX-License-Identifier: Apache-2.0
"""Debian's own kernel, unmodified, with the initramfs that `domzero image fetch` builds."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from building import COMMAND, Run, busybox_of
from waiting import until

from domzero.dom0 import vcpus
from domzero.dom0.config import DomainConfig
from domzero.dom0.images.cache import Image
from domzero.dom0.images.cpio import char_device, directory, file, write_cpio
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession
from domzero.dom0.memory_account import guest_memory_mib
from domzero.dom0.messages import VcpuState
from domzero.dom0.xenstore_nodes import vcpu_nodes

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


def options(image: Image, *more: str) -> tuple[str, ...]:
    return ("--kernel", image.kernel, "--ramdisk", image.ramdisk, "--cmdline", image.cmdline, *more)


@pytest.mark.engines
def test_it_boots_to_a_shell_that_answers_and_powers_off(debian: Image, domzero_run: Run) -> None:
    script = b"uname -s -m; cat /sys/hypervisor/type; dmesg | grep -c 'Hypervisor detected: Xen PV'; poweroff\n"
    result = domzero_run(*options(debian, "--json"), stdin=script, limit=300)
    assert result.returncode == 0, result.stdout[-2000:]
    lines = result.stdout.splitlines()
    assert b"Linux x86_64" in lines
    assert b"xen" in lines
    assert b"1" in lines
    assert not any(line.endswith(b"\r") for line in result.stdout.split(b"\n"))
    assert json.loads(result.stderr.splitlines()[-1])["ending"] == "poweroff"
    for bad in (b"BUG:", b"Oops", b"WARNING:", b"Call Trace"):
        assert bad not in result.stdout


def test_what_it_prints_early_is_logged_and_shown_once(debian: Image, domzero_run: Run) -> None:
    early = f"{debian.cmdline} earlyprintk=xen"
    arguments = ("--kernel", debian.kernel, "--ramdisk", debian.ramdisk, "--cmdline", early, "-v")
    result = domzero_run(*arguments, stdin=b"poweroff\n", limit=300)
    assert result.returncode == 0
    for text in (b"Linux version", b"Command line:", b"Booting kernel on Xen"):
        assert result.stdout.count(text) == 1
        assert sum(line.startswith(b"(d1) ") and text in line for line in result.stderr.splitlines()) == 1


def test_a_kernel_panic_is_a_crash(debian: Image, domzero_run: Run) -> None:
    result = domzero_run("--kernel", debian.kernel, "--cmdline", "console=hvc0", "--json", limit=300)
    assert b"Kernel panic - not syncing: VFS: Unable to mount root fs" in result.stdout
    assert result.returncode == 3
    assert json.loads(result.stderr.splitlines()[-1])["ending"] == "crash"
    assert b"Traceback" not in result.stderr


def test_domain_0_asks_and_it_shuts_down(debian: Image) -> None:
    config = DomainConfig(kernel=debian.kernel, ramdisk=debian.ramdisk, cmdline=debian.cmdline)
    session = DomainSession(config)
    session.start()
    try:
        until(lambda: b"A busybox shell follows" in session.console.history)
        assert session.store.get(f"/local/domain/{session.domid}/control/feature-poweroff") == "1"
        session.request("poweroff")
        end = session.wait(120)
        assert end is not None and end.reason is EndReason.POWEROFF
        assert session.host is None or session.host.machine.audit() == []
    finally:
        session.destroy()


def test_its_balloon_takes_it_beyond_the_memory_that_it_started_with_and_gives_it_back_to_the_host(
    debian: Image,
) -> None:
    config = DomainConfig(
        kernel=debian.kernel, ramdisk=debian.ramdisk, cmdline=debian.cmdline, memory_mib=128, maxmem_mib=256
    )
    session = DomainSession(config)
    session.start()
    try:
        until(lambda: b"A busybox shell follows" in session.console.history)
        domain, host = session.domain, session.host
        assert domain is not None and host is not None
        until(lambda: domain.hw.frames_owned <= 128 << 8)
        session.store.write(f"/local/domain/{session.domid}/memory/target", 250 << 10)
        until(lambda: domain.hw.frames_owned >= 249 << 8)
        room = b"mkdir -p /t; mount -t tmpfs -o size=140m t /t"
        session.console.send(room + b" && dd if=/dev/zero of=/t/full bs=1M count=100 && echo filled $((1 + 1))\n")
        until(lambda: b"filled 2" in session.console.history)
        assert host.audit() == []
        assert guest_memory_mib(os.getpid()) >= 130
        session.console.send(b"rm /t/full && echo emptied $((1 + 1))\n")
        until(lambda: b"emptied 2" in session.console.history)
        session.store.write(f"/local/domain/{session.domid}/memory/target", 110 << 10)
        until(lambda: domain.hw.frames_owned <= 110 << 8)
        # The host has it back, not only the hypervisor.
        until(lambda: guest_memory_mib(os.getpid()) <= 115)
        session.console.send(b"echo and lives $((1 + 1))\n")
        until(lambda: b"and lives 2" in session.console.history)
        assert host.audit() == []
    finally:
        session.destroy()


def test_vcpus_come_and_go_while_it_runs(debian: Image) -> None:
    config = DomainConfig(kernel=debian.kernel, ramdisk=debian.ramdisk, cmdline=debian.cmdline, max_vcpus=3)
    session = DomainSession(config)
    session.start()
    try:
        until(lambda: b"A busybox shell follows" in session.console.history)
        domain, host = session.domain, session.host
        assert domain is not None and host is not None
        online = ["online", "offline", "offline"]
        until(lambda: [vcpu.state == VcpuState.OFFLINE for vcpu in vcpus.stats(domain)] == [False, True, True])

        def use(count: int) -> None:
            for path, state in vcpu_nodes(session.domid, count, 3):
                session.store.write(path, state)

        assert [session.store.get(path) for path, _ in vcpu_nodes(session.domid, 1, 3)] == online
        use(3)
        # What udev's rules do in a whole system: the kernel only says that there are more.
        up = b"for n in 1 2; do until echo 1 >/sys/devices/system/cpu/cpu$n/online; do usleep 10000; done; done\n"
        session.console.send(up + b"echo now $(cat /sys/devices/system/cpu/online)\n")
        until(lambda: b"now 0-2\r\n" in session.console.history)
        assert VcpuState.OFFLINE not in {vcpu.state for vcpu in vcpus.stats(domain)}
        use(2)
        until(lambda: [vcpu.state == VcpuState.OFFLINE for vcpu in vcpus.stats(domain)] == [False, False, True])
        # Printed when the vCPU is off already, and anywhere: in the middle of the answer as well.
        until(lambda: b"CPU 2 is now offline\r\n" in session.console.history)
        session.console.send(b"echo then $(cat /sys/devices/system/cpu/online)\n")
        until(lambda: b"then 0-1\r\n" in session.console.history)
        assert host.audit() == []
    finally:
        session.destroy()


def test_it_answers_sysrq_and_an_nmi(debian: Image) -> None:
    config = DomainConfig(kernel=debian.kernel, ramdisk=debian.ramdisk, cmdline=debian.cmdline)
    session = DomainSession(config)
    session.start()
    try:
        until(lambda: b"A busybox shell follows" in session.console.history)
        assert session.domain is not None
        session.store.write(f"/local/domain/{session.domid}/control/sysrq", "h")
        until(lambda: b"sysrq: HELP : loglevel(0-9)" in session.console.history)
        vcpus.send_nmi(session.domain, 0)
        until(lambda: b"NMI received for unknown reason" in session.console.history)
        session.store.write(f"/local/domain/{session.domid}/control/sysrq", "o")
        end = session.wait(120)
        assert end is not None and end.reason is EndReason.POWEROFF
    finally:
        session.destroy()


def test_a_compressed_initramfs_of_somebody_else_runs_its_binary(
    debian: Image, domzero_run: Run, tmp_path: Path
) -> None:
    init = "#!/bin/busybox sh\n/bin/busybox echo the sum is $((40 + 2))\n/bin/busybox poweroff -f\n"
    entries = [
        directory("bin"),
        directory("dev"),
        char_device("dev/console", 5, 1),
        file("bin/busybox", busybox_of(debian), 0o755),
        file("init", init, 0o755),
    ]
    ramdisk = tmp_path / "initramfs.gz"
    ramdisk.write_bytes(gzip.compress(write_cpio(entries)))
    result = domzero_run(
        "--kernel", debian.kernel, "--ramdisk", str(ramdisk), "--cmdline", "console=hvc0 quiet", limit=300
    )
    assert result.returncode == 0, result.stdout[-2000:]
    assert b"the sum is 42\n" in result.stdout


@pytest.mark.slow
def test_a_reboot_from_inside_boots_it_again(debian: Image) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", *options(debian, "--json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    for command in (b"reboot -f\n", b"poweroff -f\n"):
        seen = b""
        while not re.search(rb"A busybox shell follows.*:[~/]\S*# ", seen, re.DOTALL):  # its prompt: it reads
            seen += os.read(process.stdout.fileno(), 4096)
            assert process.poll() is None, seen[-2000:]
        process.stdin.write(command)
        process.stdin.flush()
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0
    assert json.loads(error.splitlines()[-1])["boots"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("memory", [128, 2048, 20 << 10])  # the last one costs this host 600 MiB
def test_it_uses_the_memory_it_is_given(debian: Image, domzero_run: Run, memory: int) -> None:
    script = b"grep MemTotal /proc/meminfo; poweroff -f\n"
    result = domzero_run(*options(debian, "--memory", str(memory)), stdin=script, limit=400)
    assert result.returncode == 0, result.stdout[-2000:]
    match = re.search(rb"^MemTotal: +(\d+) kB", result.stdout, re.MULTILINE)
    assert match is not None
    assert memory - 90 - memory // 16 < int(match.group(1)) >> 10 <= memory


@pytest.mark.slow
def test_several_vcpus_come_up(debian: Image, domzero_run: Run) -> None:
    script = b"echo cpus $(nproc); poweroff -f\n"
    result = domzero_run(*options(debian, "--vcpus", "4"), stdin=script, limit=400)
    assert result.returncode == 0, result.stdout[-2000:]
    assert b"cpus 4\n" in result.stdout


LOAD = b"""work() {
 i=0
 while [ $i -lt 2 ]; do
  s=$(seq 1 300 | awk '{s+=$1} END {print s}'); [ "$s" = 45150 ] || echo WRONG sum
  x=$(yes | head -c 100000 | md5sum | cut -c1-32); [ "$x" = "$REF" ] || echo WRONG md5
  (exit 7); [ $? = 7 ] || echo WRONG exit
  echo $i > /tmp/f$1; [ "$(cat /tmp/f$1)" = $i ] || echo WRONG file
  i=$((i+1))
 done
 echo worker $1 done
}
mkdir -p /tmp
REF=$(yes | head -c 100000 | md5sum | cut -c1-32)
for w in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do work $w & done
wait
poweroff -f
"""


@pytest.mark.slow
@pytest.mark.parametrize("vcpus", [4, 8])
def test_a_parallel_load_on_several_vcpus_computes_no_wrong_answer(debian: Image, domzero_run: Run, vcpus: int) -> None:
    result = domzero_run(*options(debian, "--vcpus", str(vcpus)), stdin=LOAD, limit=560)
    assert result.returncode == 0, result.stdout[-2000:]
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert sum(line.endswith(b"done") and line.startswith(b"worker") for line in lines) == 16
    for bad in (b"BUG:", b"Oops", b"soft lockup", b"detected stall"):
        assert bad not in result.stdout
    assert not any(line.startswith(b"WRONG") for line in lines)
