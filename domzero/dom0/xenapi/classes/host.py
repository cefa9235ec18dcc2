# SPDX-License-Identifier: Apache-2.0
"""host, its processors and metrics, and the pool that it is alone in."""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from domzero import __version__
from domzero.dom0.actions import ClearLog, PressDebugKeys
from domzero.dom0.actors import Role
from domzero.dom0.debug_keys import KEYS_MAX
from domzero.dom0.hostinfo import XEN_VERSION, host_info
from domzero.dom0.memory_account import memory_mib
from domzero.dom0.xenapi.classes.pif import management_pif, pifs
from domzero.dom0.xenapi.failure import Failure, not_allowed
from domzero.dom0.xenapi.objects import is_there
from domzero.dom0.xenapi.storage import default_sr, pbds
from domzero.dom0.xenapi.table import EVERYBODY, Found, Kind, kept, message, ro, rw
from domzero.dom0.xenapi.values import (
    BOOL,
    DATETIME,
    FLOAT,
    INT,
    STRING,
    STRING_MAP,
    STRINGS,
    Enum,
    Map,
    Ref,
    Set,
)
from domzero.dom0.xenapi.world import Call, World, derived

MIB = 1 << 20
API_MAJOR, API_MINOR = 2, 21
"""The version of XenAPI whose classes are answered."""
_SELF = Ref("host")


def metrics_id(world: World) -> UUID:
    """Of the host's metrics."""
    return derived(world.host, "metrics")


def cpu_ids(world: World) -> dict[UUID, int]:
    """The host's processors."""
    return {derived(world.host, f"cpu:{number}"): number for number in sorted(os.sched_getaffinity(0))}


@cache
def _cpu() -> dict[str, str]:
    """What the first processor says of itself."""
    found: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return found
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()
    return found


def _cpu_info(world: World, it: World) -> dict[str, str]:
    cpu, count = _cpu(), str(len(os.sched_getaffinity(0)))
    return {
        "cpu_count": count,
        "socket_count": "1",
        "threads_per_core": "1",
        "vendor": cpu.get("vendor_id", ""),
        "speed": cpu.get("cpu MHz", "0"),
        "modelname": cpu.get("model name", ""),
        "family": cpu.get("cpu family", "0"),
        "model": cpu.get("model", "0"),
        "stepping": cpu.get("stepping", "0"),
        "flags": cpu.get("flags", ""),
    }


def _software_version(world: World, it: World) -> dict[str, str]:
    major, minor, extra = XEN_VERSION
    return {
        "product_brand": "Domzero",
        "product_version": __version__,
        "product_version_text": __version__,
        "product_version_text_short": __version__,
        "platform_name": "Domzero",
        "platform_version": __version__,
        "build_number": "0",
        "hostname": platform.node(),
        "date": "",
        "xapi": f"{API_MAJOR}.{API_MINOR}",
        "xen": f"{major}.{minor}{extra}",
        "linux": platform.release(),
        "network_backend": "domzero",
    }


def _residents(world: World, it: World) -> list[UUID]:
    return [record.uuid for record in world.records().values() if is_there(record)]


async def _dmesg(call: Call, host: Found) -> str:
    """host.dmesg."""
    return "".join(f"{line}\n" for line in call.world.manager.log.lines())


async def _dmesg_clear(call: Call, host: Found) -> str:
    """host.dmesg_clear."""
    text = await _dmesg(call, host)
    await call.do(ClearLog())
    return text


async def _send_debug_keys(call: Call, host: Found, keys: str) -> None:
    """host.send_debug_keys: what they write is in the log."""
    if not 1 <= len(keys) <= KEYS_MAX:
        raise Failure("INVALID_VALUE", "keys", f"1 to {KEYS_MAX}")
    await call.do(PressDebugKeys(keys=keys))


async def _free_memory(call: Call, host: Found) -> int:
    """host.compute_free_memory."""
    return memory_mib()[1] * MIB


async def _memory_overhead(call: Call, host: Found) -> int:
    """host.compute_memory_overhead: what is not the domains'."""
    return int(host_info(call.world.manager)["dom0_memory_mib"]) * MIB


async def _servertime(call: Call, host: Found) -> float:
    """host.get_servertime."""
    return time.time()


async def _localtime(call: Call, host: Found) -> float:
    """host.get_server_localtime."""
    now = time.localtime()
    return time.time() + (now.tm_gmtoff or 0)


async def _uncooperative(call: Call, host: Found) -> list[Any]:
    """host.get_uncooperative_resident_VMs."""
    return []


async def _management_interface(call: Call, host: Found) -> UUID:
    """host.get_management_interface: that of the host's default route."""
    if (found := management_pif(call.world)) is None:
        raise not_allowed("the host has no default route")
    return found


_REFUSED_HOST = (
    "disable enable shutdown reboot bugreport_upload list_methods license_apply license_add "
    "license_remove create destroy power_on set_license_params emergency_ha_disable get_data_sources "
    "record_data_source query_data_source forget_data_source_archives assert_can_evacuate "
    "get_vms_which_prevent_evacuation evacuate syslog_reconfigure management_reconfigure "
    "local_management_reconfigure management_disable get_system_status_capabilities restart_agent sync_data "
    "shutdown_agent set_hostname_live backup_rrds create_new_blob call_plugin has_extension call_extension "
    "enable_external_auth disable_external_auth retrieve_wlb_evacuate_recommendations get_server_certificate "
    "refresh_server_certificate install_server_certificate reset_server_certificate "
    "emergency_reset_server_certificate emergency_disable_tls_verification emergency_reenable_tls_verification "
    "emergency_clear_mandatory_guidance "
    "apply_edition refresh_pack_info reset_cpu_features enable_local_storage_caching "
    "disable_local_storage_caching migrate_receive declare_dead enable_display disable_display set_ssl_legacy "
    "set_iscsi_iqn set_multipathing set_uefi_certificates get_sched_gran set_sched_gran "
    "set_numa_affinity_policy set_https_only apply_recommended_guidances apply_updates copy_primary_host_certs "
    "rescan_drivers set_crash_dump_sr set_suspend_image_sr set_address set_hostname set_license_server "
    "add_to_license_server remove_from_license_server set_power_on_mode set_power_on_config"
)

HOST = Kind(
    "host",
    (
        ro("uuid", STRING, lambda w, it: w.host),
        ro("name_label", STRING, lambda w, it: platform.node()),
        kept("name_description", STRING),
        ro("memory_overhead", INT, default=0),
        ro("allowed_operations", Set(Enum("enum host_allowed_operations")), default=["vm_start"]),
        ro("current_operations", Map(STRING, Enum("enum host_allowed_operations")), default={}),
        ro("API_version_major", INT, default=API_MAJOR),
        ro("API_version_minor", INT, default=API_MINOR),
        ro("API_version_vendor", STRING, default="Domzero"),
        ro("API_version_vendor_implementation", STRING_MAP, default={}),
        ro("enabled", BOOL, default=True),
        ro("software_version", STRING_MAP, _software_version),
        kept("other_config"),
        ro("capabilities", STRINGS, lambda w, it: host_info(w.manager)["xen_caps"].split()),
        ro("cpu_configuration", STRING_MAP, default={}),
        ro("sched_policy", STRING, default="host"),
        ro("supported_bootloaders", STRINGS, default=["pygrub"]),
        ro("resident_VMs", Set(Ref("VM")), _residents),
        kept("logging"),
        ro("PIFs", Set(Ref("PIF")), lambda w, it: list(pifs(w))),
        ro("suspend_image_sr", Ref("SR")),
        ro("crash_dump_sr", Ref("SR")),
        ro("crashdumps", Set(Ref("host_crashdump")), default=[]),
        ro("patches", Set(Ref("host_patch")), default=[]),
        ro("updates", Set(Ref("pool_update")), default=[]),
        ro("PBDs", Set(Ref("PBD")), lambda w, it: list(pbds(w))),
        ro("host_CPUs", Set(Ref("host_cpu")), lambda w, it: list(cpu_ids(w))),
        ro("cpu_info", STRING_MAP, _cpu_info),
        ro("hostname", STRING, lambda w, it: platform.node()),
        ro("address", STRING, lambda w, it: w.address),
        ro("metrics", Ref("host_metrics"), lambda w, it: metrics_id(w)),
        kept("license_params"),
        ro("ha_statefiles", STRINGS, default=[]),
        ro("ha_network_peers", STRINGS, default=[]),
        ro("blobs", Map(STRING, Ref("blob")), default={}),
        kept("tags", STRINGS),
        ro("external_auth_type", STRING, default=""),
        ro("external_auth_service_name", STRING, default=""),
        ro("external_auth_configuration", STRING_MAP, default={}),
        ro("edition", STRING, default="free"),
        ro("license_server", STRING_MAP, default={}),
        ro("bios_strings", STRING_MAP, default={}),
        ro("power_on_mode", STRING, default=""),
        ro("power_on_config", STRING_MAP, default={}),
        ro("local_cache_sr", Ref("SR")),
        ro("chipset_info", STRING_MAP, default={"iommu": "false"}),
        ro("PCIs", Set(Ref("PCI")), default=[]),
        ro("PGPUs", Set(Ref("PGPU")), default=[]),
        ro("PUSBs", Set(Ref("PUSB")), default=[]),
        ro("ssl_legacy", BOOL, default=False),
        kept("guest_VCPUs_params"),
        ro("display", Enum("enum host_display"), default="disabled"),
        ro("virtual_hardware_platform_versions", Set(INT), default=[0]),
        ro("control_domain", Ref("VM"), lambda w, it: w.control_domain.uuid),
        ro("updates_requiring_reboot", Set(Ref("pool_update")), default=[]),
        ro("features", Set(Ref("Feature")), default=[]),
        ro("iscsi_iqn", STRING, default=""),
        ro("multipathing", BOOL, default=False),
        ro("uefi_certificates", STRING, default=""),
        ro("certificates", Set(Ref("Certificate")), default=[]),
        ro("editions", STRINGS, default=["free"]),
        ro("pending_guidances", Set(Enum("enum update_guidances")), default=[]),
        ro("https_only", BOOL, default=False),
        ro("tls_verification_enabled", BOOL, default=False),
        ro("latest_synced_updates_applied", Enum("enum latest_synced_updates_applied_state"), default="unknown"),
        ro("numa_affinity_policy", Enum("enum host_numa_affinity_policy"), default="default_policy"),
        ro("pending_guidances_recommended", Set(Enum("enum update_guidances")), default=[]),
        ro("pending_guidances_full", Set(Enum("enum update_guidances")), default=[]),
        ro("last_update_hash", STRING, default=""),
        ro("last_software_update", DATETIME, default=0),
    ),
    lambda w: {w.host: w},
    audience=lambda w, it: (EVERYBODY,),
    explicit=(
        message("dmesg", _dmesg, STRING, host=_SELF),
        message("dmesg_clear", _dmesg_clear, STRING, host=_SELF),
        message("get_log", _dmesg, STRING, host=_SELF),
        message("send_debug_keys", _send_debug_keys, host=_SELF, keys=STRING),
        message("compute_free_memory", _free_memory, INT, host=_SELF),
        message("compute_memory_overhead", _memory_overhead, INT, host=_SELF),
        message("get_servertime", _servertime, DATETIME, host=_SELF),
        message("get_server_localtime", _localtime, DATETIME, host=_SELF),
        message("get_uncooperative_resident_VMs", _uncooperative, Set(Ref("VM")), self=_SELF),
        message("get_management_interface", _management_interface, Ref("PIF"), host=_SELF),
        *(message(name, None, host=_SELF) for name in _REFUSED_HOST.split()),
    ),
)


HOST_METRICS = Kind(
    "host_metrics",
    (
        ro("uuid", STRING, lambda w, it: metrics_id(w)),
        ro("memory_total", INT, lambda w, it: memory_mib()[0] * MIB),
        ro("memory_free", INT, lambda w, it: memory_mib()[1] * MIB, volatile=True),
        ro("live", BOOL, default=True),
        ro("last_updated", DATETIME, lambda w, it: time.time(), volatile=True),
        kept("other_config"),
    ),
    lambda w: {metrics_id(w): w},
)

HOST_CPU = Kind(
    "host_cpu",
    (
        ro("uuid", STRING, lambda w, it: derived(w.host, f"cpu:{it}")),
        ro("host", Ref("host"), lambda w, it: w.host),
        ro("number", INT, lambda w, it: it),
        ro("vendor", STRING, lambda w, it: _cpu().get("vendor_id", "")),
        ro("speed", INT, lambda w, it: int(float(_cpu().get("cpu MHz", "0")))),
        ro("modelname", STRING, lambda w, it: _cpu().get("model name", "")),
        ro("family", INT, lambda w, it: int(_cpu().get("cpu family", "0"))),
        ro("model", INT, lambda w, it: int(_cpu().get("model", "0"))),
        ro("stepping", STRING, lambda w, it: _cpu().get("stepping", "")),
        ro("flags", STRING, lambda w, it: _cpu().get("flags", "")),
        ro("features", STRING, default=""),
        ro("utilisation", FLOAT, default=0.0),
        kept("other_config"),
    ),
    cpu_ids,
)


async def _put_default_sr(call: Call, _it: World, value: UUID | None) -> None:
    """pool.set_default_SR."""
    call.world.fields.put(call.world.pool, "default_SR", "" if value is None else str(value))


_REFUSED_POOL = (
    "join join_force eject initial_auth emergency_transition_to_master emergency_reset_master recover_slaves "
    "create_VLAN create_VLAN_from_PIF management_reconfigure enable_ha disable_ha sync_database "
    "designate_new_master ha_prevent_restarts_for ha_failover_plan_exists "
    "ha_compute_max_host_failures_to_tolerate ha_compute_hypothetical_max_host_failures_to_tolerate "
    "ha_compute_vm_failover_plan set_ha_host_failures_to_tolerate create_new_blob ping enable_external_auth "
    "disable_external_auth detect_nonhomogeneous_external_auth initialize_wlb deconfigure_wlb "
    "send_wlb_configuration retrieve_wlb_configuration retrieve_wlb_recommendations send_test_post "
    "certificate_install certificate_uninstall certificate_list install_ca_certificate "
    "uninstall_ca_certificate crl_install crl_uninstall crl_list certificate_sync enable_tls_verification "
    "enable_redo_log disable_redo_log set_vswitch_controller test_archive_target enable_local_storage_caching "
    "disable_local_storage_caching get_license_state apply_edition enable_ssl_legacy disable_ssl_legacy "
    "has_extension add_to_guest_agent_config remove_from_guest_agent_config rotate_secret set_repositories "
    "add_repository remove_repository sync_updates check_update_readiness enable_client_certificate_auth "
    "disable_client_certificate_auth configure_repository_proxy disable_repository_proxy configure_update_sync "
    "set_update_sync_enabled set_local_auth_max_threads set_ext_auth_max_threads set_https_only "
    "set_telemetry_next_collection reset_telemetry_uuid set_igmp_snooping_enabled set_uefi_certificates "
    "set_custom_uefi_certificates set_migration_compression set_coordinator_bias set_live_patching_disabled "
    "set_policy_no_vendor_device set_is_psr_pending set_wlb_enabled set_wlb_verify_cert "
    "set_ha_allow_overcommit set_suspend_image_SR set_crash_dump_SR"
)

POOL = Kind(
    "pool",
    (
        ro("uuid", STRING, lambda w, it: w.pool),
        kept("name_label", STRING),
        kept("name_description", STRING),
        ro("master", Ref("host"), lambda w, it: w.host),
        rw(
            "default_SR",
            Ref("SR", nullable=True),
            lambda w, it: default_sr(w),
            _put_default_sr,
            role=Role.POOL_OPERATOR,
        ),
        ro("suspend_image_SR", Ref("SR")),
        ro("crash_dump_SR", Ref("SR")),
        kept("other_config"),
        ro("ha_enabled", BOOL, default=False),
        ro("ha_configuration", STRING_MAP, default={}),
        ro("ha_statefiles", STRINGS, default=[]),
        ro("ha_host_failures_to_tolerate", INT, default=0),
        ro("ha_plan_exists_for", INT, default=0),
        ro("ha_allow_overcommit", BOOL, default=False),
        ro("ha_overcommitted", BOOL, default=False),
        ro("blobs", Map(STRING, Ref("blob")), default={}),
        kept("tags", STRINGS),
        kept("gui_config"),
        kept("health_check_config"),
        ro("wlb_url", STRING, default=""),
        ro("wlb_username", STRING, default=""),
        ro("wlb_enabled", BOOL, default=False),
        ro("wlb_verify_cert", BOOL, default=False),
        ro("redo_log_enabled", BOOL, default=False),
        ro("redo_log_vdi", Ref("VDI")),
        ro("vswitch_controller", STRING, default=""),
        ro("restrictions", STRING_MAP, default={}),
        ro("metadata_VDIs", Set(Ref("VDI")), default=[]),
        ro("ha_cluster_stack", STRING, default=""),
        ro("allowed_operations", Set(Enum("enum pool_allowed_operations")), default=[]),
        ro("current_operations", Map(STRING, Enum("enum pool_allowed_operations")), default={}),
        ro("guest_agent_config", STRING_MAP, default={}),
        ro("cpu_info", STRING_MAP, _cpu_info),
        ro("policy_no_vendor_device", BOOL, default=False),
        ro("live_patching_disabled", BOOL, default=True),
        ro("igmp_snooping_enabled", BOOL, default=False),
        ro("uefi_certificates", STRING, default=""),
        ro("custom_uefi_certificates", STRING, default=""),
        ro("is_psr_pending", BOOL, default=False),
        ro("tls_verification_enabled", BOOL, default=False),
        ro("repositories", Set(Ref("Repository")), default=[]),
        ro("client_certificate_auth_enabled", BOOL, default=False),
        ro("client_certificate_auth_name", STRING, default=""),
        ro("repository_proxy_url", STRING, default=""),
        ro("repository_proxy_username", STRING, default=""),
        ro("repository_proxy_password", Ref("secret")),
        ro("migration_compression", BOOL, default=False),
        ro("coordinator_bias", BOOL, default=False),
        ro("local_auth_max_threads", INT, default=0),
        ro("ext_auth_max_threads", INT, default=0),
        ro("ext_auth_cache_enabled", BOOL, default=False),
        ro("ext_auth_cache_size", INT, default=0),
        ro("ext_auth_cache_expiry", INT, default=0),
        ro("telemetry_uuid", Ref("secret")),
        ro("telemetry_frequency", Enum("enum telemetry_frequency"), default="weekly"),
        ro("telemetry_next_collection", DATETIME, default=0),
        ro("last_update_sync", DATETIME, default=0),
        ro("update_sync_frequency", Enum("enum update_sync_frequency"), default="weekly"),
        ro("update_sync_day", INT, default=0),
        ro("update_sync_enabled", BOOL, default=False),
        ro("recommendations", STRING_MAP, default={}),
        ro("license_server", STRING_MAP, default={}),
    ),
    lambda w: {w.pool: w},
    audience=lambda w, it: (EVERYBODY,),
    explicit=tuple(message(name, None) for name in _REFUSED_POOL.split()),
)
