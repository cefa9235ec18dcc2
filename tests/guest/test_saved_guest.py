# SPDX-License-Identifier: Apache-2.0
"""A guest that is saved is the same when it goes on; and what somebody hostile puts into its file never hurts more than
the domain made of it."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from building import build_guests

from domzero.abi.sched import ShutdownReason
from domzero.builder.domain import SLACK_PAGES, RingPage, build_domain
from domzero.builder.image import load_kernel
from domzero.dom0.config import DomainConfig
from domzero.dom0.console import Console, ConsoleRing
from domzero.dom0.domain_image import SavedImage, write_image
from domzero.dom0.save_format import ImageReader, ImageWriter, begin
from domzero.errors import DomzeroError
from domzero.hypervisor.capture import go_on
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.host import Host
from domzero.hypervisor.saved import RestoreError

pytestmark = [pytest.mark.guest]
MIB = 8
PATIENCE = 120
PAGE = 4096


class Running:
    """A domain with its console."""

    def __init__(self, host: Host, domain: Domain, store: RingPage, console: RingPage) -> None:
        self.host, self.domain, self.store, self.page = host, domain, store, console
        self.console = Console()
        self.ring, self.port = console.connect(lambda page, notify: ConsoleRing(page, self.console, notify))
        self.console.attach(self.ring)

    @property
    def output(self) -> str:
        return self.console.history.decode(errors="replace").replace("\r", "")

    def ends(self) -> int | None:
        """Lets it go until it stops."""
        self.domain.unpause()
        code = self.domain.wait(PATIENCE)
        self.domain.pause()
        self.domain.back_ends.settle()
        self.ring.drain()
        return code

    def save(self, path: Path) -> None:
        with path.open("w+b") as file:
            begin(file.fileno(), {})
            write_image(
                self.domain, self.store, self.page, file.fileno(), cancelled=threading.Event(), progress=lambda _: None
            )

    def close(self) -> None:
        self.console.attach(None)
        self.ring.close()
        self.port.close()
        self.host.close()


def config(kernel: Path) -> DomainConfig:
    return DomainConfig(kernel=str(kernel), memory_mib=MIB, vcpus=2)


def started(kernel: Path) -> Running:
    host = Host(MIB, seed=None)
    pages = MIB << 8
    built = build_domain(host, load_kernel(str(kernel)), pages=pages, max_pages=pages, vcpus=2, name="state")
    return Running(host, built.domain, built.store, built.console)


def restored(path: Path, kernel: Path) -> Running:
    """RestoreError, and nothing is left."""
    with path.open("rb") as file:
        image = SavedImage(file.fileno(), config(kernel))
        host = Host(0, seed=None, frames=image.saved.machine_frames, start_ns=image.saved.system_time_ns)
        free = host.machine.free_frames
        try:
            domain, store, console = image.restore(host, 7)
        except BaseException:
            assert host.machine.free_frames == free, "nothing is left of it"
            assert host.audit() == []
            host.close()
            raise
    return Running(host, domain, store, console)


@pytest.fixture(scope="module", params=["64", "32"])
def kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    width: str = request.param
    return build_guests(tmp_path_factory.mktemp("saved"), "saved") / width / "saved_state"


@pytest.fixture
def image(kernel: Path, tmp_path: Path) -> Path:
    """Of the guest, suspended for the first time."""
    running = started(kernel)
    assert running.ends() == ShutdownReason.SHUTDOWN_suspend, running.output
    path = tmp_path / "first"
    running.save(path)
    running.close()
    return path


def test_a_guest_is_the_same_in_each_of_the_domains_that_it_goes_on_in(kernel: Path, tmp_path: Path) -> None:
    running = started(kernel)
    output = ""
    for turn in range(3):
        assert running.ends() == ShutdownReason.SHUTDOWN_suspend, running.output
        path = tmp_path / f"state-{turn}"
        running.save(path)
        output += running.output
        running.close()
        running = restored(path, kernel)
        assert running.host.audit() == []
    assert running.ends() == ShutdownReason.SHUTDOWN_poweroff, running.output
    assert running.host.audit() == []
    output += running.output
    running.close()
    assert "FAIL" not in output and "PASS state" in output and output.count("resumed") == 3, output


def test_a_guest_that_is_not_suspended_after_all_goes_on_where_it_was(kernel: Path, tmp_path: Path) -> None:
    running = started(kernel)
    for turn in range(3):
        assert running.ends() == ShutdownReason.SHUTDOWN_suspend, running.output
        running.save(tmp_path / f"check-{turn}")
        go_on(running.domain)
    assert running.ends() == ShutdownReason.SHUTDOWN_poweroff, running.output
    output = running.output
    running.close()
    assert "FAIL" not in output and output.count("goes on") == 3, output


# --- files by somebody who knows how they are made


def parts(path: Path) -> tuple[dict[str, Any], array[int], array[int], dict[int, bytes]]:
    with path.open("rb") as file:
        reader = ImageReader(file.fileno())
        reader.description()
        state, mfns, pfns = reader.state((MIB << 8) + SLACK_PAGES)
        return state, mfns, pfns, {index: bytes(page) for index, page in reader.pages(len(mfns))}


def forge(path: Path, state: dict[str, Any], mfns: array[int], pfns: array[int], pages: dict[int, bytes]) -> Path:
    with path.open("w+b") as file:
        begin(file.fileno(), {})
        writer = ImageWriter(file.fileno())
        writer.state(state, mfns, pfns)
        for index, page in sorted(pages.items()):
            writer.run(index, page)
        writer.finish()
    return path


def outcome(path: Path, kernel: Path) -> str:
    """What becomes of a file: refused by name, or a domain that runs and whose books are right."""
    try:
        running = restored(path, kernel)
    except RestoreError:
        return "refused"
    try:
        assert running.host.audit() == []
        running.domain.unpause()
        running.domain.wait(0.02)
        running.domain.pause()
        assert running.host.audit() == []
        assert running.domain.bug is None, running.domain.bug
        return "ran"
    finally:
        running.close()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of all that is in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def bent(value: Any, choose: random.Random) -> Any:
    """Something else in the place of a value."""
    if isinstance(value, bool):
        return choose.choice((not value, 2, None))
    if isinstance(value, int):
        return choose.choice((value ^ 1 << choose.randrange(70), -1, 0, 1 << 64, 1 << 200, "1", None, value + 1))
    if isinstance(value, str) and len(value) > 8:
        at = choose.randrange(len(value))
        digit = choose.choice("0123456789abcdef")
        return choose.choice((value[:at] + digit + value[at + 1 :],) * 4 + (value[:-2], value + "00", "zz" + value[2:]))
    if isinstance(value, str):
        return choose.choice(("", "x" * 100, 5))
    if isinstance(value, list):
        return choose.choice((value[:-1], value + value, [], value[::-1], [[]], {}))
    return choose.choice(({}, [], None, 1))


def hostile(image: Path, kernel: Path, tmp_path: Path, seed: int, bend: Callable[..., None]) -> str:
    choose = random.Random(seed)
    state, mfns, pfns, pages = parts(image)
    bend(choose, state, mfns, pfns, pages)
    try:
        forged = forge(tmp_path / "forged", state, mfns, pfns, pages)
    except (OverflowError, TypeError):
        return "refused"
    return outcome(forged, kernel)


def bend_state(choose: random.Random, state: dict[str, Any], *_: Any) -> None:
    # Long lists would be all that is met: first a field, then a place in it.
    top = choose.choice(sorted(state))
    holder, key = state, top
    *path, last = choose.choice([place for place in places(state[top], (top,))])
    for step in path:
        holder = holder[step]
    key = last
    holder[key] = bent(holder[key], choose)


def bend_pages(choose: random.Random, state: dict[str, Any], mfns: array[int], _: Any, pages: dict[int, bytes]) -> None:
    tables = [mfns.index(mfn) for mfn, _ in state["pinned"]]
    for _turn in range(choose.randrange(1, 4)):
        index = choose.choice(tables + sorted(pages))
        page = bytearray(pages.get(index, bytes(PAGE)))
        at = choose.randrange(PAGE // 8) * 8
        entry = choose.choice((mfns[choose.randrange(len(mfns))], choose.randrange(1 << 20), 0)) << 12
        page[at : at + 8] = (entry | choose.choice((0, 1, 3, 5, 7, 0x67, 0x63, 0x1E7))).to_bytes(8, "little")
        pages[index] = bytes(page)


def bend_frames(choose: random.Random, _: Any, mfns: array[int], pfns: array[int], *__: Any) -> None:
    which = choose.choice((mfns, pfns))
    which[choose.randrange(len(which))] = choose.choice((0, 1, 1 << 40, choose.randrange(1 << 13), 2**64 - 1))


@pytest.mark.parametrize("rounds", [30, pytest.param(1500, marks=pytest.mark.slow)])
def test_whatever_is_in_a_file_is_refused_or_is_its_domains_own_matter(
    image: Path, kernel: Path, tmp_path: Path, rounds: int
) -> None:
    found = {"refused": 0, "ran": 0}
    for seed in range(rounds):
        bend = (bend_state, bend_pages, bend_frames)[seed % 3]
        found[hostile(image, kernel, tmp_path, seed, bend)] += 1
    assert found["refused"] and found["ran"], found


def test_a_processor_that_this_host_cannot_give_is_refused_by_name(image: Path, kernel: Path, tmp_path: Path) -> None:
    state, mfns, pfns, pages = parts(image)
    state["features"].append("avx512f")
    with pytest.raises(RestoreError, match="avx512f"):
        restored(forge(tmp_path / "forged", state, mfns, pfns, pages), kernel)


def test_upper_halves_of_vector_registers_and_other_registers_go_on(kernel: Path, tmp_path: Path) -> None:
    running = started(kernel)
    assert running.ends() == ShutdownReason.SHUTDOWN_suspend
    first, second = running.domain.vcpus
    values = random.Random(3).randbytes(256)
    first.hw.load_upper_vectors(values)
    first.hw.set_reg("tsc_aux", 77)
    second.hw.set_reg("dr2_mask", 0xFF0)
    running.save(tmp_path / "v")
    running.close()
    running = restored(tmp_path / "v", kernel)
    first, second = running.domain.vcpus
    found = bytes(first.hw.save_upper_vectors()), first.hw.get_reg("tsc_aux"), second.hw.get_reg("dr2_mask")
    running.close()
    assert found == (values, 77, 0xFF0)


def test_saving_that_is_cancelled_is_a_named_error(kernel: Path, tmp_path: Path) -> None:
    running = started(kernel)
    assert running.ends() == ShutdownReason.SHUTDOWN_suspend
    cancelled = threading.Event()
    cancelled.set()
    with (tmp_path / "c").open("w+b") as file:
        begin(file.fileno(), {})
        with pytest.raises(DomzeroError, match="cancelled"):
            write_image(
                running.domain, running.store, running.page, file.fileno(), cancelled=cancelled, progress=lambda _: None
            )
    running.close()
