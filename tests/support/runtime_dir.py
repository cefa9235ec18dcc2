# SPDX-License-Identifier: Apache-2.0
"""A runtime directory for one test: sockets in pytest's own directories may have paths that are too long."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def short_runtime_directory() -> Iterator[Path]:
    """XDG_RUNTIME_DIR is a new directory meanwhile: Domain 0's networks are the test's own."""
    with tempfile.TemporaryDirectory(prefix="dz", dir="/tmp") as directory, pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)
