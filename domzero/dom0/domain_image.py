# SPDX-License-Identifier: Apache-2.0
"""A suspended domain to a file (`save_format`), and back: in the worker, which has it or is to have it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import groupby
from typing import Any

from domzero.abi.xen import PAGE_SHIFT, PAGE_SIZE
from domzero.builder.domain import SLACK_PAGES, RingPage
from domzero.dom0.config import DomainConfig
from domzero.dom0.json_values import MessageError, from_json, to_json
from domzero.dom0.save_format import RUN_PAGES, ImageReader, ImageWriter
from domzero.hypervisor import restore as hypervisor
from domzero.hypervisor.capture import capture, touched_runs
from domzero.hypervisor.domain import Domain, Limits
from domzero.hypervisor.engine import Engine
from domzero.hypervisor.host import Host, machine_frames
from domzero.hypervisor.saved import RestoreError, SavedDomain, SaveError

FRAMES_MORE = 1 << 16
"""By which the machine of another version may be larger than that of this one."""


def write_image(
    domain: Domain,
    store: RingPage,
    console: RingPage,
    fd: int,
    *,
    cancelled: threading.Event,
    progress: Callable[[float], None],
) -> int:
    """Writes a domain that has suspended itself, and whose vCPUs stand still, into a file that Domain 0 has begun.

    :param progress: is told how much is done, of 1.
    :returns: bytes of the file.
    :raises SaveError: it cannot be saved as it is, or `cancelled` is set. OSError.
    """
    saved, mfns, pfns = capture(domain, (store.mfn, store.port), (console.mfn, console.port))
    writer = ImageWriter(fd)
    writer.state(to_json(saved), mfns, pfns)
    memory, total = domain.host.memory, len(mfns)
    # What the host has memory for lies in small pieces: a section has all of them in so many frames.
    for start, pieces in groupby(touched_runs(domain, mfns, RUN_PAGES), lambda run: run[0] // RUN_PAGES * RUN_PAGES):
        if cancelled.is_set():
            raise SaveError("saving was cancelled")
        pages = bytearray(min(RUN_PAGES, total - start) * PAGE_SIZE)
        for index, count in pieces:
            at, to = mfns[index] * PAGE_SIZE, (index - start) * PAGE_SIZE
            pages[to : to + count * PAGE_SIZE] = memory[at : at + count * PAGE_SIZE]
        writer.run(start, bytes(pages))
        progress((start + RUN_PAGES) / total)
    return writer.finish()


class SavedImage:
    """A file that a domain is to be made of. RestoreError, whatever is in it.

    :param config: what the domain is to be; of what is in the file it has been read and checked by Domain 0.
    :param progress: is told how much of it is read, of 1.
    """

    def __init__(self, fd: int, config: DomainConfig, progress: Callable[[float], None] = lambda _: None) -> None:
        self._config = config
        self._progress = progress
        self._max_pages = (config.static_max_mib << (20 - PAGE_SHIFT)) + SLACK_PAGES
        self._reader = ImageReader(fd)
        self._reader.description()
        values, self._mfns, self._pfns = self._reader.state(self._max_pages)
        self.saved = saved_domain(values)
        most = machine_frames(config.static_max_mib << (20 - PAGE_SHIFT)) + FRAMES_MORE
        if not self._mfns[-1] < self.saved.machine_frames <= most:
            raise RestoreError("the file is damaged: its machine has another size")
        if not 0 <= self.saved.system_time_ns < hypervisor.SYSTEM_TIME_MAX_NS:
            raise RestoreError("the file is damaged: its system time is out of range")

    def restore(self, host: Host, domid: int) -> tuple[Domain, RingPage, RingPage]:
        """Makes the domain, with its rings of store and console; paused.

        :param host: of as many frames as `saved` says.
        """
        config, saved, mfns = self._config, self.saved, self._mfns

        def fill(memory: memoryview) -> None:
            for index, page in self._reader.pages(len(mfns), lambda done: self._progress(done / len(mfns))):
                at = mfns[index] * PAGE_SIZE
                memory[at : at + PAGE_SIZE] = page

        made = hypervisor.restore(
            host,
            saved,
            mfns,
            self._pfns,
            fill,
            vcpus=config.vcpus_max,
            max_pages=self._max_pages,
            name=config.name,
            uuid=config.uuid,
            domid=domid,
            limits=limits_of(config),
            engine=Engine(config.engine),
        )
        domain = made.domain
        store = RingPage(domain, saved.store_mfn, made.store_port, host.frame_view(saved.store_mfn))
        console = RingPage(domain, saved.console_mfn, made.console_port, host.frame_view(saved.console_mfn))
        return domain, store, console


def saved_domain(values: dict[str, Any]) -> SavedDomain:
    """What section STAT says. RestoreError."""
    try:
        return from_json(SavedDomain, values, "STAT")
    except (MessageError, RecursionError) as error:
        raise RestoreError(f"the file is damaged: {error}") from error


def limits_of(config: DomainConfig) -> Limits:
    """What a domain may use of the hypervisor's own memory."""
    return Limits(
        event_channels=config.max_event_channels,
        grant_frames=config.max_grant_frames,
        maptrack_frames=config.max_maptrack_frames,
        grant_version=config.max_grant_version,
    )


def read_config(values: dict[str, Any]) -> DomainConfig:
    """The configuration in section CONF, checked. DomzeroError."""
    try:
        config = from_json(DomainConfig, values.get("config"), "config")
    except (MessageError, RecursionError) as error:
        raise RestoreError(f"the file is damaged: {error}") from error
    config.check()
    return config


__all__ = ["SavedImage", "limits_of", "read_config", "write_image"]
