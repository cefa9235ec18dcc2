# SPDX-License-Identifier: Apache-2.0
"""Networks of the host, and how an interface gets its wire: a connected Unix socket with QEMU's framing, or a tap.

The network `user` is a process of the interface's own, passt or `usernet`, which ends when its socket is closed. A
bridge or tap of the host is what `hostnet` makes of it. Every other name is a switch in a process of its own: whoever
needs it first starts it, and it ends when the last interface has gone. All domains of a user meet there, those of
Domain 0 and of `domzero run`.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from domzero import _machine
from domzero.dom0 import hostnet
from domzero.dom0.config import DomainConfig
from domzero.dom0.networks import control_socket, label
from domzero.dom0.paths import locked_directory, private_directory
from domzero.dom0.usernet import RESOLV_CONF, name_servers
from domzero.dom0.vifspec import MTU_MAX, USER, Forward, VifSpec
from domzero.dom0.wire import Wire
from domzero.errors import ConfigError

PASST, OWN = "passt", "builtin"
CHOICE = "DOMZERO_USER_NETWORK"
"""In the environment: which of them the network `user` is."""
START_S = 30
"""Seconds that it has for its start."""
SEND_BUFFER = 4 << 20
"""Bytes that a user network may send before its guest's back end reads them; the host gives what its `wmem_max` allows.
passt drops what does not fit, and what it drops last it sends again after two seconds."""
FIRST_PORT_S = 10
"""Seconds that a switch waits for its first port."""
_BACKLOG = 64
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
"""Of RFC 1123, without dots."""


def connect(spec: VifSpec, owner: DomainConfig, domid: int) -> Wire:
    """Connects an interface of a domain to its network. ConfigError: the network cannot be."""
    if owner.type.is_full and spec.rate is not None and not has_switch(spec):
        what = f"rate={spec.rate.text}: cards of QEMU's are bounded by the switch of a network of domains"
        raise ConfigError(what, key="rate", hint=f"{spec.network} has none")
    if spec.network == USER:
        return _user(spec, owner.name)
    if hostnet.exists(spec.network):
        return Wire(hostnet.connect(spec, domid))
    return Wire(_switch(spec.network, label(spec, owner)).detach())


def has_switch(spec: VifSpec) -> bool:
    """Whether an interface is on a network of domains: neither the user network nor an interface of the host's."""
    return spec.network != USER and not hostnet.exists(spec.network)


def user_network() -> str:
    """What the network `user` is here: passt where it is installed, else our own. ConfigError: the choice is none."""
    chosen = os.environ.get(CHOICE) or (PASST if shutil.which(PASST) else OWN)
    if chosen not in (PASST, OWN):
        raise ConfigError(f"no such user network: {chosen!r}", key=CHOICE, hint=f"{PASST} or {OWN}")
    return chosen


def _user(spec: VifSpec, name: str) -> Wire:
    chosen = user_network()
    arguments = ["--mtu", str(spec.mtu or MTU_MAX)]
    for address in spec.ip:
        arguments += ["--address", str(address)]
    for protocol, option in (("tcp", "--tcp-ports"), ("udp", "--udp-ports")):
        wanted = [_forward(each) for each in spec.forwards if each.protocol == protocol]
        for value in wanted or ["none"]:
            arguments += [option, value]
    if chosen == PASST:
        return Wire(_background(PASST, _passt() + arguments)[0].detach())
    if _HOST_NAME.fullmatch(name):
        arguments += ["--hostname", name]
    sock, said = _background("the user network", [sys.executable, "-m", "domzero.dom0.usernet", *arguments])
    return Wire(sock.detach(), [f"the user network of {name} {line}" for line in said])


def _passt() -> list[str]:
    program = shutil.which(PASST)
    if program is None:
        raise ConfigError(
            f"{CHOICE} asks for passt, which is not here", key="vif", hint=f"apt-get install passt, or {CHOICE}={OWN}"
        )
    arguments = [program, "--quiet", "--stderr", "--no-map-gw"]
    for server in _other_name_servers():
        arguments += ["--dns", server]
    return arguments


def _background(name: str, command: list[str]) -> tuple[socket.socket, list[str]]:
    """Starts what goes to the background when it is ready, and ends with the socket whose other end this returns; and
    the lines that it has said before."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    with theirs, tempfile.TemporaryFile() as said:
        try:
            started = subprocess.run(
                [*command, "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd="/",
                timeout=START_S,
                check=False,
            )
            said.seek(0)
            lines = said.read(4096).decode(errors="replace").splitlines()
            if started.returncode == 0:
                return ours, lines
            reason = next((line for line in reversed(lines) if "syslog" not in line and line), "no word")
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        ours.close()
        raise ConfigError(f"{name} did not start: {reason}", key="vif")


def _forward(forward: Forward) -> str:
    return f"{forward.address}/{forward.port}:{forward.guest_port}"


def _other_name_servers() -> Iterator[str]:
    """Name servers for the guest where the host's own are on its loopback, which the guest does not reach."""
    if any(not each.is_loopback for each in name_servers(RESOLV_CONF)):
        return
    for server in name_servers(Path("/run/systemd/resolve/resolv.conf")):
        if not server.is_loopback:
            yield str(server)


def _switch(name: str, said: bytes) -> socket.socket:
    """A port of a switch, which has been told whose it is."""
    directory = private_directory("networks")
    path = directory / f"{name}.sock"
    port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with locked_directory(directory):  # nobody else starts or ends a switch meanwhile
            try:
                port.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                _start(path, control_socket(name))
                port.connect(str(path))
        port.sendall(said)
    except (OSError, subprocess.SubprocessError) as error:
        port.close()
        raise ConfigError(f"the network {name!r} cannot be reached: {error}", key="vif") from error
    return port


def _start(path: Path, control: Path) -> None:
    arguments = [sys.executable, "-m", "domzero.dom0.network"]
    with _listener(path) as ports, _listener(control) as questions:
        files = [ports.fileno(), questions.fileno()]
        # The child of this one is the switch; nobody has to wait for it.
        subprocess.run(
            [*arguments, str(path), str(files[0]), str(control), str(files[1])],
            pass_fds=files,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            check=True,
        )


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of one that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _serve(path: Path, listener: int, control: Path, questions: int) -> None:
    """Is a switch until nobody is connected any more."""
    while True:
        _machine.run_switch(os.dup(listener), os.dup(questions), FIRST_PORT_S)
        # Whoever connects holds the lock: here, nobody can be on the way.
        with locked_directory(path.parent):
            if not select.select([listener], [], [], 0)[0]:
                path.unlink(missing_ok=True)
                control.unlink(missing_ok=True)
                return


def main(arguments: list[str]) -> None:
    """`python -m domzero.dom0.network PATH FD CONTROL FD`: goes to the background, as a switch that listens there."""
    path, listener, control, questions = Path(arguments[0]), int(arguments[1]), Path(arguments[2]), int(arguments[3])
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        _serve(path, listener, control, questions)


if __name__ == "__main__":
    main(sys.argv[1:])
