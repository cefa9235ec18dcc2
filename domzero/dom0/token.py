# SPDX-License-Identifier: Apache-2.0
"""The token that requests over TCP show: made anew at each start of Domain 0, kept in a file that only its user reads.

A file for each address: whoever looks for the token of one Domain 0 never sends another one's.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from domzero.dom0.paths import candidates
from domzero.errors import ConfigError, DomzeroError

TOKEN_BYTES = 32
TOKEN_FILE_MAX = 4096


def token_path(directory: Path, host: str, port: int) -> Path:
    """The token's file for a Domain 0 that listens on this address, in the directory of its Unix socket."""
    return directory / f"tcp-{host}-{port}.token"


class TokenFile:
    """A new token in its file; DomzeroError if that cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        try:
            fd, temporary = tempfile.mkstemp(prefix=".token-", dir=path.parent)  # mode 0600
            try:
                with open(fd, "w") as file:
                    file.write(self.token + "\n")
                    self._identity = os.fstat(file.fileno()).st_ino
                os.rename(temporary, path)  # whole or not at all; what was there, a link too, is replaced
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise DomzeroError(f"{path}: {os.strerror(error.errno or 0)}", key="listen") from error

    def remove(self) -> None:
        """Removes the file, unless it is another Domain 0's by now."""
        with suppress(OSError):
            if self.path.stat().st_ino == self._identity:
                self.path.unlink()


def read_token(path: Path) -> str:
    """The token in a file; ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(TOKEN_FILE_MAX)
    except OSError as error:
        raise ConfigError(f"{path}: {os.strerror(error.errno or 0)}", key="token-file") from error
    return check_token(data.decode("ascii", "replace").strip(), "token-file")


def check_token(text: str, key: str) -> str:
    """The text, if a header can carry it as a token; ConfigError."""
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError("this is no token: one word of printable ASCII is expected", key=key)
    return text


def find_token(host: str, port: int) -> str | None:
    """The token of this user's Domain 0 at an address, if it keeps one where the sockets are."""
    for name in ("127.0.0.1", "::1") if host == "localhost" else (host,):
        for place in candidates():
            path = token_path(place.parent, name, port)
            with suppress(OSError, ConfigError):
                info = path.lstat()
                if stat.S_ISREG(info.st_mode) and info.st_uid in (os.getuid(), 0):
                    return read_token(path)
    return None
