# SPDX-License-Identifier: Apache-2.0
"""Consoles beside the first one, with Linux's front end; and the first one on a pty of the host."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from guest_shell import GuestShell
from waiting import until

from domzero.dom0.backends.channels import hosts_consoles
from domzero.dom0.images.cache import Image

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


def test_a_guest_talks_on_hvc1_and_hvc2_and_its_console_is_a_pty_too(debian: Image, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    channels = ["name=org.example.debug,connection=pty", f"name=org.example.agent,connection=socket,path={path}"]
    guest = GuestShell(debian, console="pty", channels=channels)
    session = guest.session
    try:
        guest.ready()
        first, debug, agent = hosts_consoles(session.store.get, session.config, session.domid)
        assert (debug.name, debug.connection, agent.place) == ("org.example.debug", "pty", str(path))
        home = f"/local/domain/{session.domid}"
        assert session.store.read(f"{home}/console/tty") == first.place
        assert session.store.read(f"{home}/device/console/1/tty") == debug.place
        assert session.store.read(f"{home}/device/console/2/name") == "org.example.agent"

        # hvc1: a pty, that somebody opens before the guest does.
        tty = os.open(debug.place, os.O_RDWR | os.O_NOCTTY)
        finished = guest.start("(stty raw -echo; echo ready; head -c 6 | md5sum; head -c 1) <>/dev/hvc1 >&0 2>&1")
        said = b""
        while b"ready" not in said:
            said += os.read(tty, 100)
        os.write(tty, b"hello\n")
        while b"-\n" not in said:
            said += os.read(tty, 100)
        assert b"b1946ac92492d2347c6235b4d2611184" in said
        os.write(tty, b"x")
        finished()
        os.close(tty)

        # hvc2: a socket; more than the ring holds, both ways.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            finished = guest.start(
                "(stty raw -echo; echo ready; head -c 20000 > /tmp/got; cat /tmp/got /tmp/got) <>/dev/hvc2 >&0"
            )
            assert client.recv(6, socket.MSG_WAITALL) == b"ready\n"
            data = os.urandom(20_000)
            client.sendall(data)
            assert client.recv(40_000, socket.MSG_WAITALL) == data * 2
            finished()

        # The first console: typed to on its pty, heard there and where it always is.
        tty = os.open(first.place, os.O_RDWR | os.O_NOCTTY)
        os.write(tty, b"echo on''ce\n")
        until(lambda: b"once" in session.console.history)
        said = b""
        while b"once" not in said:  # behind what the kernel has said, which nobody has read
            said += os.read(tty, 65536)
        os.close(tty)
        assert session.host is not None and session.host.audit() == []
    finally:
        session.destroy()
    until(lambda: not path.exists())
