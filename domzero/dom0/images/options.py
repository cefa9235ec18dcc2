# SPDX-License-Identifier: Apache-2.0
"""What a person may ask of an image, checked: its name, its size, and what its first start finds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from domzero.builder.files import read_file
from domzero.dom0.names import is_domid, is_text
from domzero.errors import ConfigError

RESERVED_NAMES = ("debian", "ubuntu")
"""Mean the newest kernel of a distribution wherever an image is asked for."""
_IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_HOST_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_KEY_TYPES = ("ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
_KEY_FILE_MAX = 1 << 16
_UNITS = {"": 20, "M": 20, "G": 30, "T": 40}
SIZE_MAX = 1 << 44


def check_image_name(name: str) -> str:
    """The name, if an image can have it: it is a directory's, too. Raises ConfigError."""
    if not _IMAGE_NAME.fullmatch(name):
        what = "letters, digits, '.', '_', '+' and '-', at most 100 of them, the first a letter or digit"
        raise ConfigError(what, key="name")
    if name in RESERVED_NAMES or is_domid(name):
        raise ConfigError(f"{name} has another meaning where an image is asked for", key="name")
    return name


def parse_size(text: str) -> int:
    """Bytes of "4G", "2048M", "2048" (MiB) or "1T". Raises ConfigError."""
    match = re.fullmatch(r"([0-9]{1,15})([MGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(match[1]) << _UNITS[match[2].upper()] if match else 0
    if match is None or not 0 < size <= SIZE_MAX:
        raise ConfigError(f"{text[:40]!r} is no size from 1M to 16T", key="size", hint="such as 4G or 2048M")
    return size


@dataclass(slots=True, frozen=True)
class FirstBoot:
    """How a machine is told who it is and who may use it.

    :param user: an account with sudo; without one it is root that logs in.
    :param ssh_keys: public keys that may log in as that account.
    :param password: its password; None leaves it without one (login on the console only, unless there are keys).
    :param run: shell commands, run as root.
    """

    hostname: str = "debian"
    user: str | None = None
    ssh_keys: tuple[str, ...] = ()
    password: str | None = None
    run: tuple[str, ...] = ()

    @property
    def login(self) -> str:
        """Who logs in."""
        return self.user or "root"

    def check(self) -> None:
        """Raises ConfigError for what cannot be."""
        if len(self.hostname) > 64 or not all(_HOST_LABEL.fullmatch(label) for label in self.hostname.split(".")):
            raise ConfigError(f"{self.hostname[:80]!r} is no host name", key="hostname")
        if self.user is not None and (not _USER.fullmatch(self.user) or self.user == "root"):
            what = "small letters, digits, '_' and '-', at most 32, and not root"
            raise ConfigError(what, key="user")
        for key in self.ssh_keys:
            if not is_text(key) or not key.isprintable() or not key.startswith(_KEY_TYPES) or " " not in key:
                raise ConfigError("that is no public key: ssh-ed25519 AAAA…", key="ssh-key")
        if self.password is not None and (
            not self.password or not is_text(self.password) or not self.password.isprintable()
        ):
            raise ConfigError("a password is a line of text", key="password")
        if any(not is_text(command) or not command.strip() for command in self.run):
            raise ConfigError("a command is text", key="run")


def read_ssh_keys(word: str) -> list[str]:
    """The public keys that a word is, or those in the file that it names. Raises ConfigError or ImageError."""
    if word.startswith(_KEY_TYPES) and " " in word:
        return [word.strip()]
    text = read_file(Path(word).expanduser(), "ssh-key", _KEY_FILE_MAX).decode("utf-8", "replace")
    if "PRIVATE KEY" in text:
        raise ConfigError(f"{word} is a private key", key="ssh-key", hint="the public one's name ends with .pub")
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise ConfigError(f"{word}: no key in it", key="ssh-key")
    return keys
