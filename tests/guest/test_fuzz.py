# SPDX-License-Identifier: Apache-2.0
"""Random hypercalls from a guest with several vCPUs (guests/fuzz), the hypervisor's books checked all the while.

Seconds and first seed: DOMZERO_GUEST_FUZZ_SECONDS, DOMZERO_FUZZ_SEED. What fails is written to fuzz/corpus, and run
first from then on.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
from building import ROOT, build_guests

from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.life import EndReason
from domzero.dom0.lifecycle import DomainSession
from domzero.dom0.xenstore import Store

pytestmark = [pytest.mark.guest, pytest.mark.engines]
CORPUS = ROOT / "fuzz" / "corpus"
ROUNDS = 2000


@pytest.fixture(scope="session")
def fuzzers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the fuzzing guests, built."""
    return build_guests(tmp_path_factory.mktemp("fuzz"), "fuzz")


def run_one(fuzzers: Path, width: str, seed: int, vcpus: int) -> list[str]:
    """Runs one guest to its end; what is wrong with the hypervisor then or meanwhile. The guest itself may crash."""
    config = DomainConfig(
        kernel=str(fuzzers / width / "fuzz_hypercalls"),
        cmdline=f"seed={seed} rounds={ROUNDS}",
        memory_mib=32,
        vcpus=vcpus,
        seed=seed,
        on_poweroff=Action.PRESERVE,  # to be looked at before it is gone
        on_crash=Action.PRESERVE,
    )
    session = DomainSession(config, store=Store())
    session.start()
    problems: list[str] = []
    deadline = time.monotonic() + 120
    try:
        while session.wait(0.1) is None and not problems:
            problems = session.audit()
            if time.monotonic() > deadline:
                problems.append("it hangs")
        problems = problems or session.audit()
        domain = session.domain
        if domain is not None and domain.bug is not None:
            problems.append(f"a bug of the hypervisor: {domain.bug!r}")
        if session.ending is not None and session.ending.reason not in (EndReason.POWEROFF, EndReason.CRASH):
            problems.append(f"it ended by {session.ending.reason}")
    finally:
        session.destroy()
    return problems


def checked(fuzzers: Path, width: str, seed: int, vcpus: int) -> None:
    problems = run_one(fuzzers, width, seed, vcpus)
    if problems:
        CORPUS.mkdir(exist_ok=True)
        (CORPUS / f"guest-{width}-{seed}-{vcpus}").write_text("\n".join(problems) + "\n")
    assert problems == [], f"width {width} seed {seed} vcpus {vcpus}"


@pytest.mark.parametrize("case", sorted(path.name for path in CORPUS.glob("guest-*")))
def test_what_failed_once_does_not_fail_again(fuzzers: Path, case: str) -> None:
    _, width, seed, vcpus = case.split("-")
    assert run_one(fuzzers, width, int(seed), int(vcpus)) == []


def test_random_hypercalls_of_several_vcpus_leave_the_books_right(fuzzers: Path) -> None:
    end = time.monotonic() + float(os.environ.get("DOMZERO_GUEST_FUZZ_SECONDS", "10"))
    first = int(os.environ.get("DOMZERO_FUZZ_SEED", "1"))
    for seed in itertools.count(first):
        for width in ("64", "32"):
            checked(fuzzers, width, seed, 1 + seed % 4)
        if time.monotonic() > end:
            break
