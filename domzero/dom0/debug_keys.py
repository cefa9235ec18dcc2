# SPDX-License-Identifier: Apache-2.0
"""Xen's debug keys: what the hypervisor writes into its log when one is pressed (`xl debug-keys`)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from domzero.dom0.freshness import refresh
from domzero.dom0.hostinfo import host_info
from domzero.dom0.manager import Manager
from domzero.dom0.messages import VcpuState
from domzero.errors import ConfigError, DomzeroError

KEYS_MAX = 16


async def press(manager: Manager, keys: str) -> None:
    """Writes what each key is for; a key that is none is told there, too. ConfigError."""
    if not 0 < len(keys) <= KEYS_MAX or not keys.isascii() or not keys.isprintable():
        raise ConfigError(f"1 to {KEYS_MAX} printable ASCII characters", key="keys", hint="h shows which there are")
    for key in keys:
        handler = _HANDLERS.get(key)
        if handler is None:
            manager.log.add(f"(XEN) '{key}' pressed -> there is no such debug key; h shows which there are")
            continue
        text, work = handler
        manager.log.add(f"(XEN) '{key}' pressed -> {text}")
        await work(manager)


async def _show_help(manager: Manager) -> None:
    for key, (text, _) in _HANDLERS.items():
        manager.log.add(f"(XEN)  key '{key}' (ascii '{ord(key):02x}') => {text}")


async def _show_domains(manager: Manager) -> None:
    for record in manager.all():
        await refresh(record)
        config = record.config
        lines = (
            f"General information for domain {record.domid}:",
            f"    name={record.name} state={record.state.value} uuid={record.uuid}",
            f"    current={record.current_memory_mib}MiB target={record.memory_target_mib}MiB "
            f"limit={record.memory_limit_mib}MiB max={config.static_max_mib}MiB",
            f"    vcpus={config.vcpus} maxvcpus={config.vcpus_max} weight={config.cpu_weight} cap={config.cap}",
        )
        for line in lines:
            manager.log.add(f"(XEN) {line}")
        await _show_vcpus_of(manager, record.domid or 0)


async def _show_run_queue(manager: Manager) -> None:
    for record in manager.all():
        await _show_vcpus_of(manager, record.domid or 0)


async def _show_vcpus_of(manager: Manager, domid: int) -> None:
    with suppress(DomzeroError):  # it does not run, or does not answer
        for vcpu, usage in await manager.vcpus(manager.find(str(domid))):
            processor = "-" if usage is None or vcpu.state is VcpuState.OFFLINE else usage.processor
            spent = vcpu.spent_ns + (usage.cpu_ns if usage else 0)
            affinity = ",".join(map(str, vcpu.affinity))
            line = (
                f"d{domid}v{vcpu.vcpu}: {vcpu.state.value} CPU{processor} time={spent / 1e9:.3f}s affinity={affinity}"
            )
            manager.log.add(f"(XEN)     {line}")


async def _show_memory(manager: Manager) -> None:
    host = host_info(manager)
    manager.log.add(f"(XEN) Physical memory: total={host['total_memory']}MiB free={host['free_memory']}MiB")


async def _audit(manager: Manager) -> None:
    for record in manager.all():
        try:
            problems = await manager.audit(record)
        except DomzeroError as error:
            problems = [str(error)]
        for line in problems or ["nothing is wrong"]:
            manager.log.add(f"(XEN) domain {record.domid}: {line}")


_HANDLERS: dict[str, tuple[str, Callable[[Manager], Coroutine[Any, Any, None]]]] = {
    "a": ("let all hypervisors check their books", _audit),
    "h": ("show this help", _show_help),
    "m": ("show the host's memory", _show_memory),
    "q": ("show domains and their vCPUs", _show_domains),
    "r": ("show the vCPUs of all domains", _show_run_queue),
}
