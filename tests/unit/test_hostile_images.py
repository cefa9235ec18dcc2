# SPDX-License-Identifier: Apache-2.0
"""Images made to cost much: each is refused in a process that may not have more than a bounded memory and time."""

from __future__ import annotations

import gzip
import lzma
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from kernels import PADDR, VIRT_BASE, elf, notes

MEMORY_LIMIT = 768 << 20
"""Address space of the process: 512 MiB beside the interpreter with its libraries."""
CPU_LIMIT_S = 20

LOADER = """
import sys
from domzero.builder.image import load_kernel
from domzero.builder.layout import plan
from domzero.errors import DomzeroError
try:
    plan(load_kernel(sys.argv[1]), 256 << 8, 0)
except DomzeroError as error:
    print(error)
    sys.exit(2)
"""


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))


def load(path: Path, script: str = LOADER) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)


def header(segments: Sequence[tuple[int, ...]], body: bytes, sections: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    """A 64-bit ELF file: `segments` as (type, offset in body, paddr, filesz, memsz)."""
    at = 64 + 56 * len(segments)
    table, count, names = sections
    fields = (2, 62, 1, VIRT_BASE + PADDR, 64, at + table if table else 0, 0, 64, 56, len(segments), 64, count, names)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", *fields)
    for kind, offset, paddr, filesz, memsz in segments:
        head += struct.pack("<IIQQQQQQ", kind, 7, at + offset, VIRT_BASE + paddr, paddr, filesz, memsz, 4096)
    return head + body


def huge_segment() -> bytes:
    return elf(b"\xf4", notes(VIRT_BASE=0, ENTRY=PADDR), memsz=1 << 45)


def huge_segment_of_a_32_bit_kernel() -> bytes:
    area = notes(VIRT_BASE=0, ENTRY=PADDR, PAE_MODE="yes", INIT_P2M=None)
    return elf(b"\xf4", area, memsz=0xF000_0000, machine=3, wide=False)


def endless_section_names() -> bytes:
    count, names = 60_000, b"a" * (1 << 20)
    area = notes()
    body = area + names
    at = 64 + 56 * 2
    table = bytearray()
    for index in range(count):
        table += struct.pack("<IIQQQQIIQQ", index, 3, 0, 0, at + len(area), len(names), 0, 0, 1, 0)
    segments = [(1, 0, PADDR, 4, 1 << 40), (4, 0, 0, 0, 0)]
    return header(segments, body + bytes(table), (len(body), count, 0))


def many_notes_over_the_same_bytes() -> bytes:
    body = struct.pack("<III", 4, 0, 1) + b"Foo\0"
    body *= 60_000
    return header([(1, 0, PADDR, 4, 4), *[(4, 0, 0, len(body), len(body))] * 1000], body)


def a_note_of_gigabytes() -> bytes:
    note = struct.pack("<III", 4, 0xFFFF_FFF0, 10) + b"Xen\0" + b"!nonsense|" * 30_000_00
    return header([(1, 0, PADDR, 4, 4), (4, 0, 0, len(note), len(note))], note)


def segments_that_overlap() -> bytes:
    body = notes() + os.urandom(1 << 20) * 100
    return header([(4, 0, 0, len(notes()), len(notes())), *[(1, 0, PADDR, len(body), len(body))] * 1000], body)


def a_zstd_frame_of_runs() -> bytes:
    run = struct.pack("<I", (128 << 10) << 3 | 1 << 1)[:3] + b"\0"
    return b"\x28\xb5\x2f\xfd" + b"\x00\x38" + run * 25_000


def a_zstd_window_of_gigabytes() -> bytes:
    return b"\x28\xb5\x2f\xfd" + b"\x00\xa8" + b"\x01\x00\x00" * 4


def a_gzip_bomb() -> bytes:
    return gzip.compress(bytes(300 << 20), 1)


def an_lzma_dictionary_of_gigabytes() -> bytes:
    packed = bytearray(lzma.compress(elf(), lzma.FORMAT_ALONE))
    packed[1:5] = b"\x00\x00\x00\xf0"
    return bytes(packed)


def a_bomb_in_a_bomb() -> bytes:
    return gzip.compress(gzip.compress(bytes(255 << 20), 1) + bytes(200 << 20), 1)


HOSTILE: dict[Callable[[], bytes], str] = {
    huge_segment: "does not fit",
    huge_segment_of_a_32_bit_kernel: "does not fit|no guest can be mapped",
    endless_section_names: "no Xen ELF notes|does not fit",
    many_notes_over_the_same_bytes: "more than 1024 KiB of notes",
    a_note_of_gigabytes: "more than 1024 KiB of notes",
    segments_that_overlap: "overlap",
    a_zstd_frame_of_runs: "more than 256 MiB",
    a_zstd_window_of_gigabytes: "damaged zstd data",
    a_gzip_bomb: "more than 256 MiB",
    an_lzma_dictionary_of_gigabytes: "Memory usage limit|memory",
    a_bomb_in_a_bomb: "not a kernel|more than",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_an_image_made_to_cost_much_is_refused_in_bounded_memory_and_time(
    make: Callable[[], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(make())
    result = load(path)
    assert result.returncode == 2, result.stderr[-2000:]
    assert len(result.stdout.splitlines()) == 1
    assert any(word in result.stdout for word in HOSTILE[make].split("|")), result.stdout


def test_a_kernel_in_ordinary_memory_loads_within_the_same_bounds(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(gzip.compress(elf(os.urandom(30 << 20)), 1))
    assert load(path).returncode == 0


FUZZER = """
import random, struct, sys
from collections.abc import Callable, Sequence
from pathlib import Path
from domzero.builder.image import parse_kernel
from domzero.builder.layout import plan
from domzero.errors import DomzeroError
good = Path(sys.argv[1]).read_bytes()
for seed in range(4000):
    dice = random.Random(seed)
    bad = bytearray(good)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(16, 400) if dice.random() < 0.8 else dice.randrange(16, len(bad) - 8)
        edges = (0, 1, len(good), 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1, dice.getrandbits(64))
        value = dice.choice(edges)
        size = dice.choice((1, 2, 4, 8))
        bad[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    try:
        plan(parse_kernel(bytes(bad), "k"), 64 << 8, 0)
    except DomzeroError:
        pass
    except BaseException:
        print("seed", seed, file=sys.stderr)
        raise
"""


@pytest.mark.parametrize("wide", [True, False])
def test_random_numbers_in_headers_and_notes_cost_no_more(wide: bool, tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    area = notes() if wide else notes(VIRT_BASE=0, ENTRY=PADDR, PAE_MODE="yes", INIT_P2M=None)
    path.write_bytes(elf(b"\xf4" * 9000, area, machine=62 if wide else 3, wide=wide) + bytes(1000))
    result = load(path, FUZZER)
    assert result.returncode == 0, result.stderr[-2000:]
