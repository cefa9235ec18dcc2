# SPDX-License-Identifier: Apache-2.0
"""The wire between an interface and the process that is its network `user`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from domzero.dom0 import network
from domzero.dom0.config import DomainConfig
from domzero.dom0.vifspec import parse_vif

ITS_BUFFER = """\
#!{python}
import socket, sys
wire = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
wire.sendall(str(wire.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)).encode())
"""


def test_it_may_send_more_than_other_sockets_before_the_back_end_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / network.PASST
    program.write_text(ITS_BUFFER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(network.CHOICE, network.PASST)
    wire = network.connect(parse_vif("bridge=user"), DomainConfig(kernel="/k", name="web"), 1)
    with socket.socket(fileno=os.dup(wire.fileno())) as ours, socket.socket(socket.AF_UNIX) as other:
        assert int(ours.recv(20)) > other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    wire.close()
