# SPDX-License-Identifier: Apache-2.0
"""`channel-list`, and `console -n`: a domain's consoles beside the first one."""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading

from domzero.cli.api_client import Dom0, Json, domain_path
from domzero.cli.status import ExitStatus
from domzero.cli.terminal import RawMode, is_terminal, say
from domzero.cli.verb import add_domains, add_verb
from domzero.dom0.channelspec import PTY
from domzero.dom0.console_io import InputReader
from domzero.errors import ConfigError, DomzeroError


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "channel-list",
        list_channels,
        "list channels of domains",
        "Lists the channels of domains, as xl does, with the pty or the socket that each one is on the host.",
    )
    add_domains(parser, can_be_none=False)


def list_channels(args: argparse.Namespace) -> int:
    """`channel-list`."""
    with Dom0.from_args(args) as dom0:
        found = dom0.parts(args.domains, "consoles")
    channels = [(domain, each) for domain, consoles in found for each in consoles if each["number"]]
    if args.json:
        print(json.dumps([each for _, each in channels], indent=2))
        return ExitStatus.OK
    print(f"{'Idx':<3} {'BE':>2} {'state':>5} {'connection':<10} {'place':<24} name")
    for _, each in channels:
        state = "-" if each["state"] is None else each["state"]
        print(f"{each['number']:<3} {0:>2} {state:>5} {each['connection']:<10} {each['place']:<24} {each['name']}")
    return ExitStatus.OK


def attach_channel(dom0: Dom0, key: str, number: int) -> int:
    """Shows a channel until it ends, or Ctrl-] is typed on a terminal: through its pty or socket, on this host.

    :raises ConfigError: there is none with this number.
    """
    consoles: list[Json] = dom0.get(f"{domain_path(key)}/consoles")
    found = next((each for each in consoles if each["number"] == number), None)
    if found is None:
        numbers = ", ".join(str(each["number"]) for each in consoles)
        raise ConfigError(f"there is no console {number}", key="n", hint=f"there are: {numbers}")
    fd = _open(found)
    terminal = is_terminal()
    if terminal:
        say(f"domzero: console {number}, {found['name']}; Ctrl-] leaves it")
    left = threading.Event()
    reading, leaving = os.pipe()

    def leave() -> None:
        left.set()
        os.close(leaving)

    def send(data: bytes) -> int:
        try:
            return os.write(fd, data)
        except OSError:  # it has ended, which its reader notices
            return len(data)

    with RawMode(enabled=terminal):
        reader = InputReader(0, send=send, wait_room=lambda _seconds: True, escape=leave if terminal else None)
        _show(fd, reading)
        reader.stop()
    if left.is_set():
        say("")
    return ExitStatus.OK


def _open(console: Json) -> int:
    place = console["place"]
    try:
        if console["connection"] == PTY:
            return os.open(place, os.O_RDWR | os.O_NOCTTY)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(place)
        return sock.detach()
    except OSError as error:
        hint = "it is on the host that Domain 0 runs on"
        raise DomzeroError(f"{place}: {error.strerror or error}", hint=hint) from error


def _show(fd: int, leaving: int) -> None:
    """Writes what comes until the other side closes, or the pipe does."""
    import select

    poll = select.poll()
    for each in (fd, leaving):
        poll.register(each, select.POLLIN)
    while True:
        ready = [each for each, _ in poll.poll()]
        if leaving in ready:
            return
        try:
            data = os.read(fd, 65536)
        except OSError:  # EIO: the pty is gone
            return
        if not data:
            return
        while data:
            data = data[os.write(1, data) :]
