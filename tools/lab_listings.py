# SPDX-License-Identifier: Apache-2.0
"""Assembles guests/lab and writes domzero/lab/listings.json: bytes, symbols and disassembly of the lab's programs.

`python tools/lab_listings.py`; with `--check` only says whether the file is current. Needs cc, ld and objdump.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "domzero" / "lab" / "listings.json"
PROGRAMS = ("probes", "pv64", "bare", "native", "app", "probes32", "pv32", "app32", "full", "pvcost")
LINE = re.compile(r"^\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t(.*)$")


def objdump(*arguments: str) -> str:
    """What objdump says."""
    return subprocess.run(["objdump", *arguments], check=True, capture_output=True, text=True).stdout


def program(elf: Path) -> dict[str, object]:
    """One program: where it lies, its bytes without the zeros at their end, its labels and instructions."""
    sections = objdump("-h", "-j", ".text", str(elf))
    size, base = (int(field, 16) for field in sections.split(".text", 1)[1].split()[:2])
    raw = elf.with_suffix(".bin")
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(elf), str(raw)], check=True)
    code = raw.read_bytes().rstrip(b"\0")
    symbols = {}
    for line in objdump("-t", str(elf)).splitlines():
        match = re.match(r"^([0-9a-f]{8,16}) .* \.text\t[0-9a-f]+ (\w+)$", line)
        if match and not match[2].startswith("_"):
            symbols[match[2]] = int(match[1], 16) - base
    lines = []
    for line in objdump("-d", "-w", str(elf)).splitlines():
        match = LINE.match(line)
        if match and int(match[1], 16) - base < len(code):
            text = re.sub(r"\s+", " ", match[3].split("#")[0]).strip().replace("%db", "%dr")
            text = re.sub(r"[0-9a-f]{6,} <([^>]+)>", r"\1", text)
            lines.append([int(match[1], 16) - base, len(match[2].split()), text])
    return {"base": base, "size": size, "code": code.hex(), "symbols": dict(sorted(symbols.items())), "lines": lines}


def listings() -> str:
    """The whole file."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "lab"
        shutil.copytree(ROOT / "guests" / "lab", directory)
        subprocess.run(["make", "-s", "-C", str(directory), "clean", "all"], check=True)
        programs = {name: program(directory / f"{name}.elf") for name in PROGRAMS}
    body = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in programs.items())
    return f"{{\n{body}\n}}\n"


def main() -> int:
    """Entry point."""
    text = listings()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
