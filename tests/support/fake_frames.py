# SPDX-License-Identifier: Apache-2.0
"""What the fake machine tells of a frame."""

from domzero._machine import FrameType


class FakeFrameInfo:
    type = FrameType.WRITABLE
    type_count = 0

    def __init__(self, owner: int | None, refs: int = 1) -> None:
        self.owner = owner
        self.refs = refs
