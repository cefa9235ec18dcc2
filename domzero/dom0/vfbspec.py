# SPDX-License-Identifier: Apache-2.0
"""Specifications of the framebuffer: xl.cfg's `vfb = [...]` (xl.cfg(5)) and `--vfb`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from domzero.dom0.names import is_text, shown
from domzero.errors import ConfigError

HELP = (
    "a screen with keyboard and pointer, by VNC: vnc=1[,vnclisten=127.0.0.1|unix:PATH][,vncdisplay=N][,vncunused=0]"
    "[,vncpasswd=TEXT]; the guest shows its text console there with console=tty0"
)
EXAMPLE = "for instance 'vnc=1', or 'vnc=1,vnclisten=unix:/run/user/1000/guest.vnc'"
VFBS_MAX = 1
PASSWORD_MAX = 8
"""Characters that VNC's authentication looks at."""
DISPLAY_MAX = 99
PORT_BASE = 5900
PATH_MAX = 107
"""Of a Unix socket: sockaddr_un's."""
LOOPBACK = "127.0.0.1"
HIDDEN = "********"

_FLAGS = ("vnc", "vncunused", "vnctls", "sdl", "opengl")
_KEYS = (*_FLAGS, "vnclisten", "vncdisplay", "vncpasswd", "keymap", "type", "display", "xauthority")
_KEYMAPS = ("", "en-us")


@dataclass(slots=True, frozen=True)
class VfbSpec:
    """One framebuffer, with its keyboard and pointer.

    :param devid: its number in xenstore.
    :param vnc: whether somebody may look by VNC at an address of the host's; by Domain 0's own doors in any case.
    :param listen: an IP address; empty: there is a Unix socket.
    :param path: of the Unix socket.
    :param display: TCP port 5900 + this one, or the first one from there that is free.
    :param unused: look for a free one.
    :param password: empty: none is asked for.
    :param tls: viewers have to speak TLS.
    """

    devid: int = 0
    vnc: bool = True
    listen: str = LOOPBACK
    path: str = ""
    display: int = 0
    unused: bool = True
    password: str = ""
    tls: bool = False

    def text(self, path: str = "", *, hide: bool = False) -> str:
        """The same as a specification.

        :param path: in place of the socket's.
        :param hide: without the password.
        """
        if not self.vnc:
            return "vnc=0"
        where = f"unix:{path or self.path}" if self.path else self.listen
        words = ["vnc=1", f"vnclisten={where}"]
        if not self.path:
            words += [f"vncdisplay={self.display}", f"vncunused={int(self.unused)}"]
        if self.password:
            words.append(f"vncpasswd={HIDDEN if hide else self.password}")
        words += ["vnctls=1"] if self.tls else []
        return ",".join(words)


def parse_vfb(text: str, devid: int = 0) -> VfbSpec:
    """Understands xl's `key=value` parts between commas. ConfigError, with the reason."""
    if not is_text(text):
        raise _refused(shown(text), "that is no UTF-8 text without NUL")
    words: dict[str, str] = {}
    for part in (each for each in text.split(",") if each.strip()):
        key, equals, value = (each.strip() for each in part.partition("="))
        if key not in _KEYS or not equals:
            raise _refused(text, f"what is {part.strip()!r}?")
        if words.setdefault(key, value) != value:
            raise _refused(text, f"{key} is given twice")
    for key in _FLAGS:
        if words.get(key, "0") not in ("0", "1"):
            raise _refused(text, f"{key} is 0 or 1")
    if words.get("type", "vnc") != "vnc" or words.get("sdl") == "1" or words.get("opengl") == "1":
        raise _refused(text, "SDL is not supported: who looks does it by VNC")
    if words.get("keymap", "") not in _KEYMAPS:
        raise _refused(
            text, f"keymap={words['keymap']} is not supported: en-us is; viewers that send positions of keys need none"
        )
    password = words.get("vncpasswd", "")
    if password == HIDDEN:
        raise _refused(text, "that is what answers have in the place of a password")
    if len(password) > PASSWORD_MAX or not password.isascii():
        raise _refused(text, f"a password of VNC has at most {PASSWORD_MAX} characters, of ASCII")
    listen, display = words.get("vnclisten", "") or LOOPBACK, words.get("vncdisplay", "0")
    path = listen.removeprefix("unix:") if listen.startswith("unix:") else ""
    if listen.startswith("unix:"):
        if not path or len(path.encode()) > PATH_MAX:
            raise _refused(text, f"the path of a socket has 1 to {PATH_MAX} bytes")
        listen = ""
    else:
        listen, colon, number = listen.partition(":") if listen.count(":") == 1 else (listen, "", "")
        display = number if colon else display
        listen = _address(text, listen, password)
    if not display.isascii() or not display.isdigit() or int(display) > DISPLAY_MAX:
        raise _refused(text, f"vncdisplay is a number up to {DISPLAY_MAX}")
    vnc, unused, tls = (words.get(key, "1") == "1" for key in ("vnc", "vncunused", "vnctls"))
    tls = tls and "vnctls" in words
    if tls and (path or not password):
        raise _refused(text, "TLS is for an address with a vncpasswd: a Unix socket leaves this host by no way")
    return VfbSpec(devid, vnc, listen, path, int(display), unused, password, tls)


def with_passwords(texts: list[str], before: list[str]) -> list[str]:
    """Specifications of a domain's new definition, with the passwords of the one before where they are hidden.

    Whoever changes a definition sends back what an answer of the API has. ConfigError: there was none.
    """
    known = {spec.devid: spec.password for spec in parse_vfbs(before) if isinstance(spec, VfbSpec)}
    found = []
    for devid, text in enumerate(texts):
        if _is_hidden(text):
            if not known.get(devid):
                raise ConfigError("the password is not there any more: say it again", key="vfb")
            parts = [f"vncpasswd={known[devid]}" if _is_hidden(part) else part for part in text.split(",")]
            text = ",".join(parts)
        found.append(text)
    return found


def _is_hidden(text: str) -> bool:
    words = (part.partition("=") for part in text.split(","))
    return any(key.strip() == "vncpasswd" and value.strip() == HIDDEN for key, _, value in words)


def _address(text: str, listen: str, password: str) -> str:
    try:
        address = ipaddress.ip_address({"localhost": LOOPBACK}.get(listen, listen.strip("[]")))
    except ValueError:
        raise _refused(text, f"vnclisten={listen}: neither an IP address nor unix:PATH") from None
    if not address.is_loopback and not password:
        raise _refused(text, f"others than this host could look: vnclisten={listen} needs a vncpasswd")
    return str(address)


def parse_vfbs(texts: list[str]) -> Iterator[VfbSpec | ConfigError]:
    """Each specification, or what is wrong with it."""
    if len(texts) > VFBS_MAX:
        yield ConfigError(f"{len(texts)} framebuffers: {VFBS_MAX} is possible", key="vfb")
        return
    for devid, text in enumerate(texts):
        try:
            yield parse_vfb(text, devid)
        except ConfigError as error:
            yield error


def _refused(text: str, what: str) -> ConfigError:
    start, found, rest = text.partition("vncpasswd=")
    if found:  # nobody's password is part of a message
        text = f"{start}{found}{HIDDEN}{''.join(rest.partition(',')[1:])}"
    return ConfigError(f"{text[:200]!r}: {what}", key="vfb", hint=EXAMPLE)


__all__ = ["HELP", "VFBS_MAX", "VfbSpec", "parse_vfb", "parse_vfbs", "with_passwords"]
