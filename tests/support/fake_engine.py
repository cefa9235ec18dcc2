# SPDX-License-Identifier: Apache-2.0
"""The part of a fake vCPU that chooses what executes its code."""

from __future__ import annotations

from typing import Any


class FakeEngine:
    """Notes what it is told in `calls`."""

    calls: list[tuple[Any, ...]]
    difference: str | None = None
    """What `checked` says."""

    def set_translator(self, threshold: int, code_bytes: int | None = None) -> None:
        self.calls.append(("set_translator", threshold))

    def set_check(self, on: bool) -> None:
        self.calls.append(("set_check", on))

    def checked(self) -> tuple[int, str | None]:
        return 0, self.difference
