# SPDX-License-Identifier: Apache-2.0
"""The file that a core dump is written to: it has its name only when it is whole."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from domzero.dom0.names import is_text
from domzero.dom0.paths import dump_directory
from domzero.errors import ConfigError


class CoreFile:
    """A file being written, open at `fd`. `keep` gives it its name in place of what was there; `close` without it
    leaves nothing.

    :raises ConfigError: it cannot be made there.
    """

    def __init__(self, path: Path) -> None:
        if not is_text(str(path)) or not path.is_absolute():
            raise ConfigError("an absolute path of UTF-8 text is needed", key="path")
        if not path.name:
            raise ConfigError(f"{path} is a directory", key="path")
        self.path = path
        self._part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
        try:
            if path.exists() and not stat.S_ISREG(path.lstat().st_mode):
                raise ConfigError(f"{path} is there, and no regular file", key="path")
            self.fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}", key="path") from error
        self._is_open = True

    @classmethod
    def automatic(cls, name: str) -> CoreFile:
        """The one that the configuration of a domain with this name asks for (`on_crash="coredump-destroy"`)."""
        return cls(dump_directory() / f"{name}.core")

    def keep(self) -> CoreFile:
        """The file is whole: it gets its name."""
        try:
            os.fsync(self.fd)
            self._part.replace(self.path)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}", key="path") from error
        return self

    def close(self) -> None:
        """Lets go of it."""
        if self._is_open:
            self._is_open = False
            os.close(self.fd)
            with suppress(OSError):  # it has its name; or its directory is another by now
                self._part.unlink()
