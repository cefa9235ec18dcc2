# SPDX-License-Identifier: Apache-2.0
"""RFB over TLS (VeNCrypt 0.2, X509Vnc), spoken where viewers come to.

https://github.com/rfbproto/rfbproto/blob/master/rfbproto.rst#vencrypt. The domain's own process, or its QEMU, speaks
RFB as ever, over a socket pair, and asks for the password: it never has the certificate's key. Of what a viewer says
before TLS 19 bytes are read here, and compared with what they have to be.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from domzero.dom0.tls import Certificate
from domzero.errors import ConfigError

GREETING_S = 20.0
"""A viewer has for each step until it is let through."""
VIEWERS_MAX = 16
"""At one address, those that are still greeted among them."""
WAITING_MAX = 256 << 10
"""Bytes that one end has not taken."""
_PIECE = 64 << 10
_VERSION = b"RFB 003.008\n"
_VENCRYPT, _PASSWORD = 19, 2
_VENCRYPT_VERSION = b"\0\2"
_X509_VNC = 261


def context_of(certificate: Certificate) -> ssl.SSLContext:
    """What speaks TLS with a certificate. ConfigError: it cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate.certificate, certificate.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{certificate.certificate}: {error}", key="vfb") from error
    return context


class Encrypted:
    """Takes viewers in at one address, each in a thread of its own.

    :param give: hands a connection over to the domain. OSError: the domain is gone.
    """

    def __init__(self, context: ssl.SSLContext, give: Callable[[socket.socket], None]) -> None:
        self._context = context
        self._give = give
        self._places = threading.BoundedSemaphore(VIEWERS_MAX)

    def take(self, viewer: socket.socket) -> None:
        """A viewer has come: its connection is copied. If there are too many it gets no answer."""
        if self._places.acquire(blocking=False):
            threading.Thread(target=self._run, args=(viewer.dup(),), name="vnc over TLS", daemon=True).start()

    def _run(self, viewer: socket.socket) -> None:
        try:
            with suppress(OSError, ValueError), viewer:
                viewer.settimeout(GREETING_S)
                _greet(viewer)
                with self._context.wrap_socket(viewer, server_side=True) as secure:
                    ours, theirs = socket.socketpair()
                    with ours:
                        with theirs:
                            self._give(theirs)
                        ours.settimeout(GREETING_S)
                        _pass_greeting(ours)
                        relay(secure, ours)
        finally:
            self._places.release()


def _greet(viewer: socket.socket) -> None:
    """Offers TLS and nothing else. ValueError: the viewer wants something else."""
    viewer.sendall(_VERSION)
    _expect(viewer, _VERSION)
    viewer.sendall(bytes((1, _VENCRYPT)))
    _expect(viewer, bytes((_VENCRYPT,)))
    viewer.sendall(_VENCRYPT_VERSION)
    _expect(viewer, _VENCRYPT_VERSION)
    viewer.sendall(struct.pack(">BBI", 0, 1, _X509_VNC))
    _expect(viewer, struct.pack(">I", _X509_VNC))
    viewer.sendall(b"\1")


def _pass_greeting(domain: socket.socket) -> None:
    """Says to the domain what its viewer has said, up to the challenge, which comes next for both."""
    _expect(domain, _VERSION)
    domain.sendall(_VERSION)
    _expect(domain, bytes((1, _PASSWORD)))
    domain.sendall(bytes((_PASSWORD,)))


def _expect(sock: socket.socket, what: bytes) -> None:
    data = b""
    while len(data) < len(what):
        if not (part := sock.recv(len(what) - len(data))):
            raise ValueError("it has gone")
        data += part
    if data != what:
        raise ValueError("something else")


def relay(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Carries bytes both ways until one end is closed. OSError."""
    secure.setblocking(False)
    plain.setblocking(False)
    inward, outward = bytearray(), bytearray()
    poll = select.poll()
    while True:
        in_room, out_room = len(inward) < WAITING_MAX, len(outward) < WAITING_MAX
        poll.register(secure, select.POLLIN * in_room | select.POLLOUT * bool(outward))
        poll.register(plain, select.POLLIN * out_room | select.POLLOUT * bool(inward))
        poll.poll(0 if in_room and secure.pending() else None)
        if (in_room and not _read(secure, inward)) or (out_room and not _read(plain, outward)):
            return
        _write(plain, inward)
        _write(secure, outward)


def _read(sock: socket.socket, into: bytearray) -> bool:
    """Takes what is there; False: nothing will come any more."""
    try:
        data = sock.recv(_PIECE)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return True
    into += data
    return bool(data)


def _write(sock: socket.socket, waiting: bytearray) -> None:
    with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        if waiting:
            del waiting[: sock.send(waiting)]


__all__ = ["VIEWERS_MAX", "Encrypted", "context_of", "relay"]
