# SPDX-License-Identifier: Apache-2.0
"""The vCPUs of a domain, as a worker tells of them and changes them."""

from __future__ import annotations

import os
from collections.abc import Iterable

from domzero.dom0.messages import VcpuState, VcpuStats
from domzero.errors import ConfigError
from domzero.hypervisor.domain import Domain
from domzero.hypervisor.vcpu import Vcpu


def stats(domain: Domain) -> list[VcpuStats]:
    """All of them, in order."""
    with domain.host.lock:
        return [_stats(vcpu) for vcpu in domain.vcpus]


def pin(domain: Domain, vcpu_id: int | None, processors: Iterable[int]) -> None:
    """Lets one, or all, run on these processors of the host only. ConfigError."""
    chosen = domain.vcpus if vcpu_id is None else [_find(domain, vcpu_id)]
    wanted = frozenset(processors)
    with domain.host.lock:
        try:
            for vcpu in chosen:
                vcpu.pin(wanted)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"it cannot run there: {error}", key="cpus") from error


def renew_threads(domain: Domain) -> None:
    """Gives all that have a thread a new one, which has the calling thread's priority."""
    for vcpu in domain.vcpus:
        vcpu.renew_thread()


def send_nmi(domain: Domain, vcpu_id: int) -> None:
    """Interrupts one as nothing can mask. ConfigError."""
    vcpu = _find(domain, vcpu_id)
    with domain.host.lock:
        vcpu.send_nmi()


def _find(domain: Domain, vcpu_id: int) -> Vcpu:
    vcpu = domain.vcpu(vcpu_id)
    if vcpu is None:
        raise ConfigError(f"there is no vCPU {vcpu_id}: 0 to {len(domain.vcpus) - 1}", key="vcpu")
    return vcpu


def _state(vcpu: Vcpu) -> VcpuState:
    if vcpu.is_down:
        return VcpuState.OFFLINE
    if vcpu.domain.pause_count or vcpu.domain.shutdown_code is not None:
        return VcpuState.PAUSED
    return VcpuState.BLOCKED if vcpu.is_blocked else VcpuState.RUNNING


def _stats(vcpu: Vcpu) -> VcpuStats:
    thread_id = vcpu.thread.native_id if vcpu.thread is not None else None
    affinity = vcpu.affinity or os.sched_getaffinity(0)
    return VcpuStats(vcpu.vcpu_id, _state(vcpu), thread_id, tuple(sorted(affinity)), vcpu.spent_ns)
