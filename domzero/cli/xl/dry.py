# SPDX-License-Identifier: Apache-2.0
"""What xl shows instead of doing it (-n, -N): libxl's structures in JSON, with what was asked for and no defaults."""

from __future__ import annotations

import json
from typing import Any

from domzero.dom0.channelspec import SOCKET, ChannelSpec, parse_channel
from domzero.dom0.config import WEIGHT, Action, DomainConfig
from domzero.dom0.cpuspec import parse_cpus
from domzero.dom0.diskspec import DiskSpec
from domzero.dom0.hvmspec import DomainType
from domzero.dom0.sharespec import parse_share
from domzero.dom0.vfbspec import VfbSpec, parse_vfb
from domzero.dom0.vifspec import USER, VifSpec, mac_text

Json = dict[str, Any]
_TRUE = "True"
"""libxl's defbool."""


def text_of(found: Json) -> str:
    """As xl prints it."""
    return json.dumps(found, indent=4)


def config_json(config: DomainConfig) -> Json:
    """A domain (libxl_domain_config)."""
    found: Json = {
        "c_info": {
            "type": config.type.value,
            "name": config.name,
            "uuid": str(config.uuid),
            "run_hotplug_scripts": _TRUE,
        },
        "b_info": _build(config),
    }
    lists: dict[str, list[Json]] = {
        "disks": [disk_json(spec) for spec in config.disk_specs],
        "nics": [vif_json(spec) for spec in config.vif_specs],
        "vfbs": [_vfb(parse_vfb(text, devid)) for devid, text in enumerate(config.vfbs)],
        "vkbs": [{"devid": devid} for devid in range(len(config.vfbs))],
        "p9s": [
            {"tag": share.tag, "path": share.path, "security_model": "none"}
            for share in (parse_share(text, index) for index, text in enumerate(config.shares))
        ],
        "channels": [_channel(parse_channel(text, index + 1)) for index, text in enumerate(config.channels)],
    }
    if config.type is not DomainType.PV:
        del lists["vfbs"], lists["vkbs"]  # the display is the machine's
    found |= {name: items for name, items in lists.items() if items}
    for name in ("on_poweroff", "on_reboot", "on_watchdog", "on_crash"):
        if (action := getattr(config, name)) is not Action.DESTROY:
            found[name] = action.value.replace("-", "_")
    return found


def _build(config: DomainConfig) -> Json:
    found: Json = {"max_vcpus": config.vcpus_max, "avail_vcpus": list(range(config.vcpus))}
    if config.cpus:
        found["vcpu_hard_affinity"] = [sorted(parse_cpus(text)) for text in config.cpus]
    found |= {"max_memkb": config.static_max_mib << 10, "target_memkb": config.memory_mib << 10}
    found |= {"rtc_timeoffset": config.rtc_timeoffset} if config.rtc_timeoffset else {}
    found |= {"localtime": _TRUE} if config.localtime else {}
    default = DomainConfig(kernel="")
    for name in ("max_grant_frames", "max_maptrack_frames", "max_grant_version"):
        if (value := getattr(config, name)) != getattr(default, name):
            found[name] = value
    weights = {"weight": (config.cpu_weight, WEIGHT), "cap": (config.cap, 0)}
    found["sched_params"] = {name: value for name, (value, usual) in weights.items() if value != usual}
    if config.max_event_channels != default.max_event_channels:
        found["event_channels"] = config.max_event_channels
    found |= {"kernel": config.kernel} if config.kernel else {}
    found |= {"cmdline": config.cmdline} if config.cmdline else {}
    found |= {"ramdisk": config.ramdisk} if config.ramdisk else {}
    found[f"type.{config.type.value}"] = _hvm(config) if config.type is DomainType.HVM else {}
    return found


def _hvm(config: DomainConfig) -> Json:
    found: Json = {"bios": "ovmf" if config.hvm.firmware.value == "uefi" else "seabios"}
    found["vga"] = {"kind": config.hvm.vga.value}
    found["vnc"] = _vfb(parse_vfb(config.vfbs[0]))["vnc"] if config.vfbs else {"enable": "False"}
    found |= {"boot": config.hvm.boot} if config.hvm.boot else {}
    return found


def disk_json(spec: DiskSpec) -> Json:
    """A disk (libxl_device_disk)."""
    found: Json = {"pdev_path": spec.target} if spec.target else {}
    found |= {"vdev": spec.vdev, "format": spec.format.value if spec.target else "empty"}
    found |= {"removable": 1} if spec.is_cdrom else {}
    found |= {"readwrite": 1} if spec.writable else {}
    return found | ({"is_cdrom": 1} if spec.is_cdrom else {})


def vif_json(spec: VifSpec) -> Json:
    """A network interface (libxl_device_nic); of one to the outside, which is no bridge, nothing is said."""
    found: Json = {"devid": spec.devid}
    found |= {"mtu": spec.mtu} if spec.mtu is not None else {}
    found |= {"model": spec.model} if spec.model else {}
    found |= {"mac": mac_text(spec.mac)} if spec.mac is not None else {}
    found |= {"ip": " ".join(map(str, spec.ip))} if spec.ip else {}
    found |= {"bridge": spec.network} if spec.network != USER else {}
    found |= {"ifname": spec.vifname} if spec.vifname else {}
    if spec.rate is not None:
        found |= {"rate_bytes_per_interval": spec.rate.bytes, "rate_interval_usecs": spec.rate.interval_us}
    return found


def _vfb(spec: VfbSpec) -> Json:
    vnc: Json = {"enable": _TRUE if spec.vnc else "False"}
    vnc |= {"listen": f"unix:{spec.path}" if spec.path else spec.listen}
    vnc |= {"passwd": spec.password} if spec.password else {}
    vnc |= {"display": spec.display} if spec.display else {}
    return {"devid": spec.devid, "vnc": vnc, "sdl": {}}


def _channel(spec: ChannelSpec) -> Json:
    kind: Json = {"path": spec.path} if spec.connection == SOCKET else {}
    return {"devid": spec.devid - 1, "name": spec.name, f"connection.{spec.connection}": kind}
