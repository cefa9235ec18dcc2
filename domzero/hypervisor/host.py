# SPDX-License-Identifier: Apache-2.0
"""The host: one machine, its domains, the big lock."""

from collections.abc import Callable

from domzero._machine import Machine, XenRefused
from domzero.abi.xen import DOMID_FIRST_RESERVED, PAGE_SHIFT, PAGE_SIZE
from domzero.errors import ResourceError
from domzero.hypervisor import audit, vcpu_thread
from domzero.hypervisor.clock import Clock, Entropy, HostClock
from domzero.hypervisor.domain import Domain, DomainSpec
from domzero.hypervisor.emulate import cpuid
from domzero.hypervisor.platform import Platform

DOMID_MAX = DOMID_FIRST_RESERVED - 1
DOMAIN_FRAMES = 4096
"""Frames that domains need beside their memory: shared_info, grant table, its status; 73 each by default."""


def machine_frames(guest_frames: int) -> int:
    """How many frames a machine needs so that guests have `guest_frames`, and the domains theirs.

    The machine keeps frame 0 and both machine-to-phys tables, of 8 and of 4 bytes for each of its frames.
    """
    wanted = guest_frames + DOMAIN_FRAMES
    frames = wanted
    while (usable := frames - 1 - -(-frames * 8 // PAGE_SIZE) - -(-frames * 4 // PAGE_SIZE)) < wanted:
        frames += wanted - usable
    return frames


class Host(Platform):
    """One machine with its domains. Any number of hosts may live in one process.

    :param memory_mib: machine memory for guests, in MiB; what the hypervisor needs comes on top.
    :param clock: where time comes from; HostClock when not given.
    :param seed: order of machine frames and randomness; None draws one.
    :param log: receives one `(XEN)` line per call, without the newline.
    :param frames: of the machine, instead of what `memory_mib` comes to: a saved domain's had so many.
    :param start_ns: system time at which the host's clock begins here.
    """

    def __init__(
        self,
        memory_mib: int,
        *,
        clock: Clock | None = None,
        seed: int | None = 0,
        log: Callable[[str], None] | None = None,
        machine: Machine | None = None,
        frames: int | None = None,
        start_ns: int = 0,
    ) -> None:
        clock = clock or HostClock()
        entropy = Entropy(seed)
        machine = machine or Machine(
            frames or machine_frames(memory_mib << (20 - PAGE_SHIFT)),
            seed=entropy.seed,
            # With a seed, too, a domain that goes on does not get the numbers again that it got at its start.
            random_key=entropy.key(f"rdrand{start_ns % 10**9 or ''}"),
            virtual_time_ns=clock.virtual_start_ns,
            host_time_ns=start_ns,
        )
        super().__init__(machine, clock, entropy, log)
        self.domains: dict[int, Domain] = {}
        self._next_domid = 1

    def audit(self) -> list[str]:
        """Recomputes frame types, all reference counts, event channels and grants; says where the books differ."""
        return audit.audit(self, self.domains)

    def frame_view(self, mfn: int, count: int = 1) -> memoryview:
        """Writable bytes of `count` machine frames, no copy. What is written there is never executed from a cache.

        A frame of a domain stays ordinary memory (never a page table) until the domain is destroyed.
        """
        for frame in range(mfn, mfn + count):
            owner = self.machine.frame_info(frame).owner
            domain = self.domains.get(owner) if owner is not None else None
            if domain is None:
                continue
            try:
                domain.hw.hold(frame)
            except XenRefused as refused:
                raise ValueError(f"frame {frame:#x} is in use as a page or descriptor table") from refused
        return self.memory[mfn * PAGE_SIZE : (mfn + count) * PAGE_SIZE]

    def create_domain(self, spec: DomainSpec) -> Domain:
        """A domain without memory, its vCPUs offline, paused. The builder fills it; `Domain.unpause` starts it."""
        with self.lock:
            domid = spec.domid if spec.domid is not None else self._free_domid()
            if not 0 < domid <= DOMID_MAX or domid in self.domains:
                raise ResourceError(f"domain {domid} exists already or is not possible", key="domid")
            domain = Domain.create(self, self.domains, domid, spec, vcpu_thread.main)
            for vcpu in domain.vcpus:
                vcpu.hw.set_cpuid(cpuid.leaves(domain, vcpu.vcpu_id))
            self.domains[domid] = domain
            return domain

    def _free_domid(self) -> int:
        for _ in range(DOMID_MAX):
            domid = self._next_domid
            self._next_domid = domid % DOMID_MAX + 1
            if domid not in self.domains:
                return domid
        raise ResourceError("no domain identifier is free")

    def destroy_domain(self, domain: Domain) -> int:
        """Stops the domain's vCPUs and gives back its frames, ports, grants and threads.

        Not with `lock` held, and not from a vCPU's thread: it waits for these threads. Taking down all page tables of a
        large domain takes long: `lock` is not held meanwhile.

        :returns: frames that others still refer to; 0 when another thread destroys it.
        """
        domain.stop_threads()
        with self.lock:
            if self.domains.get(domain.domid) is not domain:
                return 0
            if domain.is_torn_down:
                self.quiet.wait_for(lambda: self.domains.get(domain.domid) is not domain)
                return 0
            domain.teardown()
        left = domain.hw.destroy()
        with self.lock:
            del self.domains[domain.domid]
            self.quiet.notify_all()
        return left

    def close(self) -> None:
        """Destroys every domain and lets go of machine memory."""
        for domain in list(self.domains.values()):
            self.destroy_domain(domain)
