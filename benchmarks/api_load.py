# SPDX-License-Identifier: Apache-2.0
"""How Domain 0 answers over TCP while domains boot: `python benchmarks/api_load.py [--rate N] [--seconds N] [--json]`.

So many requests a second are due at even distances, over some connections that are kept alive; a time is from when a
request was due to the last byte of its answer, so a stall counts for all that it holds up. Meanwhile two domains of
Debian's kernel boot, again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from boot import build_ramdisk
from serving import SOCKET, serving

from domzero.dom0.images import fetch_debian

PATHS = ["/v1", "/v1/domains", "/v1/domains/boot-0", "/v1/domains/boot-1/console", "/v1/host/dmesg"]


@dataclass(slots=True)
class Load:
    """What was measured."""

    asked: int = 0
    failed: int = 0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Requests a second, and milliseconds."""
        cuts = statistics.quantiles(self.times, n=1000)
        found = {"p50_ms": cuts[499], "p90_ms": cuts[899], "p99_ms": cuts[989], "max_ms": max(self.times)}
        return {
            "requests": self.asked,
            "failed": self.failed,
            "per_second": round(len(self.times) / self.seconds, 1),
            **{name: round(value * 1000, 2) for name, value in found.items()},
        }


async def client(
    address: tuple[str, int], token: str, due: asyncio.Queue[tuple[float, str] | None], load: Load
) -> None:
    """Asks one thing after the other over one connection."""
    reader, writer = await asyncio.open_connection(*address)
    while (item := await due.get()) is not None:
        when, path = item
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        load.times.append(time.monotonic() - when)
        load.failed += head[9:12] not in (b"200", b"404")  # a domain between its boots is not there
    writer.close()


async def ask(address: tuple[str, int], token: str, rate: float, seconds: float, connections: int) -> Load:
    """Asks for so long at this rate."""
    load, due = Load(), asyncio.Queue[tuple[float, str] | None]()
    clients = [asyncio.create_task(client(address, token, due, load)) for _ in range(connections)]
    start = time.monotonic()
    while (now := time.monotonic()) < start + seconds:
        while start + load.asked / rate <= now:
            due.put_nowait((start + load.asked / rate, PATHS[load.asked % len(PATHS)]))
            load.asked += 1
        await asyncio.sleep(0.0005)
    for _ in clients:
        due.put_nowait(None)
    await asyncio.gather(*clients)
    load.seconds = time.monotonic() - start
    return load


async def keep_booting(socket: Path, kernel: str, ramdisk: str, name: str) -> int:
    """Boots a domain of this name until it is cancelled; how often."""
    boots = 0
    command = [sys.executable, "-m", "domzero", "create", "--socket", str(socket), "-q", "-F", "--name", name]
    command += ["--kernel", kernel, "--ramdisk", ramdisk, "--memory", "256", "--cmdline", "console=hvc0"]
    while True:
        process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            return boots
        boots += 1


async def measure(socket: Path, address: tuple[str, int], token: str, args: argparse.Namespace) -> dict[str, object]:
    """The whole run."""
    image, _ = fetch_debian(lambda text: print(f"api_load: {text}", file=sys.stderr))
    ramdisk = socket.parent / "initramfs"
    build_ramdisk(ramdisk, image)
    quiet = await ask(address, token, args.rate, min(args.seconds, 5.0), args.connections)
    jobs = [asyncio.create_task(keep_booting(socket, image.kernel, str(ramdisk), f"boot-{n}")) for n in range(2)]
    await asyncio.sleep(0.5)
    load = await ask(address, token, args.rate, args.seconds, args.connections)
    for job in jobs:
        job.cancel()
    boots = sum(await asyncio.gather(*jobs))
    return {"asked_per_second": args.rate, "quiet": quiet.summary(), "booting": load.summary(), "boots": boots}


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--rate", type=float, default=1000, help="requests that are due in a second (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="of load (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=8, help="kept alive (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serving(Path(name), "--listen", "127.0.0.1:0"):
        (token,) = Path(name).glob("tcp-*.token")
        port = int(token.name.removesuffix(".token").rpartition("-")[2])
        result = asyncio.run(measure(Path(name) / SOCKET, ("127.0.0.1", port), token.read_text().strip(), args))
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    for what in ("quiet", "booting"):
        found = result[what]
        assert isinstance(found, dict)
        times = ", ".join(
            f"{key.removesuffix('_ms')} {found[key]} ms" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms")
        )
        print(f"{what:<8} {found['per_second']:>7} of {args.rate:.0f} a second: {times}; {found['failed']} failed")
    print(f"boots    {result['boots']} of two domains meanwhile")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
