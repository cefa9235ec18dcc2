# SPDX-License-Identifier: Apache-2.0
"""Debian from its disk under a mixed load, for as long as DOMZERO_SOAK_SECONDS says, without a wrong answer.

Two vCPUs compile, sort, pack, cipher, install packages, and run Python's own tests of its regular expressions; each job
checks its answer against the host's. `DOMZERO_SOAK_SECONDS=3600 pytest tests/guest/test_mixed_load.py` takes an hour.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from disk_machine import Machine, check_file_system

from domzero.dom0.images.cache import cache_dir
from domzero.dom0.images.debian_base import make_recipe
from domzero.dom0.images.debian_disk import DiskRecipe, build_debian
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.errors import DomzeroError

SECONDS = int(os.environ.get("DOMZERO_SOAK_SECONDS", "120"))
LIMIT_S = 3 * SECONDS + 1200
PACKAGES = ("gcc", "libc6-dev", "make", "python3", "libpython3.11-testsuite", "openssl", "bzip2")
SCRIPT = Path(__file__).parents[1] / "support" / "mixed_load.sh"
NUMBERS, PRIMES_TO = 200_000, 300_000

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(LIMIT_S + 1200)]


def answers() -> dict[str, str]:
    """What jobs must say, worked out here."""
    composite = bytearray(PRIMES_TO + 1)
    primes = []
    for n in range(2, PRIMES_TO + 1):
        if not composite[n]:
            primes.append(n)
            composite[n * n :: n] = b"\1" * len(range(n * n, PRIMES_TO + 1, n))
    texts = {
        "numbers": "".join(f"{n}\n" for n in range(1, NUMBERS + 1)),
        "primes": "".join(f"{n}\n" for n in primes) + f"{sum(primes) * 0.5:.1f}\n",
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def write_load(directory: Path) -> None:
    """The script and its answers, for a share."""
    shutil.copy(SCRIPT, directory / "load.sh")
    (directory / "answers").write_text("".join(f"{name} {digest}\n" for name, digest in answers().items()))


def build(store: DiskStore) -> DiskImage:
    """A Debian with what the jobs need."""
    recipe = DiskRecipe(make_recipe(packages=PACKAGES), FirstBoot("load"), 3 << 30)
    try:
        return build_debian(store, "load", recipe, progress=print, cache=cache_dir())[0]
    except DomzeroError as error:
        pytest.skip(f"no Debian can be built here: {error}")


def test_a_debian_from_disk_gives_no_wrong_answer_under_a_mixed_load(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "data" / "domzero")
    image = build(store)
    share = tmp_path / "share"
    share.mkdir()
    write_load(share)
    options = ("--vcpus", "2", "--memory", "1024", "--share", f"tag=load,path={share}", "--vif", "bridge=user")
    machine = Machine(store, "load", tmp_path / "console", *options)
    try:
        machine.log_in()
        machine.ask("mkdir -p /load && mount -t 9p -o trans=xen,version=9p2000.L,ro load /load")
        machine.ask("getent hosts deb.debian.org || touch /load-no-network")
        machine.type(f"sh /load/load.sh {SECONDS} /root/work /load/answers")
        printed = machine.wait_for("LOAD-ROUNDS ", LIMIT_S).decode(errors="replace")
        rounds = machine.wait_for("\n").decode(errors="replace")
        end = machine.power_off()
    finally:
        machine.kill()
    wrong = re.findall(r"LOAD-(?:WRONG|KERNEL-COMPLAINS) .*", printed)
    done = Counter(re.findall(r"LOAD-OK (\S+)", printed))
    print(f"{SECONDS} s, rounds {rounds.strip()}: {sum(done.values())} answers: {dict(done)}")
    assert not wrong, wrong[:20]
    assert {"numbers", "primes", "python-re", "signature", "speed", "dpkg-verify"} <= set(done), printed[-3000:]
    assert all(int(count) > 0 for count in rounds.split())
    assert end["ending"] == "poweroff"
    check_file_system(image)
