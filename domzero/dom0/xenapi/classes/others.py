# SPDX-License-Identifier: Apache-2.0
"""Classes of XAPI's of which there are no objects here: what they are asked for is answered truly, with nothing.

Names are those of XAPI's class reference. A field with `*` is one that clients may set, with `{}` or `[]` behind it
when it is a map or a set of theirs; a name with `()` is a message. Only names: nothing is ever read or set, for want of
objects, so that types are not needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from domzero.dom0.xenapi.table import Kind, Message, ro
from domzero.dom0.xenapi.values import STRING, VOID, Ref

HIDDEN = ("auth", "data_source", "LVHD", "probe_result", "sr_stat", "vdi_nbd_server_info")
"""Without get_all: they have no objects in XAPI, either."""

NAMES = {
    "Bond": "uuid master slaves other_config*{} primary_slave mode properties links_up auto_update_mac "
    "create() destroy() set_mode() set_property()",
    "Certificate": "uuid name type host not_before not_after fingerprint fingerprint_sha256 fingerprint_sha1",
    "Cluster": "uuid cluster_hosts pending_forget cluster_token cluster_stack cluster_stack_version is_quorate quorum "
    "live_hosts expected_hosts allowed_operations current_operations pool_auto_join token_timeout "
    "token_timeout_coefficient cluster_config other_config*{} create() destroy() get_network() pool_create() "
    "pool_force_destroy() pool_destroy() pool_resync()",
    "Cluster_host": "uuid cluster host enabled PIF joined live last_update_live allowed_operations current_operations "
    "other_config*{} create() destroy() enable() force_destroy() forget() disable()",
    "DR_task": "uuid introduced_SRs create() destroy()",
    "Feature": "uuid name_label name_description enabled experimental version host",
    "GPU_group": "uuid name_label* name_description* PGPUs VGPUs GPU_types other_config*{} allocation_algorithm* "
    "supported_VGPU_types enabled_VGPU_types create() destroy() get_remaining_capacity()",
    "LVHD": "uuid enable_thin_provisioning()",
    "Observer": "uuid name_label name_description hosts attributes endpoints components enabled create() destroy() "
    "register() unregister() set_hosts() set_attributes() set_enabled() set_components() set_endpoints()",
    "PCI": "uuid class_name vendor_name device_name host pci_id dependencies other_config*{} subsystem_vendor_name "
    "subsystem_device_name driver_name disable_dom0_access() enable_dom0_access() get_dom0_access_status()",
    "PGPU": "uuid PCI GPU_group host other_config*{} supported_VGPU_types enabled_VGPU_types resident_VGPUs "
    "supported_VGPU_max_capacities dom0_access is_system_display_device compatibility_metadata "
    "add_enabled_VGPU_types() remove_enabled_VGPU_types() set_enabled_VGPU_types() set_GPU_group() "
    "get_remaining_capacity() enable_dom0_access() disable_dom0_access()",
    "PUSB": "uuid USB_group host path vendor_id vendor_desc product_id product_desc serial version description "
    "passthrough_enabled other_config*{} speed scan() set_passthrough_enabled()",
    "PVS_cache_storage": "uuid host SR site size VDI create() destroy()",
    "PVS_proxy": "uuid site VIF currently_attached status create() destroy()",
    "PVS_server": "uuid addresses first_port last_port site introduce() forget()",
    "PVS_site": "uuid name_label* name_description* PVS_uuid cache_storage servers proxies introduce() forget() "
    "set_PVS_uuid()",
    "Repository": "uuid name_label* name_description* binary_url source_url update hash up_to_date gpgkey_path origin "
    "certificate introduce() introduce_bundle() forget() set_gpgkey_path()",
    "SDN_controller": "uuid protocol address port introduce() forget()",
    "SM": "uuid name_label name_description type vendor copyright version required_api_version configuration "
    "capabilities features other_config*{} driver_filename required_cluster_stack",
    "USB_group": "uuid name_label* name_description* PUSBs VUSBs other_config*{} create() destroy()",
    "VBD_metrics": "uuid io_read_kbs io_write_kbs last_updated other_config*{}",
    "VGPU": "uuid VM GPU_group device currently_attached other_config*{} type resident_on "
    "scheduled_to_be_resident_on compatibility_metadata extra_args* PCI create() destroy()",
    "VGPU_type": "uuid vendor_name model_name framebuffer_size max_heads max_resolution_x max_resolution_y "
    "supported_on_PGPUs enabled_on_PGPUs VGPUs supported_on_GPU_groups enabled_on_GPU_groups implementation identifier "
    "experimental compatible_types_in_vm",
    "VIF_metrics": "uuid io_read_kbs io_write_kbs last_updated other_config*{}",
    "VLAN": "uuid tagged_PIF untagged_PIF tag other_config*{} create() destroy()",
    "VMPP": "uuid name_label* name_description* is_policy_enabled* backup_type backup_retention_value "
    "backup_frequency backup_schedule is_backup_running backup_last_run_time archive_target_type archive_target_config "
    "archive_frequency archive_schedule is_archive_running archive_last_run_time VMs is_alarm_enabled alarm_config "
    "recent_alerts create() destroy() protect_now() archive_now() create_alert() get_alerts() "
    "set_backup_retention_value() set_backup_frequency() set_backup_schedule() set_archive_frequency() "
    "set_archive_schedule() set_archive_target_type() set_archive_target_config() set_is_alarm_enabled() "
    "set_alarm_config() add_to_backup_schedule() add_to_archive_target_config() add_to_archive_schedule() "
    "add_to_alarm_config() remove_from_backup_schedule() remove_from_archive_target_config() "
    "remove_from_archive_schedule() remove_from_alarm_config() set_backup_last_run_time() set_archive_last_run_time() "
    "set_backup_type()",
    "VMSS": "uuid name_label* name_description* enabled* type retained_snapshots frequency schedule last_run_time VMs "
    "create() destroy() snapshot_now() set_retained_snapshots() set_frequency() set_schedule() add_to_schedule() "
    "remove_from_schedule() set_last_run_time() set_type()",
    "VM_appliance": "uuid name_label* name_description* allowed_operations current_operations VMs create() destroy() "
    "start() clean_shutdown() hard_shutdown() shutdown() assert_can_be_recovered() get_SRs_required_for_recovery() "
    "recover()",
    "VM_group": "uuid name_label* name_description* placement VMs create() destroy()",
    "VTPM": "uuid allowed_operations current_operations VM backend persistence_backend is_unique is_protected create() "
    "destroy()",
    "VUSB": "uuid allowed_operations current_operations VM USB_group other_config*{} currently_attached create() "
    "destroy() unplug()",
    "auth": "get_subject_identifier() get_subject_information_from_identifier() get_group_membership()",
    "blob": "uuid name_label* name_description* size public* last_updated mime_type create() destroy()",
    "crashdump": "uuid VM VDI other_config*{} destroy()",
    "data_source": "name_label name_description enabled standard units min max value",
    "host_crashdump": "uuid host timestamp size other_config*{} destroy() upload()",
    "host_patch": "uuid name_label name_description version host applied timestamp_applied size pool_patch "
    "other_config*{} destroy() apply()",
    "network_sriov": "uuid physical_PIF logical_PIF requires_reboot configuration_mode create() destroy() "
    "get_remaining_capacity()",
    "pool_patch": "uuid name_label name_description version size pool_applied host_patches after_apply_guidance "
    "pool_update other_config*{} apply() pool_apply() precheck() clean() pool_clean() clean_on_host() destroy()",
    "pool_update": "uuid name_label name_description version installation_size key after_apply_guidance vdi hosts "
    "other_config*{} enforce_homogeneity introduce() precheck() apply() pool_apply() pool_clean() destroy()",
    "probe_result": "configuration complete sr extra_info",
    "secret": "uuid value* other_config*{} create() destroy()",
    "sr_stat": "uuid name_label name_description free_space total_space clustered health",
    "tunnel": "uuid access_PIF transport_PIF status*{} other_config*{} protocol* create() destroy()",
    "vdi_nbd_server_info": "uri address port cert subject",
}


def _kind(name: str, words: list[str]) -> Kind:
    fields = tuple(ro(word.partition("*")[0], STRING) for word in words if not word.endswith("()"))
    refused = [Message(word[:-2], (("self", STRING),), VOID, None) for word in words if word.endswith("()")]
    for word in words:
        field, star, shape = word.partition("*")
        if star:
            refused += [
                Message(each, (("self", Ref(name)),), VOID, None, implicit=True) for each in _setters(field, shape)
            ]
    visible = name not in HIDDEN
    if not visible:  # they are structures in answers, not objects
        fields = ()
    return Kind(name, fields, lambda world: {}, explicit=tuple(refused), visible=visible)


def _setters(field: str, shape: str) -> Iterable[str]:
    yield f"set_{field}"
    if shape == "{}":
        yield from (f"add_to_{field}", f"remove_from_{field}")
    elif shape == "[]":
        yield from (f"add_{field}", f"remove_{field}")


OTHERS = tuple(_kind(name, text.split()) for name, text in sorted(NAMES.items()))
