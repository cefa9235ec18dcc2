# SPDX-License-Identifier: Apache-2.0
"""What a guest has printed, written down for another Domain 0: whatever the pieces, the last of it is there."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from domzero.dom0.qemu.transcript import Transcript

SIZE = 64


@given(st.lists(st.binary(max_size=3 * SIZE), max_size=12))
def test_the_last_is_read_by_whoever_has_the_file(pieces: list[bytes]) -> None:
    first = Transcript(size=SIZE)
    second = Transcript(os.dup(first.fileno()), size=SIZE)
    for number, piece in enumerate(pieces):
        if number == len(pieces) // 2:  # another one goes on
            first.close()
            first, second = Transcript(os.dup(second.fileno()), size=SIZE), second
        first.add(piece)
    reader = Transcript(os.dup(first.fileno()), size=SIZE)
    assert reader.read() == b"".join(pieces)[-SIZE:]
    for each in (first, second, reader):
        each.close()
