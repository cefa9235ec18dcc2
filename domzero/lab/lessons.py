# SPDX-License-Identifier: Apache-2.0
"""The lessons by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from domzero.lab import instructions, page_table, paths, unported
from domzero.lab.document import Document


@dataclass(frozen=True, slots=True)
class Lesson:
    """One topic of `domzero lab`."""

    name: str
    about: str
    run: Callable[[], Document]


LESSONS = (
    Lesson("instructions", "every sensitive instruction in ring 0, 1 and 3, and in a PV kernel", instructions.document),
    Lesson("page-table", "one page-table update: natively, and with Xen's types and counts", page_table.document),
    Lesson("syscall", "a system call, from the application to its kernel and back", paths.syscall),
    Lesson("page-fault", "a page fault, from the application to its kernel and back", paths.page_fault),
    Lesson("unported", "why a kernel that was not ported cannot be a PV guest", unported.document),
)  # fmt: skip
"""In the order in which to take them."""


def lesson(name: str) -> Lesson | None:
    """A lesson by its name."""
    return next((lesson for lesson in LESSONS if lesson.name == name), None)
