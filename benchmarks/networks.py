# SPDX-License-Identifier: Apache-2.0
"""How fast TCP is between guests and the host, and between guests: `python benchmarks/networks.py [--mib N] [--json]`.

Debian's kernel runs a program of our own (guest/tcp_peer.c), the host the same one. Beside the speed is what it costs:
processor time for each MiB, of the guests' vCPUs, of the threads of their back ends, and of the others (the user
network's process or the switch, and the host's program). The host's own loopback is in the same run: quote the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from guest_program import build_program, with_program
from guest_shell import GuestShell

from domzero.dom0.images import Image, fetch_debian
from domzero.dom0.vifspec import MTU, MTU_MAX

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PORT = 5001


@dataclass(slots=True)
class Row:
    """One connection: Mbit/s, and milliseconds of processor time for each MiB."""

    what: str
    mbit_s: float
    vcpu_ms: float
    back_end_ms: float
    other_ms: float


def cpu_of_threads() -> dict[str, float]:
    """Seconds of this process: of back ends, and of the others, which are vCPUs but for very little."""
    used = {"vcpu": 0.0, "vif": 0.0}
    for path in Path("/proc/self/task").glob("*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        kind = "vif" if name.startswith("vif") else "vcpu"
        used[kind] += (int(fields[11]) + int(fields[12])) * TICK_S
    return used


def cpu_of_others(names: tuple[str, ...]) -> float:
    """Seconds of the processes that have one of these words in their command line."""
    used = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            text = (path / "stat").read_text()
        except OSError:
            continue
        if any(name in command for name in names) and int(path.name) != os.getpid():
            fields = text[text.rindex(")") + 2 :].split()
            used += (int(fields[11]) + int(fields[12])) * TICK_S
    return used


class Peer:
    """The program on the host."""

    def __init__(self, program: Path, *words: str) -> None:
        self.process = subprocess.Popen([str(program), *words], stdout=subprocess.PIPE, text=True)

    def finish(self) -> None:
        """Waits until it has done what it was told. SystemExit: it has not."""
        if self.process.wait():
            raise SystemExit("networks: tcp_peer failed")

    def line(self) -> str:
        """The next one that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def speed(said: str) -> float:
    """Mbit/s, of the last thing that a receiver says."""
    size, seconds = re.findall(r"(\d+) in ([\d.]+)", said)[-1]
    return int(size) * 8 / float(seconds) / 1e6


def measure(what: str, mib: int, others: tuple[str, ...], run: Callable[[], float]) -> Row:
    """One connection."""
    before, before_others = cpu_of_threads(), cpu_of_others(others)
    mbit_s = run()
    used = {kind: value - before[kind] for kind, value in cpu_of_threads().items()}
    return Row(
        what,
        round(mbit_s, 1),
        round(used["vcpu"] * 1e3 / mib, 2),
        round(used["vif"] * 1e3 / mib, 2),
        round((cpu_of_others(others) - before_others) * 1e3 / mib, 2),
    )


def own_address() -> str:
    """The host's, on the way to others; its loopback is not for guests."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


@contextmanager
def booted(image: Image, *vifs: str) -> Iterator[GuestShell]:
    """A guest with its shell."""
    shell = GuestShell(image, vifs=list(vifs))
    try:
        shell.ready()
        yield shell
    finally:
        shell.session.destroy()


def wait_for(shell: GuestShell, text: bytes, at: int) -> None:
    """Until the guest says this behind a place of its console's history."""
    while text not in shell.session.console.history[at:]:
        time.sleep(0.01)


def loopback(program: Path, mib: int) -> Row:
    """The host alone."""

    def run() -> float:
        receiver = Peer(program, "receive", str(PORT))
        receiver.line()
        Peer(program, "send", "127.0.0.1", str(PORT), str(mib)).finish()
        return speed(receiver.line())

    before = os.times()
    row = measure("host's loopback", mib, (), run)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return replace(row, other_ms=round(used * 1e3 / mib, 2))


def with_host(image: Image, program: Path, mib: int, mtu: int) -> Iterator[Row]:
    """A guest and the host, by the user network."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    others = ("passt", "domzero.dom0.usernet", str(program))
    with booted(image, f"ip=10.77.0.2,mtu={mtu},hostfwd=tcp:127.0.0.1:{port}-:{PORT}") as shell:
        while "10.77.0.2/" not in shell.do("ip -4 addr show eth0"):
            time.sleep(0.2)

        def out() -> float:
            receiver = Peer(program, "receive", str(PORT))
            receiver.line()
            shell.do(f"tcp_peer send {own_address()} {PORT} {mib}")
            return speed(receiver.line())

        def into() -> float:
            at = len(shell.session.console.history)
            received = shell.start(f"tcp_peer receive {PORT}")
            wait_for(shell, b"listening", at)
            Peer(program, "send", "127.0.0.1", str(port), str(mib)).finish()
            return speed(received())

        yield measure(f"guest to host, MTU {mtu}", mib, others, out)
        yield measure(f"host to guest, MTU {mtu}", mib, others, into)


def between_guests(image: Image, mib: int, mtu: int) -> Row:
    """Two guests on a network of domains."""
    name = f"bench{os.getpid()}"
    spec = f"bridge={name},mtu={mtu}"
    with booted(image, spec) as one, booted(image, spec) as two:
        for number, shell in enumerate((one, two), 1):
            shell.do(f"ip addr add 10.78.0.{number}/24 dev eth0; ip link set eth0 mtu {mtu} up")

        def run() -> float:
            at = len(two.session.console.history)
            received = two.start(f"tcp_peer receive {PORT}")
            wait_for(two, b"listening", at)
            one.do(f"tcp_peer send 10.78.0.2 {PORT} {mib}")
            return speed(received())

        return measure(f"guest to guest, MTU {mtu}", mib, ("domzero.dom0.network",), run)


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mib", type=int, default=128, help="sent over each connection (default: %(default)s)")
    parser.add_argument("--only", default="", help="rows that begin with this")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    image, _ = fetch_debian(lambda text: print(f"networks: {text}", file=sys.stderr))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        program = build_program("tcp_peer", Path(name))
        image = with_program(image, program)
        rows.append(loopback(program, args.mib * 8))
        for mtu in (MTU_MAX, MTU):
            if "host".startswith(args.only) or "guest to host".startswith(args.only):
                rows += with_host(image, program, args.mib, mtu)
        for mtu in (MTU_MAX, MTU):
            if "guest to guest".startswith(args.only):
                rows.append(between_guests(image, args.mib, mtu))
    base = rows[0].mbit_s
    if args.json:
        print(json.dumps([{**asdict(row), "of_loopback": round(row.mbit_s / base, 4)} for row in rows], indent=2))
        return 0
    print(
        f"{'':<28} {'Mbit/s':>9} {'of loopback':>11}   ms of CPU per MiB: {'vCPUs':>6} {'back ends':>9} {'others':>6}"
    )
    for row in rows:
        print(
            f"{row.what:<28} {row.mbit_s:>9.0f} {row.mbit_s / base:>11.4f}   {'':<18} {row.vcpu_ms:>6.2f} "
            f"{row.back_end_ms:>9.2f} {row.other_ms:>6.2f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
