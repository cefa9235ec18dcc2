# SPDX-License-Identifier: Apache-2.0
"""docs/guide/lab.md, from a real run: `python tools/lab_page.py > docs/guide/lab.md`."""

from __future__ import annotations

import sys

from domzero.lab.lessons import LESSONS

_HEAD = """# The lab: x86 and Xen's PV architecture, seen

Made by `python tools/lab_page.py` from a real run; a test fails when it is not current. The same in a terminal:
`domzero lab TOPIC`, with `--json` for programs; `domzero lab instructions popfq cli` says everything about single
instructions, `domzero lab unported --kernel vmlinuz` starts a kernel of yours at its native entry.

Two machines run here, both on Domzero's own engine. The *bare machine* is a processor with all its rings and nothing
under its kernel. The *PV guest* is a domain as `domzero run` makes it, run one instruction at a time. Their programs
are in `guests/lab`. All numbers are hexadecimal, but for counts.
"""


def page() -> str:
    """The page's text."""
    return "\n".join([_HEAD, *(lesson.run().markdown() for lesson in LESSONS)])


if __name__ == "__main__":
    sys.stdout.write(page())
