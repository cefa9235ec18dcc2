# SPDX-License-Identifier: Apache-2.0
"""The framebuffer, keyboard and pointer with Linux's own front ends: its text console is read from the pixels."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from guest_shell import GuestShell
from rfb_client import DESKTOP_SIZE, EXTENDED_SIZE, QEMU_KEYS, RAW, ZRLE, Viewer
from screen_text import Screen
from waiting import until

from domzero.dom0.images.cache import Image

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


def mode_of(width: int, height: int) -> str:
    """A `struct fb_videomode` with another size at 60 Hz, for printf."""
    data = struct.pack("<Q3I", 0, 60, width, height).ljust(64, b"\0")
    return "".join(f"\\{byte:03o}" for byte in data)


def test_viewers_of_linuxs_text_console_type_and_see_the_answer_and_another_size(debian: Image, tmp_path: Path) -> None:
    path = tmp_path / "guest.vnc"
    guest = GuestShell(debian, vfbs=[f"vnc=1,vnclisten=unix:{path}"])
    try:
        guest.ready()
        first = Viewer.at(path, encodings=(ZRLE, RAW, QEMU_KEYS, DESKTOP_SIZE))
        second = Viewer.at(path, encodings=(RAW, EXTENDED_SIZE))
        screen, other = Screen(first.picture), Screen(second.picture)
        screen.learn(guest)
        other.letters = screen.letters
        first.type("echo $((6*7)) by symbol\n")
        until(lambda: "42 by symbol\n" in screen.text(), 60, "an answer")
        for code in (0x26, 0x1F, 0x39, 0x35, 0x19, 0x13, 0x18, 0x2E, 0x1C):  # ls /proc, as QEMU's XT numbers
            first.position(code, pressed=True)
            first.position(code, pressed=False)
        until(lambda: "cpuinfo" in screen.text() and screen.text() == other.text(), 60, "a list on both")
        graphics = "/sys/class/graphics/fb0"
        guest.do(f"printf '{mode_of(640, 480)}' > /tmp/mode; cat /tmp/mode > {graphics}/modes")
        guest.do(f"echo U:640x480p-60 > {graphics}/mode")
        until(lambda: second.picture()[:2] == (640, 480) and first.picture()[:2] == (640, 480), 60, "another size")
        assert (first.sizes, second.sizes[-1]) == ([(0, 640, 480)], (0, 640, 480))
        assert guest.session.host is not None and guest.session.host.audit() == []
    finally:
        guest.session.destroy()
    until(lambda: not path.exists(), 30, "the socket to go")
