# SPDX-License-Identifier: Apache-2.0
"""`xl list -l`: domains as libxl writes their configuration in JSON (libxl_domain_config)."""

from __future__ import annotations

from typing import Any

from domzero.dom0.diskspec import DiskSpec, parse_disks
from domzero.dom0.names import DOMAIN_0
from domzero.dom0.vifspec import parse_vif
from domzero.errors import ConfigError

Json = dict[str, Any]
_FORMATS = ("qcow", "qcow2", "vhd", "raw", "qed")
"""enum libxl_disk_format."""
_ACTIONS = ("on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset")


def of_host(host: Json) -> Json:
    """Domain 0."""
    kib = host["dom0_memory_mib"] << 10
    info = {"max_vcpus": host["nr_cpus"], "max_memkb": kib, "target_memkb": kib, "sched_params": {}, "type.pv": {}}
    return {"domid": 0, "config": {"c_info": {"type": "pv", "name": DOMAIN_0}, "b_info": info}}


def of(domain: Json, vifs: list[Json]) -> Json:
    """A domain.

    :param vifs: its interfaces as they are now.
    """
    build: Json = {
        "max_vcpus": domain["max_vcpus"],
        "avail_vcpus": list(range(domain["vcpus"])),
        "max_memkb": domain["maxmem_mib"] << 10,
        "target_memkb": domain["memory_target_mib"] << 10,
        "sched_params": {"weight": domain["cpu_weight"], "cap": domain["cap"]},
        "kernel": domain["kernel"],
    }
    build |= {"ramdisk": domain["ramdisk"]} if domain["ramdisk"] else {}
    build |= {"cmdline": domain["cmdline"], "type.pv": {}}
    config: Json = {
        "c_info": {"type": "pv", "name": domain["name"], "uuid": domain["uuid"]},
        "b_info": build,
        "disks": [_disk(spec) for spec in parse_disks(domain["disks"]) if isinstance(spec, DiskSpec)],
        "nics": [_nic(vif) for vif in vifs],
    }
    config |= {name: domain[name].replace("-", "_") for name in _ACTIONS}
    return {"domid": domain["domid"], "config": config}


def _disk(spec: DiskSpec) -> Json:
    found: Json = {"pdev_path": spec.target or None, "vdev": spec.vdev, "backend": "qdisk"}
    found["format"] = "empty" if not spec.target else spec.format.value if spec.format.value in _FORMATS else "unknown"
    return found | {"readwrite": int(spec.writable), "is_cdrom": int(spec.is_cdrom)}


def _nic(vif: Json) -> Json:
    try:
        name = parse_vif(vif["spec"]).vifname
    except ConfigError:
        name = ""
    found = {"devid": vif["devid"], "mtu": vif["mtu"], "mac": vif["mac"], "bridge": vif["network"]}
    return found | ({"ifname": name} if name else {})
