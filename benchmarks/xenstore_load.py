# SPDX-License-Identifier: Apache-2.0
"""xenstore with 10,000 nodes and 1,000 watches, over its Unix socket: `python benchmarks/xenstore_load.py [--json]`.

Each line: so many requests, one after the other, of real clients to a real `domzero serve`; its processor time for each
of them, and what each took in all. Meanwhile another client reads one node over and over: `waited` is the longest that
it waited for an answer.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from serving import XENSTORE, serving

from domzero.dom0.xenstore import Op
from domzero.dom0.xenstore.wire import Decoder, Message

NODES, WATCHES, CLIENTS, WRITES = 10_000, 1_000, 200, 100


class Client:
    """One connection; events are counted, not kept."""

    def __init__(self, path: Path) -> None:
        self.events = 0
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(path))
        self._decoder = Decoder()

    def call(self, op: Op, payload: bytes, tx: int = 0) -> bytes:
        self._sock.sendall(Message(op, 1, tx, payload).encode())
        while (message := self._next()).type == Op.WATCH_EVENT:
            self.events += 1
        if message.type == Op.ERROR:
            raise RuntimeError(f"{op.name} {payload!r}: {message.payload!r}")
        return message.payload

    def wait_for(self, events: int) -> None:
        while self.events < events:
            self._next()
            self.events += 1

    def _next(self) -> Message:
        while (message := self._decoder.next()) is None:
            self._decoder.feed(self._sock.recv(1 << 16))
        return message


class Bystander:
    """A client that reads one node over and over, in a thread."""

    def __init__(self, path: Path) -> None:
        self.longest = 0.0
        self.stop = False
        self._client = Client(path)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.stop:
            begin = time.perf_counter()
            self._client.call(Op.READ, b"name\0")
            self.longest = max(self.longest, time.perf_counter() - begin)
            time.sleep(0.002)

    def close(self) -> None:
        self.stop = True
        self._thread.join()


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far: all of its threads, to the nanosecond."""
    return sum(int(stat.read_text().split()[0]) for stat in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def steps(path: Path) -> list[tuple[str, int, Callable[[], object]]]:
    """What is measured: a name, how many, and what to do."""
    one = Client(path)
    crowd = [Client(path) for _ in range(CLIENTS)]
    each = WATCHES // CLIENTS

    def many(op: Op, count: int, payload: Callable[[int], bytes]) -> Callable[[], object]:
        return lambda: [one.call(op, payload(n)) for n in range(count)]

    def list_parts() -> None:
        offset = 0
        while not (part := one.call(Op.DIRECTORY_PART, b"/wide\0%d\0" % offset).partition(b"\0")[2]).endswith(b"\0\0"):
            offset += len(part)

    def transactions() -> None:
        for n in range(1000):
            tx = int(one.call(Op.TRANSACTION_START, b"\0")[:-1])
            one.call(Op.WRITE, b"/wide/n%d\0t" % n, tx)
            one.call(Op.WRITE, b"/deep/d1/n%d\0t" % n, tx)
            one.call(Op.TRANSACTION_END, b"T\0", tx)

    def tell() -> None:
        for client in crowd:
            client.wait_for(each)
            client.events = 0
        for n in range(WRITES):
            one.call(Op.WRITE, b"/told\0%d" % n)
            for client in crowd:
                client.wait_for((n + 1) * each)

    def crowd_calls(op: Op) -> Callable[[], object]:
        return lambda: [client.call(op, b"/told\0t%d\0" % n) for client in crowd for n in range(each)]

    return [
        (
            "write nodes, 100 in a directory",
            NODES,
            many(Op.WRITE, NODES, lambda n: b"/deep/d%d/n%d\0v" % (n // 100, n)),
        ),
        ("write nodes of one directory", NODES, many(Op.WRITE, NODES, lambda n: b"/wide/n%d\0v" % n)),
        ("read them", NODES, many(Op.READ, NODES, lambda n: b"/wide/n%d\0" % n)),
        ("list that directory, in parts", 1, list_parts),
        ("watch nodes", WATCHES, many(Op.WATCH, WATCHES, lambda n: b"/wide/n%d\0t\0" % n)),
        ("write nodes, a tenth of them watched", NODES, many(Op.WRITE, NODES, lambda n: b"/wide/n%d\0w" % n)),
        (f"watch one node, by {CLIENTS} clients", WATCHES, crowd_calls(Op.WATCH)),
        (f"events of {WRITES} writes to it", WRITES * WATCHES, tell),
        ("end these watches", WATCHES, crowd_calls(Op.UNWATCH)),
        ("watch one node, by one client", WATCHES, many(Op.WATCH, WATCHES, lambda n: b"/told\0t%d\0" % n)),
        ("end these watches", WATCHES, many(Op.UNWATCH, WATCHES, lambda n: b"/told\0t%d\0" % n)),
        ("transactions of two writes", 1000, transactions),
        ("remove the directory", 1, many(Op.RM, 1, lambda _n: b"/wide\0")),
    ]


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / XENSTORE
        with serving(Path(name)) as server:
            found = []
            bystander = Bystander(path)
            for what, count, action in steps(path):
                bystander.longest = 0.0
                begin, cpu = time.perf_counter(), cpu_seconds(server)
                action()
                seconds, cpu = time.perf_counter() - begin, cpu_seconds(server) - cpu
                waited = round(bystander.longest * 1000, 2)
                each = {"cpu_us": round(cpu / count * 1e6, 1), "us": round(seconds / count * 1e6, 1)}
                found.append({"what": what, "count": count, **each, "waited_ms": waited})
            bystander.close()
    if args.json:
        print(json.dumps(found))
        return 0
    print("  count                                      us of CPU each   us each   waited ms")
    for line in found:
        print(f"{line['count']:7} {line['what']:42} {line['cpu_us']:9} {line['us']:9} {line['waited_ms']:11}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
