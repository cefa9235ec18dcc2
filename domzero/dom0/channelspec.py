# SPDX-License-Identifier: Apache-2.0
"""Specifications of a domain's further consoles: xl.cfg's `channel = [...]` (xl.cfg(5)) and `--channel`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from domzero.dom0.names import is_text, shown
from domzero.errors import ConfigError

HELP = "one more console, hvc1 and so on: name=NAME,connection=pty or name=NAME,connection=socket,path=FILE"
PTY_HELP = "its console is a pty of the host's, too: `screen /dev/pts/N`"
EXAMPLE = "for instance 'name=org.example.agent.1,connection=socket,path=/run/agent.sock'"
CHANNELS_MAX = 9
"""Linux' front end knows consoles by one digit; 0 is the first one."""
NAME_MAX = 200
PATH_MAX = 107
"""Of a Unix socket: sockaddr_un's."""
PTY, SOCKET = "pty", "socket"
_KEYS = ("name", "connection", "path", "backend")


@dataclass(slots=True, frozen=True)
class ChannelSpec:
    """One channel.

    :param devid: its number in xenstore, and of the guest's hvc device: 1, 2, ...
    :param name: by which a program in the guest finds it.
    :param connection: what it is on the host: `pty`, or `socket`.
    :param path: of the socket.
    """

    devid: int
    name: str
    connection: str
    path: str = ""

    def text(self, path: str) -> str:
        """The same with another path, as a specification."""
        return f"name={self.name},connection={self.connection}{f',path={path}' if path else ''}"


def parse_channel(text: str, devid: int = 1) -> ChannelSpec:
    """Understands xl's `key=value` parts between commas. ConfigError, with the reason."""
    if not is_text(text):
        raise _refused(shown(text), "that is no UTF-8 text without NUL")
    words: dict[str, str] = {}
    for part in (each for each in text.split(",") if each.strip()):
        key, equals, value = (each.strip() for each in part.partition("="))
        if key not in _KEYS or not equals or not value or "=" in value or '"' in value:
            raise _refused(text, f"what is {part.strip()!r}?")
        if words.setdefault(key, value) != value:
            raise _refused(text, f"{key} is given twice")
    if words.get("backend", "0") not in ("0", "Domain-0"):
        raise _refused(text, f"backend={words['backend']} is not supported")
    name, connection, path = words.get("name", ""), words.get("connection", ""), words.get("path", "")
    if not name or len(name) > NAME_MAX:
        raise _refused(text, "there is no name" if not name else f"a name has {NAME_MAX} characters at most")
    if connection not in (PTY, SOCKET):
        raise _refused(text, f"connection={connection}: pty or socket" if connection else "there is no connection")
    if connection == PTY and path:
        raise _refused(text, "the host chooses the name of a pty: path= is for sockets")
    if connection == SOCKET and not path:
        raise _refused(text, "a socket needs its path=")
    return ChannelSpec(devid, name, connection, path)


def parse_channels(texts: list[str]) -> Iterator[ChannelSpec | ConfigError]:
    """Each specification, or what is wrong with it; two channels with one name or path are wrong."""
    seen: dict[str, str] = {}
    if len(texts) > CHANNELS_MAX:
        yield ConfigError(f"{len(texts)} channels: {CHANNELS_MAX} are possible", key="channel")
        return
    for devid, text in enumerate(texts, 1):
        try:
            spec = parse_channel(text, devid)
            for what in (f"name {spec.name}", f"path {spec.path}" if spec.path else ""):
                if what and what in seen:
                    raise _refused(text, f"{what} is taken by {seen[what]!r}")
        except ConfigError as error:
            yield error
            continue
        seen |= {f"name {spec.name}": text, f"path {spec.path}": text}
        yield spec


def _refused(text: str, what: str) -> ConfigError:
    return ConfigError(f"{text[:200]!r}: {what}", key="channel", hint=EXAMPLE)
