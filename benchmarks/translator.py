# SPDX-License-Identifier: Apache-2.0
"""What translating costs: `python benchmarks/translator.py [--domains N] [--json]`.

The time that Debian's boot takes to translate, and how much code that is; the memory of the code of several domains at
once; and four vCPUs that work in parallel beside one, on each engine: rounds of shells that sort and sum.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import domzero
from domzero import _machine
from domzero.dom0.images import Image, fetch_debian

MIB = 1 << 20
LIMIT_S = 1800
MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ .* /memfd:domzero-code")


@dataclass(slots=True)
class Boot:
    """What one boot to a shell, and to its end, has translated.

    :param code_bytes: of host code that is kept at the end.
    """

    blocks: int
    translating_s: float
    boot_s: float
    code_bytes: int


def boot(image: Image, **options: Any) -> domzero.Guest:
    """Debian's kernel and a shell."""
    return domzero.boot(image.kernel, ramdisk=image.ramdisk, cmdline=image.cmdline, **options)


def translated_boot(image: Image) -> Boot:
    """Boots once, and powers off."""
    start = time.monotonic()
    with boot(image, memory_mib=128, engine="translator") as guest:
        guest.console.send("poweroff\n")
        guest.wait(LIMIT_S)
        seconds = time.monotonic() - start
        blocks, translating_s, size = guest.domain.vcpus[0].hw.translated()
    return Boot(blocks, translating_s, seconds, size)


def code_memory() -> int:
    """Bytes of translated code that this process has in memory: each is mapped twice, and is there once."""
    total, ours = 0, False
    with open("/proc/self/smaps", encoding="ascii") as smaps:
        for line in smaps:
            if line[0] in "0123456789abcdef" and "-" in line.split(" ")[0]:
                ours = MAPPING.match(line) is not None
            elif ours and line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


def memory_of(image: Image, count: int) -> int:
    """Bytes that the code of so many domains takes, each of which has started a shell and run some commands."""
    with ExitStack() as stack:
        guests = [stack.enter_context(boot(image, memory_mib=96, engine="translator")) for _ in range(count)]
        for guest in guests:
            guest.unpause()
            guest.console.send("seq 2000 | sort -r | md5sum; echo SHELL-RE''ADY\n")
        for guest in guests:
            guest.console.expect("SHELL-READY", timeout=LIMIT_S)
        return code_memory()


def rounds(image: Image, engine: str, vcpus: int, seconds: int) -> int:
    """Rounds of work that as many shells as there are vCPUs do in this time."""
    loop = (
        f"work() {{ end=$(($(cut -d. -f1 /proc/uptime) + {seconds})); n=0; "
        "while [ $(cut -d. -f1 /proc/uptime) -lt $end ]; do "
        "seq 1000 | sort -r | md5sum >/dev/null; n=$((n + 1)); done; echo rou''nds $n; }; "
    )
    with boot(image, memory_mib=256, engine=engine, vcpus=vcpus) as guest:
        guest.unpause()
        guest.console.send(loop + "work & " * vcpus + "wait; echo WORK-DO''NE\n")
        guest.console.expect("WORK-DONE", timeout=LIMIT_S)
        return sum(int(n) for n in re.findall(r"rounds (\d+)", guest.console.text))


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--domains", type=int, default=16, help="that have code at once (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="of parallel work (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if (reason := _machine.translator_unavailable()) is not None:
        print(f"translator: not here: {reason}", file=sys.stderr)
        return 0
    image, _ = fetch_debian(lambda text: print(f"translator: {text}", file=sys.stderr))
    one = translated_boot(image)
    memory = memory_of(image, args.domains)
    work = {
        engine: {vcpus: rounds(image, engine, vcpus, args.seconds) for vcpus in (1, 4)}
        for engine in ("interpreter", "translator")
    }
    if args.json:
        print(
            json.dumps({"boot": asdict(one), "domains": args.domains, "code_bytes": memory, "rounds": work}, indent=2)
        )
        return 0
    print(f"a boot of {one.boot_s:.2f} s: {one.blocks} blocks translated in {one.translating_s:.2f} s,")
    print(f"  {one.translating_s / max(one.blocks, 1) * 1e6:.1f} us each, {one.code_bytes / MIB:.1f} MiB of code")
    print(f"code of {args.domains} domains with a shell: {memory / MIB:.0f} MiB")
    for engine, of in work.items():
        each = ", ".join(f"{vcpus} vCPUs {count}" for vcpus, count in of.items())
        print(f"{engine}: rounds of shell work in {args.seconds} s: {each}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
