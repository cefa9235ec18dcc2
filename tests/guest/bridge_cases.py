# SPDX-License-Identifier: Apache-2.0
"""What test_host_bridge.py runs in a network namespace of its own: `python bridge_cases.py CASE IMAGE [KERNEL]`."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import httpx
from dom0_server import Server
from guest_shell import GuestShell
from waiting import until

from domzero.dom0 import hostnet
from domzero.dom0.config import DomainConfig
from domzero.dom0.images.cache import Image
from domzero.dom0.lifecycle import DomainSession
from domzero.dom0.vifspec import parse_vif
from domzero.errors import ConfigError

HOST, GUEST = "10.9.0.1", "10.9.0.2"
SIZE = 8 << 20


def ip(*words: str) -> str:
    """Runs ip(8)."""
    return subprocess.run(["ip", *words], check=True, stdout=subprocess.PIPE, text=True).stdout


def bridge(address: str | None = None) -> None:
    """Makes xenbr0."""
    ip("link", "add", "xenbr0", "type", "bridge")
    if address:
        ip("addr", "add", f"{address}/24", "dev", "xenbr0")
    ip("link", "set", "xenbr0", "up")


def guests_meet(kernel: str) -> None:
    """Two small guests find each other through a bridge of the host's, one on a tap that was there before."""
    bridge()
    ip("tuntap", "add", "tap0", "mode", "tap")
    ip("link", "set", "tap0", "master", "xenbr0", "up")
    sessions = []
    for number, spec in (("1", "bridge=xenbr0,vifname=first.0"), ("2", "bridge=tap0")):
        config = DomainConfig(kernel=kernel, memory_mib=16, cmdline=number, vifs=[spec])
        sessions.append(DomainSession(config))
        sessions[-1].start()
    assert "master xenbr0" in ip("link", "show", "first.0") and "fe:ff:ff:ff:ff:ff" in ip("link", "show", "first.0")
    try:
        DomainSession(DomainConfig(kernel=kernel, memory_mib=16, vifs=["bridge=tap0"])).start()
    except ConfigError as error:
        assert "in use already" in str(error), error
    else:
        raise AssertionError("a tap was taken twice")
    for session in sessions:
        end = session.wait(200)
        said = session.console.history.decode()
        assert end is not None and "PASS net" in said, said
        assert session.audit() == []
        session.destroy()
    until(lambda: "first.0" not in ip("link", "show"), what="the end of the tap with its domain")
    assert "tap0" in ip("link", "show")


def through_domain_0(kernel: str) -> None:
    """The same with confined workers, which are given the taps, and an interface that is plugged in."""
    bridge()
    with tempfile.TemporaryDirectory(prefix="dz", dir="/tmp") as directory:
        server = Server(Path(directory))

        def do(*words: str) -> None:
            result = server.cli(*words)
            assert result.returncode == 0, result.stderr

        def said(name: str) -> str:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.socket))) as client:
                return client.get(f"http://domzero/v1/domains/{name}/console").text

        try:
            for number in ("1", "2"):
                vif = ["--vif", "bridge=xenbr0", "--paused"]
                do("create", "--name", f"n{number}", "--kernel", kernel, "--memory", "16", "--cmdline", number, *vif)
                do("network-attach", f"n{number}", f"bridge=xenbr0,vifname=more{number}")
            assert "master xenbr0" in ip("link", "show", "more2")
            do("unpause", "n1")
            do("unpause", "n2")
            for number in ("1", "2"):
                until(lambda: "PASS net" in said(f"n{number}"), 120, "the end of a guest")  # noqa: B023 - of this turn
            until(
                lambda: "vif" not in ip("link", "show") and "more" not in ip("link", "show"), what="the end of the taps"
            )
        finally:
            server.process.terminate()
            server.process.wait(60)


def large_segments(image: Image) -> None:
    """TCP between Debian's kernel and the host's own, each way: segments larger than the MTU are cut by nobody."""
    bridge(HOST)
    shell = GuestShell(image, vifs=["bridge=xenbr0"])
    shell.ready()
    name = f"vif{shell.session.domid}.0"
    assert f"{name}:" in ip("link", "show", "master", "xenbr0")
    shell.do(f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up")
    instance = shell.session._instance
    assert instance is not None
    counts = instance.vifs.devices[0].link.counts
    cut = SIZE // 1448
    data = os.urandom(SIZE)
    with socket.create_server((HOST, 0)) as server:

        def send() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(data)

        thread = threading.Thread(target=send)
        thread.start()
        port = server.getsockname()[1]
        sums = shell.do(f"nc {HOST} {port} < /dev/null > /tmp/got; md5sum /tmp/got").split()
        thread.join()
    assert sums[0] == hashlib.md5(data).hexdigest()
    received, sent = counts.received_frames, counts.sent_frames
    assert received < cut, received
    # The guest's server writes large pieces; its nc would write 1 KiB at a time.
    shell.do("httpd -p 80 -h /tmp")
    got = httpx.get(f"http://{GUEST}/got", timeout=120).content
    assert got == data
    assert counts.sent_frames - sent < cut, counts.sent_frames - sent
    assert counts.errors == counts.spoofed == 0
    assert shell.session.audit() == []
    shell.session.destroy()
    until(lambda: name not in ip("link", "show"), what="the end of the tap with its domain")


def refused() -> None:
    """Without CAP_NET_ADMIN; the bridge is made with it, in another process."""
    if len(sys.argv) == 2:
        bridge()
        command = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]
        subprocess.run([*command, sys.executable, *sys.argv, "without"], check=True)
        return
    for spec, why in (
        ("bridge=xenbr0", "an interface in the bridge xenbr0 needs CAP_NET_ADMIN"),
        ("bridge=xenbr0,vifname=lo", "there is lo already"),
        ("bridge=xenbr0,vifname=sixteen-letters0", "no name of an interface"),
        ("bridge=lo", "neither a bridge nor a tap"),
    ):
        try:
            hostnet.connect(parse_vif(spec), 1)
        except ConfigError as error:
            assert why in str(error), error
        else:
            raise AssertionError(spec)


def main() -> None:
    """Runs a case."""
    if sys.argv[1] == "refused":
        refused()
    elif sys.argv[1] == "through_domain_0":
        through_domain_0(sys.argv[2])
    elif sys.argv[1] == "guests_meet":
        guests_meet(sys.argv[2])
    else:
        large_segments(Image(**json.loads(sys.argv[2])))


if __name__ == "__main__":
    main()
