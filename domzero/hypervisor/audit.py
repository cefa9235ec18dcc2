# SPDX-License-Identifier: Apache-2.0
"""The audit: everything that is counted, counted again from what it counts.

The machine does it for frames, page tables and grants (`Machine.audit`), this module for event channels and the
references that Python holds on frames. What guests can write (pending bits, event words, grant entries) proves
nothing and is not looked at.
"""

from collections import Counter
from collections.abc import Mapping

from domzero.hypervisor.domain import Domain
from domzero.hypervisor.platform import Platform

Refs = Counter[tuple[int, bool]]
"""How many references of which kind: (frame, writable)."""


def audit(host: Platform, domains: Mapping[int, Domain]) -> list[str]:
    """Says where the books are wrong; guests may run meanwhile. Nothing, when all is well."""
    with host.lock:
        out = host.machine.audit()
        for domain in domains.values():
            if domain.is_dying:
                continue
            out += domain.evtchn.audit()
            out += _audit_refs(domain)
        return out


def _audit_refs(domain: Domain) -> list[str]:
    """The references that the machine keeps for us (those of grants are its own), against those that we know of."""
    wanted: Refs = Counter()
    wanted.update((mfn, True) for mfn in domain.evtchn.frames)
    wanted.update((vcpu.info.mfn, True) for vcpu in domain.vcpus if vcpu.info.mfn is not None)
    if domain.pirq_eoi_mfn is not None:
        wanted[domain.pirq_eoi_mfn, True] += 1
    wanted.update(domain.host_refs)
    there: Refs = Counter()
    for mfn, plain, writable in domain.grants.hw.other_refs():
        there[mfn, False], there[mfn, True] = plain, writable
    return [
        f"d{domain.domid} frame {mfn:#x}: {there[mfn, writable]} {'writable ' * writable}references are held, "
        f"{wanted[mfn, writable]} are known"
        for mfn, writable in sorted(wanted.keys() | there.keys())
        if wanted[mfn, writable] != there[mfn, writable]
    ]
