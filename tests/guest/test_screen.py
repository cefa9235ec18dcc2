# SPDX-License-Identifier: Apache-2.0
"""The framebuffer, keyboard and pointer with Linux's own front ends: its text console is read from the pixels."""

from __future__ import annotations

import pytest
from guest_shell import GuestShell
from screen_text import Screen
from waiting import until

from domzero.dom0.images.cache import Image
from domzero.dom0.vnc.display import Display

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]
KEYS = {"c": 46, "a": 30, "l": 38, "s": 31, "e": 18, "q": 16, "9": 10, " ": 57, "\n": 28, "t": 20, "r": 19, "v": 47}


def display_of(guest: GuestShell) -> Display:
    display = guest.session.display
    assert display is not None
    return display


def press(display: Display, text: str) -> None:
    for letter in text:
        display.key(KEYS[letter], pressed=True)
        display.key(KEYS[letter], pressed=False)


def test_linux_shows_its_text_console_and_takes_keys(debian: Image) -> None:

    guest = GuestShell(debian, vfbs=["vnc=0"])
    try:
        guest.ready()
        display = display_of(guest)
        screen = Screen(display.picture)
        screen.learn(guest)
        assert "Run /init as init process" in guest.do("dmesg")
        press(display, "seq 99 99\n")
        until(lambda: "seq 99 99\n99" in screen.text(), 60, "what was typed, and its answer")
        assert guest.session.host is not None and guest.session.host.audit() == []
    finally:
        guest.session.destroy()
