# SPDX-License-Identifier: Apache-2.0
"""Consoles on ptys and sockets of the host, without a guest; and the specifications of channels."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from waiting import until

from domzero.dom0.channelspec import ChannelSpec, parse_channel, parse_channels
from domzero.dom0.console import Console
from domzero.dom0.console_io import ConsoleLink
from domzero.dom0.console_relay import BACKLOG, OpenConsole, _Relay, _Socket, bind_unix, open_console
from domzero.errors import ConfigError


class Linked:
    """A console that is linked to a pty or a socket."""

    def __init__(self, end: OpenConsole) -> None:
        self.end = end
        self.console = Console()
        self._link = ConsoleLink(self.console, end.sock)

    def typed(self, count: int) -> bytes:
        """So many bytes that somebody has typed."""
        data = b""

        def come() -> bool:
            nonlocal data
            data += self.console.take_input(count - len(data))
            return len(data) == count

        until(come)
        return data

    def close(self) -> None:
        self._link.close()


@pytest.fixture
def pty() -> Iterator[Linked]:
    with closing(Linked(open_console())) as linked:
        yield linked


def read(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(fd, count - len(data))
    return data


def test_a_pty_passes_every_byte_both_ways(pty: Linked) -> None:
    everything = bytes(range(256))
    fd = os.open(pty.end.tty, os.O_RDWR | os.O_NOCTTY)
    pty.console.output(everything)
    assert read(fd, 256) == everything
    os.write(fd, everything)
    assert pty.typed(256) == everything
    os.close(fd)
    fd = os.open(pty.end.tty, os.O_RDWR | os.O_NOCTTY)  # somebody else
    pty.console.output(b"again")
    assert read(fd, 5) == b"again"
    pty.close()
    until(lambda: not os.path.exists(pty.end.tty) or _is_hung_up(fd))
    os.close(fd)


def _is_hung_up(fd: int) -> bool:
    try:
        return os.read(fd, 1) == b""
    except OSError:
        return True


def test_a_pty_that_nobody_reads_holds_nothing_up_and_keeps_the_last_words(pty: Linked) -> None:
    for number in range(2048):  # 8 MiB: more than all that may wait on its way, however late its threads run
        pty.console.output(b"%4d" % number * 1024)
    pty.console.output(b"the end")
    until(lambda: not pty.console.held)
    fd = os.open(pty.end.tty, os.O_RDWR | os.O_NOCTTY)
    data = b""
    while not data.endswith(b"the end"):
        data += os.read(fd, 65536)
    assert len(data) < BACKLOG + (2 << 20) < 2048 * 4096
    os.close(fd)


def test_a_socket_passes_all_to_one_client_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "channel.sock"
    with closing(Linked(open_console("socket", str(path)))) as linked:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for _ in range(40):
            linked.console.output(bytes(100_000))  # which nobody hears
        until(lambda: not linked.console.held)
        for turn in (b"first", b"second"):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(turn)
                assert linked.typed(len(turn)) == turn
                everything = os.urandom(300_000)  # more than anything on its way holds
                for start in range(0, len(everything), 10_000):
                    linked.console.output(everything[start : start + 10_000])
                data = b""
                while not data.endswith(everything):
                    data += client.recv(65536)
                assert len(data) < 4_000_000
                client.sendall(b"last words")
            assert linked.typed(10) == b"last words"
    until(lambda: not path.exists())


def test_what_is_said_after_a_client_has_connected_is_for_it(tmp_path: Path) -> None:
    path = str(tmp_path / "channel.sock")
    outside = _Socket(path, *bind_unix(path, 1))
    inside, theirs = socket.socketpair()
    relay = _Relay(inside, outside)
    with closing(outside), inside, theirs, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "channel.sock"))
        theirs.sendall(b"ready")  # before the relay has had a turn
        for _ in range(2):
            relay._step()
        client.setblocking(False)
        assert client.recv(100) == b"ready"


def test_what_is_at_the_path_of_a_socket_is_replaced_only_if_it_is_a_socket_of_nobody(tmp_path: Path) -> None:
    path = tmp_path / "channel.sock"
    path.write_text("a file")
    with pytest.raises(ConfigError, match="Address already in use"):
        open_console("socket", str(path))
    assert path.read_text() == "a file"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
        with pytest.raises(ConfigError, match="Address already in use"):
            open_console("socket", str(path))
    with closing(Linked(open_console("socket", str(path)))):
        path.unlink()
        path.write_text("another's")
    with pytest.raises(ConfigError, match="107 bytes"):
        open_console("socket", str(tmp_path / ("x" * 107)))
    with pytest.raises(ConfigError, match="No such file"):
        open_console("socket", str(tmp_path / "none" / "sock"))
    assert path.read_text() == "another's"


def test_specifications_are_xls() -> None:
    assert parse_channel(" name = org.example.1 , connection=pty,") == ChannelSpec(1, "org.example.1", "pty")
    spec = parse_channel("connection=socket,path=/run/a,name=a,backend=0", 3)
    assert spec == ChannelSpec(3, "a", "socket", "/run/a")
    assert parse_channel(spec.text("/b"), 3) == ChannelSpec(3, "a", "socket", "/b")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["connection=pty"], "there is no name"),
        (["name=a"], "there is no connection"),
        (["name=a,connection=tcp"], "connection=tcp: pty or socket"),
        (["name=a,connection=socket"], "needs its path="),
        (["name=a,connection=pty,path=/a"], "chooses the name"),
        (["name=a,connection=pty,color=red"], "what is 'color=red'"),
        (["name=a,name=b,connection=pty"], "name is given twice"),
        (["name=a=b,connection=pty"], "what is"),
        (["name=a,connection=pty,backend=other"], "backend=other is not supported"),
        (["name=a,connection=pty"] * 2, "name a is taken"),
        (["name=a,connection=socket,path=/a", "name=b,connection=socket,path=/a"], "path /a is taken"),
        ([f"name=a{number},connection=pty" for number in range(10)], "10 channels: 9 are possible"),
    ],
)
def test_specifications_that_cannot_be_are_told_with_their_reason(texts: list[str], message: str) -> None:
    errors = [found for found in parse_channels(texts) if isinstance(found, ConfigError)]
    assert len(errors) == 1 and message in errors[0].message and errors[0].key == "channel"
