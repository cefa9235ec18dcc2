# SPDX-License-Identifier: Apache-2.0
"""Specifications of framebuffers."""

from __future__ import annotations

import pytest

from domzero.dom0.vfbspec import VfbSpec, parse_vfb, parse_vfbs, with_passwords
from domzero.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", VfbSpec()),
        ("type=vnc,vncpasswd=x", VfbSpec(password="x")),
        ("vnc=1, vnclisten=0.0.0.0, vncpasswd=secret", VfbSpec(listen="0.0.0.0", password="secret")),
        ("vnc=1,vnclisten=127.0.0.1:3,vncunused=0", VfbSpec(display=3, unused=False)),
        ("vnclisten=::1,vncdisplay=7,keymap=en-us", VfbSpec(listen="::1", display=7)),
        ("vnclisten=unix:/run/guest.vnc", VfbSpec(listen="", path="/run/guest.vnc")),
        ("vnc=0,sdl=0", VfbSpec(vnc=False)),
        ("vnclisten=0.0.0.0,vncpasswd=x,vnctls=1", VfbSpec(listen="0.0.0.0", password="x", tls=True)),
        ("vnctls=0", VfbSpec()),
    ],
)
def test_a_specification_is_understood_as_xl_does_and_says_the_same_again(text: str, expected: VfbSpec) -> None:
    assert parse_vfb(text) == expected
    assert parse_vfb(expected.text()) == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("vnc", "what is 'vnc'"),
        ("vnc=yes", "vnc is 0 or 1"),
        ("sdl=1", "SDL is not supported"),
        ("keymap=de", "keymap=de is not supported"),
        ("vnclisten=0.0.0.0", "needs a vncpasswd"),
        ("vnclisten=example.org", "neither an IP address"),
        ("vnclisten=unix:", "the path of a socket"),
        ("vncdisplay=100", "a number up to 99"),
        ("vncdisplay=-1", "a number up to 99"),
        ("vncpasswd=123456789", "at most 8 characters"),
        ("vncpasswd=a,vncpasswd=b", "given twice"),
        ("vnctls=1", "TLS is for an address with a vncpasswd"),
        ("vnclisten=unix:/x,vncpasswd=a,vnctls=1", "TLS is for an address"),
        ("vncpasswd=********", "in the place of a password"),
    ],
)
def test_what_cannot_be_is_refused_without_its_password(text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        parse_vfb(text)
    assert "123456789" not in str(caught.value) and "passwd=a" not in str(caught.value)


def test_a_domain_has_one_and_its_password_is_not_shown() -> None:
    assert [type(each) for each in parse_vfbs(["vnc=1", "vnc=1"])] == [ConfigError]
    assert "secret" not in parse_vfb("vncpasswd=secret").text(hide=True)


def test_a_password_that_an_answer_hides_stays_what_it_was() -> None:
    before = ["vnc=1,vncpasswd=secret"]
    hidden = parse_vfb(before[0]).text(hide=True)
    (kept,) = with_passwords([hidden], before)
    assert parse_vfb(kept) == parse_vfb(before[0])
    assert with_passwords(["vncpasswd=other", "vnc=0"], before) == ["vncpasswd=other", "vnc=0"]
    for old in ([], ["vnc=1"]):
        with pytest.raises(ConfigError, match="say it again"):
            with_passwords([hidden], old)
