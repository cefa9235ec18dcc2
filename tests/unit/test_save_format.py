# SPDX-License-Identifier: Apache-2.0
"""The file of a saved domain: what is written is read again, and nothing else is taken for it."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from domzero.dom0.save_format import ImageReader, ImageWriter, begin
from domzero.hypervisor.saved import RestoreError

PAGE = 4096
MFNS = array("Q", [*range(100, 400), *range(7000, 7300)])
PFNS = array("Q", reversed(range(600)))
STATE = {"vcpus": 2, "text": "x" * 100}
DESCRIPTION = {"config": {"name": "a"}}


def contents() -> dict[int, bytes]:
    """By index: pages of several kinds, and many that are zero."""
    noise = random.Random(1)
    found = {0: b"first".ljust(PAGE, b"\0"), 599: b"last".rjust(PAGE, b"\0")}
    found |= {index: noise.randbytes(PAGE) for index in range(250, 270)}
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    begin(fd, DESCRIPTION)
    writer = ImageWriter(fd)
    writer.state(STATE, MFNS, PFNS)
    pages = contents()
    for start in range(0, 600, 256):
        count = min(256, 600 - start)
        writer.run(start, b"".join(pages.get(start + number, bytes(PAGE)) for number in range(count)))
    size = writer.finish()
    assert size == os.fstat(fd).st_size
    os.close(fd)
    return path


def read(path: Path) -> tuple[object, object, list[int], list[int], dict[int, bytes]]:
    fd = os.open(path, os.O_RDONLY)
    try:
        reader = ImageReader(fd)
        description = reader.description()
        state, mfns, pfns = reader.state(1000)
        pages = {index: bytes(page) for index, page in reader.pages(len(mfns))}
        return description, state, list(mfns), list(pfns), pages
    finally:
        os.close(fd)


def test_what_is_written_is_read_again(image: Path) -> None:
    assert read(image) == (DESCRIPTION, STATE, list(MFNS), list(PFNS), contents())


def test_pages_of_zeros_take_no_room(image: Path) -> None:
    random_pages = 20 * PAGE
    assert image.stat().st_size < random_pages + 8 * PAGE


def flips(data: bytes) -> Iterator[int]:
    """Bits: all of head and sections' heads, and some of everything."""
    yield from range(8 * 64)
    choose = random.Random(2)
    yield from (choose.randrange(8 * len(data)) for _ in range(400))
    yield from range(8 * (len(data) - 48), 8 * len(data))


def test_a_flipped_bit_anywhere_is_found(image: Path) -> None:
    data = image.read_bytes()
    for bit in flips(data):
        damaged = bytearray(data)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        image.write_bytes(damaged)
        with pytest.raises(RestoreError):
            read(image)


def test_a_file_that_is_cut_off_or_longer_is_refused(image: Path) -> None:
    data = image.read_bytes()
    for length in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        image.write_bytes(data[:length])
        with pytest.raises(RestoreError, match="cut off"):
            read(image)
    image.write_bytes(data + b"\0")
    with pytest.raises(RestoreError, match="behind its end"):
        read(image)


def test_a_domain_with_more_frames_than_it_may_have_is_refused(image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    reader = ImageReader(fd)
    reader.description()
    with pytest.raises(RestoreError, match="600 frames, and may have 599"):
        reader.state(599)
    os.close(fd)


def forged(path: Path, mfns: array[int], runs: list[tuple[int, int]]) -> Path:
    """A file whose checksums are right, by somebody who knows how."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    begin(fd, DESCRIPTION)
    writer = ImageWriter(fd)
    writer.state(STATE, mfns, array("Q", bytes(8 * len(mfns))))
    for index, count in runs:
        writer.run(index, b"x" * PAGE * count)
    writer.finish()
    os.close(fd)
    return path


@pytest.mark.parametrize(
    ("mfns", "runs", "why"),
    [
        ([5, 5], [], "not in order"),
        ([9, 5], [], "not in order"),
        ([5, 1 << 60], [], "not in order"),
        ([5, 6], [(1, 2)], "where none belong"),
        ([5, 6], [(2, 1)], "where none belong"),
        ([5, 6], [(1, 1), (0, 1)], "where none belong"),
        ([5, 6], [(0, 1), (0, 1)], "where none belong"),
        ([5, 6], [(1 << 63, 1)], "where none belong"),
        (list(range(300)), [(0, 257)], "where none belong"),
    ],
)
def test_frames_that_make_no_sense_are_refused(
    tmp_path: Path, mfns: list[int], runs: list[tuple[int, int]], why: str
) -> None:
    with pytest.raises(RestoreError, match=why):
        read(forged(tmp_path / "forged", array("Q", mfns), runs))
