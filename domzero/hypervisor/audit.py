# SPDX-License-Identifier: Apache-2.0
"""The audit: everything that is counted, counted again from what it counts.

The machine does it for frames and page tables (`Machine.audit`), this module for event channels, grants and the
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
        uses = _grant_uses(domains)
        for domain in domains.values():
            if domain.is_dying:
                continue
            out += domain.evtchn.audit()
            out += _audit_grants(domain, uses)
            out += _audit_refs(domain)
        return out


def _grant_uses(domains: Mapping[int, Domain]) -> Counter[tuple[int, int, bool]]:
    """Who uses which grant: (granter, reference, writable), from the users' side."""
    uses: Counter[tuple[int, int, bool]] = Counter()
    for domain in domains.values():
        for mapping in domain.maptrack.mappings.values():
            if domains.get(mapping.owner.domid) is mapping.owner:
                uses[mapping.owner.domid, mapping.ref, mapping.writable] += 1
        for (ref, writable), count in domain.grants.backends.items():
            uses[domain.domid, ref, writable] += count
        for active in domain.grants.active.values():
            if active.via is not None:
                table, ref = active.via
                uses[table.domain.domid, ref, False] += active.readers
                uses[table.domain.domid, ref, True] += active.writers
    return +uses


def _audit_grants(domain: Domain, uses: Counter[tuple[int, int, bool]]) -> list[str]:
    out = []
    counted: Counter[tuple[int, int, bool]] = Counter()
    for ref, active in domain.grants.active.items():
        counted[domain.domid, ref, False] = active.readers
        counted[domain.domid, ref, True] = active.writers
        if active.readers < 0 or active.writers < 0 or not active.readers + active.writers:
            out.append(f"d{domain.domid} grant {ref}: {active.readers} readers, {active.writers} writers")
        if ref >= domain.grants.entries:
            out.append(f"d{domain.domid} grant {ref}: in use beyond the end of the table")
    theirs = Counter({key: count for key, count in uses.items() if key[0] == domain.domid})
    for key in sorted((counted - theirs).keys() | (theirs - counted).keys()):
        what = "writers" if key[2] else "readers"
        out.append(f"d{domain.domid} grant {key[1]}: {counted[key]} {what} counted, {theirs[key]} found")
    for handle, mapping in domain.maptrack.mappings.items():
        entry = mapping.owner.grants.active.get(mapping.ref)
        if entry is not None and (entry.mfn, entry.domid) != (mapping.mfn, domain.domid):
            out.append(f"d{domain.domid} handle {handle}: frame {mapping.mfn:#x}, the grant says {entry}")
    return out


def _audit_refs(domain: Domain) -> list[str]:
    """The references that the machine keeps for us, against those that we know of."""
    wanted: Refs = Counter()
    for active in domain.grants.active.values():
        if active.via is None:
            wanted[active.mfn, False] += active.readers
            wanted[active.mfn, True] += active.writers
    wanted.update((mfn, True) for mfn in domain.evtchn.frames)
    wanted.update((vcpu.info.mfn, True) for vcpu in domain.vcpus if vcpu.info.mfn is not None)
    if domain.pirq_eoi_mfn is not None:
        wanted[domain.pirq_eoi_mfn, True] += 1
    there: Refs = Counter()
    for mfn, plain, writable in domain.hw.outside_refs():
        there[mfn, False], there[mfn, True] = plain, writable
    return [
        f"d{domain.domid} frame {mfn:#x}: {there[mfn, writable]} {'writable ' * writable}references are held, "
        f"{wanted[mfn, writable]} are known"
        for mfn, writable in sorted((wanted - there).keys() | (there - wanted).keys())
    ]
