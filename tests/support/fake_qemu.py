#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A QEMU that does not what it should, but what DOMZERO_FAKE_QEMU in the environment names.

It answers `--version` and QMP as QEMU does, as far as a start of a domain needs it, and then misbehaves.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

COMMANDS = """
    qmp_capabilities query-qmp-schema cont stop quit balloon query-status query-balloon query-block query-blockstats
    query-cpus-fast query-named-block-nodes blockdev-del device_del screendump add-fd remove-fd
"""
GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}
ARGUMENTS = {"balloon": ["value"], "device_del": ["id"], "blockdev-del": ["node-name"], "remove-fd": ["fdset-id"]}


def schema() -> list[dict[str, Any]]:
    """A schema with COMMANDS."""
    found: list[dict[str, Any]] = []
    for name in COMMANDS.split():
        members = [{"name": each} for each in ARGUMENTS.get(name, ["filename", "format"])]
        found.append({"name": name, "meta-type": "command", "arg-type": f"a-{name}"})
        found.append({"name": f"a-{name}", "meta-type": "object", "members": members})
    return found


class Monitor:
    """QMP on a connected socket."""

    def __init__(self, sock: socket.socket, how: str) -> None:
        self.sock, self.how = sock, how
        self.lines = sock.makefile("rb")

    def say(self, message: Any) -> None:
        """One message."""
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def answer(self, line: bytes) -> str:
        """Reads a command and answers it; its name."""
        command = json.loads(line)
        name: str = command["execute"]
        values: dict[str, Any] = {"query-qmp-schema": schema(), "query-status": {"status": "running"}}
        if self.how == "wrong-schema" and name == "query-qmp-schema":
            values[name] = [1, 2, 3]
        self.say({"return": values.get(name, {}), "id": command["id"]})
        return name

    def serve(self, until: str) -> None:
        """Answers commands up to this one."""
        for line in self.lines:
            if self.answer(line) == until:
                return


def flood(data: bytes) -> Callable[[Monitor], None]:
    """Says this for ever."""

    def run(monitor: Monitor) -> None:
        while True:
            monitor.sock.sendall(data)

    return run


def deaf(monitor: Monitor) -> None:
    """Reads no more, and says no more."""
    threading.Event().wait()


def closes(monitor: Monitor) -> None:
    """Closes its monitor, and goes on."""
    monitor.lines.close()
    monitor.sock.shutdown(socket.SHUT_RDWR)
    monitor.sock.close()
    deaf(monitor)


def answers_others(monitor: Monitor) -> None:
    """Answers what nobody has asked, and what it is asked with numbers of others, twice."""
    for line in monitor.lines:
        number = json.loads(line)["id"]
        wrongs: list[Any] = [None, "1", [], {}, -1, number + 1000, True, 1.5]
        for wrong in wrongs:
            monitor.say({"return": {"status": "paused"}, "id": wrong})
        monitor.say({"event": 7})
        monitor.say({"event": "SHUTDOWN", "data": [1]} if number % 2 else {"event": "NONE"})


def wrong_answers(monitor: Monitor) -> None:
    """Answers with other types than it should."""
    values = {"query-status": 7, "query-cpus-fast": {"a": 1}, "query-block": ["x"], "query-balloon": {"actual": "x"}}
    for line in monitor.lines:
        command = json.loads(line)
        monitor.say({"return": values.get(command["execute"]), "id": command["id"]})


def deletes(monitor: Monitor) -> None:
    """Says without end that a disk of the domain's is gone, and answers nothing."""
    for _ in range(10_000):
        monitor.say({"event": "DEVICE_DELETED", "data": {"device": "disk768", "path": "x"}})
    deaf(monitor)


def prints(monitor: Monitor) -> None:
    """Writes without end to where its last words are taken from."""
    while True:
        os.write(2, b"words " * 500 + b"\n")


BEHAVIOURS: dict[str, Callable[[Monitor], None]] = {
    "events": flood(b'{"event": "RTC_CHANGE", "data": {"offset": 1}}\n' * 100),
    "endless-line": flood(b"[" * 65536),
    "deep": flood(b"[" * 100_000 + b"\n"),
    "no-json": flood(b"\xff\xfe\n"),
    "deaf": deaf,
    "closes": closes,
    "answers-others": answers_others,
    "wrong-answers": wrong_answers,
    "deletes": deletes,
    "prints": prints,
}
"""From the moment that its domain runs."""


def main() -> None:
    """The program."""
    if "--version" in sys.argv:
        print("QEMU emulator version 7.2.0 (fake)")
        return
    how = os.environ["DOMZERO_FAKE_QEMU"]
    match = re.search(r"socket,id=monitor,fd=(\d+)", " ".join(sys.argv))
    assert match is not None
    monitor = Monitor(socket.socket(fileno=int(match[1])), how)
    if how == "silent":
        deaf(monitor)
    if how == "no-greeting":
        monitor.sock.sendall(b"hello\n")
        deaf(monitor)
    monitor.say(GREETING)
    if how == "dies":
        sys.exit("cannot set up guest memory 'pc.ram': Cannot allocate memory")
    monitor.serve("query-qmp-schema" if how == "no-start" else "cont")
    BEHAVIOURS.get(how, deaf)(monitor)


if __name__ == "__main__":
    main()
