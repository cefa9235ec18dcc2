# SPDX-License-Identifier: Apache-2.0
"""The wiring of a PV domain, in one place: from a kernel in memory to a domain that is ready to run, and paused.

It decides nothing: what ends a domain, what is written to the store and who answers on the rings is the caller's.
"""

from __future__ import annotations

import uuid as uuid_module
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from domzero.abi.grant_table import GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE
from domzero.abi.xen import PAGE_SHIFT
from domzero.builder.image import KernelImage
from domzero.builder.layout import Layout, little_room
from domzero.builder.pv import Start, build_pv
from domzero.hypervisor.domain import Domain, DomainSpec, Limits
from domzero.hypervisor.emulate.cpu_policy import CpuPolicy, policy
from domzero.hypervisor.engine import Engine
from domzero.hypervisor.evtchn import BackendPort, alloc_unbound, bind_backend
from domzero.hypervisor.host import Host

SLACK_PAGES = 256
"""What xl's domains may own beyond their memory: 1 MiB."""
E820_RAM = 1


class BackEnd(Protocol):
    """What serves a ring."""

    def pump(self) -> None:
        """Called when the guest's event arrives."""


B = TypeVar("B", bound=BackEnd)


@dataclass(slots=True, frozen=True)
class RingPage:
    """A page of rings that the domain was started with (the console's, the store's).

    :param mfn: its machine frame; it stays ordinary memory until the domain is destroyed.
    :param port: the guest's event channel port, which waits for Domain 0.
    :param page: its bytes, writable.
    """

    domain: Domain
    mfn: int
    port: int
    page: memoryview

    def connect(self, make: Callable[[memoryview, Callable[[], None]], B]) -> tuple[B, BackendPort]:
        """Puts a back end behind the ring.

        :param make: makes the back end from the page and a function that sends the event to the guest.
        :returns: the back end, and the port to be closed after it.
        """
        made: list[B] = []
        port = bind_backend(self.domain, self.port, lambda: made[0].pump())
        made.append(make(self.page, port.notify))
        return made[0], port


@dataclass(slots=True, frozen=True)
class BuiltDomain:
    """A domain with its memory filled and vCPU 0 at the kernel's entry point; paused once (`Domain.unpause`)."""

    domain: Domain
    layout: Layout
    store: RingPage
    console: RingPage


def build_domain(
    host: Host,
    image: KernelImage,
    *,
    pages: int,
    max_pages: int | None = None,
    vcpus: int = 1,
    cmdline: str = "",
    ramdisk: bytes = b"",
    name: str = "",
    uuid: uuid_module.UUID | None = None,
    domid: int | None = None,
    limits: Limits | None = None,
    has_extents: bool = False,
    engine: Engine = Engine.AUTO,
    cpu: CpuPolicy | None = None,
) -> BuiltDomain:
    """Makes a domain, fills its memory, gives it its rings, their ports and grants, and brings vCPU 0 up.

    :param pages: memory it starts with.
    :param max_pages: memory it may grow to, which its memory map ends at (xl's `maxmem`); `pages` when not given.
    :param cmdline: of the kernel, at most MAX_GUEST_CMDLINE - 1 bytes.
    :param domid: chosen by the host when not given.
    :param limits: of event channels and grants; Xen's defaults when not given.
    :param has_extents: its memory is made of extents of 2 MiB where it can be, as Xen's own builder makes it.
    :param engine: what executes its code.
    :param cpu: what CPUID shows; all that there is when not given.
    :raises DomzeroError: the kernel does not fit, or something is used up; nothing is left of the domain then.
    """
    limit = pages if max_pages is None else max(pages, max_pages)
    spec = DomainSpec(
        name=name,
        max_pages=limit + SLACK_PAGES,
        e820=[(0, limit << PAGE_SHIFT, E820_RAM)],
        vcpus=vcpus,
        uuid=uuid or uuid_module.uuid4(),
        is_32bit=image.is_32bit,
        domid=domid,
        limits=limits or Limits(),
        engine=engine,
        cpu=cpu or policy(),
    )
    domain = host.create_domain(spec)
    try:
        return _fill(host, domain, image, pages, cmdline, ramdisk, has_extents=has_extents)
    except BaseException:
        host.destroy_domain(domain)
        raise


def _fill(
    host: Host, domain: Domain, image: KernelImage, pages: int, cmdline: str, ramdisk: bytes, *, has_extents: bool
) -> BuiltDomain:
    store_port, console_port = alloc_unbound(domain), alloc_unbound(domain)
    start = Start(
        nr_pages=pages,
        shared_info=domain.shared_info_maddr,
        store_port=store_port,
        console_port=console_port,
        cmdline=cmdline,
        ramdisk=ramdisk,
        extent_seed=host.entropy.seed if has_extents else None,
    )
    built = build_pv(host.machine, domain.hw, domain.vcpus[0].hw, image, start, host.memory)
    domain.grants.seed(GNTTAB_RESERVED_CONSOLE, built.console_mfn)
    domain.grants.seed(GNTTAB_RESERVED_XENSTORE, built.store_mfn)
    if (room := little_room(pages, built.layout, len(ramdisk))) is not None:
        host.log(room)
    store = RingPage(domain, built.store_mfn, store_port, host.frame_view(built.store_mfn))
    console = RingPage(domain, built.console_mfn, console_port, host.frame_view(built.console_mfn))
    with host.lock:
        domain.vcpus[0].bring_up()
    return BuiltDomain(domain, built.layout, store, console)


__all__ = ["BackEnd", "BuiltDomain", "RingPage", "build_domain"]
