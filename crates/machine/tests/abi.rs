// SPDX-License-Identifier: Apache-2.0
//! Xen's numbers and layouts here are those of its public headers, as a C compiler has told them to
//! `tests/abi/golden.json` (written by `tests/abi/probe.py`).

use domzero_machine::abi::evtchn::{self, evtchnop, evtchnstat, fifo, virq};
use domzero_machine::abi::grant::{self, gntcopy, gntmap, gnttabop, gtf, GrantStatus};
use domzero_machine::abi::hypercall::{mmu, mmuext, nr, segbase, uvmf, vcpuop, vmasst, xenver};
use domzero_machine::abi::structs::{
    iret_context, mmu_update, mmuext_op, multicall_entry, vcpu_info, vcpu_set_singleshot_timer,
};
use domzero_machine::abi::{self, blkif, layout, netif, p9, selector, Errno};
use std::collections::HashMap;

/// The golden file's values of one width.
fn golden(width: &str) -> HashMap<String, i64> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/abi/golden.json");
    let text = std::fs::read_to_string(path).expect("tests/abi/golden.json");
    let mut all: HashMap<String, HashMap<String, i64>> =
        serde_json::from_str(&text).expect("two widths of numbers");
    all.remove(width).expect("this width")
}

/// `[name in C, value here]` for constants that are named as there but for a prefix.
macro_rules! named {
    ($prefix:literal, $module:ident: $($name:ident = $c:literal),+ $(,)?) => {
        vec![$((format!("value {}{}", $prefix, $c), $module::$name as i64)),+]
    };
}

fn numbers() -> Vec<(String, i64)> {
    let mut all = named!("__HYPERVISOR_", nr: MMU_UPDATE = "mmu_update", STACK_SWITCH = "stack_switch",
        FPU_TASKSWITCH = "fpu_taskswitch", UPDATE_VA_MAPPING = "update_va_mapping", IRET = "iret", MULTICALL = "multicall",
        SET_SEGMENT_BASE = "set_segment_base", MMUEXT_OP = "mmuext_op", GRANT_TABLE_OP = "grant_table_op",
        EVENT_CHANNEL_OP_COMPAT = "event_channel_op_compat", EVENT_CHANNEL_OP = "event_channel_op", SET_TIMER_OP = "set_timer_op", XEN_VERSION = "xen_version",
        VCPU_OP = "vcpu_op");
    all.extend(named!("XENVER_", xenver: VERSION = "version"));
    all.extend(
        named!("VCPUOP_", vcpuop: IS_UP = "is_up", SET_SINGLESHOT_TIMER = "set_singleshot_timer",
        STOP_SINGLESHOT_TIMER = "stop_singleshot_timer"),
    );
    all.extend(
        named!("MMU_", mmu: NORMAL_PT_UPDATE = "NORMAL_PT_UPDATE", MACHPHYS_UPDATE = "MACHPHYS_UPDATE",
        PT_UPDATE_PRESERVE_AD = "PT_UPDATE_PRESERVE_AD", PT_UPDATE_NO_TRANSLATE = "PT_UPDATE_NO_TRANSLATE"),
    );
    all.extend(
        named!("MMUEXT_", mmuext: PIN_L1_TABLE = "PIN_L1_TABLE", PIN_L2_TABLE = "PIN_L2_TABLE",
        PIN_L3_TABLE = "PIN_L3_TABLE", PIN_L4_TABLE = "PIN_L4_TABLE", UNPIN_TABLE = "UNPIN_TABLE",
        NEW_BASEPTR = "NEW_BASEPTR", TLB_FLUSH_LOCAL = "TLB_FLUSH_LOCAL", INVLPG_LOCAL = "INVLPG_LOCAL",
        TLB_FLUSH_MULTI = "TLB_FLUSH_MULTI", INVLPG_MULTI = "INVLPG_MULTI", TLB_FLUSH_ALL = "TLB_FLUSH_ALL",
        INVLPG_ALL = "INVLPG_ALL", FLUSH_CACHE = "FLUSH_CACHE", SET_LDT = "SET_LDT",
        NEW_USER_BASEPTR = "NEW_USER_BASEPTR", CLEAR_PAGE = "CLEAR_PAGE", COPY_PAGE = "COPY_PAGE",
        FLUSH_CACHE_GLOBAL = "FLUSH_CACHE_GLOBAL", MARK_SUPER = "MARK_SUPER", UNMARK_SUPER = "UNMARK_SUPER"),
    );
    all.extend(
        named!("UVMF_", uvmf: FLUSHTYPE_MASK = "FLUSHTYPE_MASK", TLB_FLUSH = "TLB_FLUSH",
        INVLPG = "INVLPG", ALL = "ALL"),
    );
    all.extend(
        named!("VMASST_TYPE_", vmasst: WRITABLE_PAGETABLES = "writable_pagetables",
        ARCHITECTURAL_IOPL = "architectural_iopl", M2P_STRICT = "m2p_strict"),
    );
    all.extend(
        named!("SEGBASE_", segbase: FS = "FS", GS_USER = "GS_USER", GS_KERNEL = "GS_KERNEL",
        GS_USER_SEL = "GS_USER_SEL"),
    );
    all.extend(
        named!("DOMID_", abi: DOMID_FIRST_RESERVED = "FIRST_RESERVED", DOMID_SELF = "SELF", DOMID_IO = "IO",
        DOMID_XEN = "XEN", DOMID_INVALID = "INVALID"),
    );
    all.extend(
        named!("FLAT_", selector: FLAT_KERNEL_CS = "KERNEL_CS64", FLAT_KERNEL_SS = "KERNEL_SS64",
        FLAT_RING3_CS64 = "RING3_CS64", FLAT_RING3_SS64 = "RING3_SS64", FLAT_RING3_CS32 = "RING3_CS32",
        FLAT_RING3_DS32 = "RING3_DS32", FLAT_RING3_SS32 = "RING3_SS32"),
    );
    all.extend(
        named!("", layout: HYPERVISOR_VIRT_START = "HYPERVISOR_VIRT_START", HYPERVISOR_VIRT_END = "HYPERVISOR_VIRT_END",
        M2P_VA = "MACH2PHYS_VIRT_START", FIRST_RESERVED_GDT_ENTRY = "FIRST_RESERVED_GDT_ENTRY"),
    );
    all.extend(
        named!("BLKIF_", blkif: OP_READ = "OP_READ", OP_WRITE = "OP_WRITE", OP_WRITE_BARRIER = "OP_WRITE_BARRIER",
        OP_FLUSH_DISKCACHE = "OP_FLUSH_DISKCACHE", OP_DISCARD = "OP_DISCARD", OP_INDIRECT = "OP_INDIRECT",
        DISCARD_SECURE = "DISCARD_SECURE", RSP_OKAY = "RSP_OKAY", RSP_ERROR = "RSP_ERROR",
        RSP_EOPNOTSUPP = "RSP_EOPNOTSUPP", MAX_SEGMENTS_PER_REQUEST = "MAX_SEGMENTS_PER_REQUEST",
        MAX_INDIRECT_PAGES_PER_REQUEST = "MAX_INDIRECT_PAGES_PER_REQUEST"),
    );
    all.extend(named!("", netif: TXF_CSUM_BLANK = "NETTXF_csum_blank", TXF_DATA_VALIDATED = "NETTXF_data_validated", TXF_MORE_DATA = "NETTXF_more_data", TXF_EXTRA_INFO = "NETTXF_extra_info", RXF_DATA_VALIDATED = "NETRXF_data_validated", RXF_CSUM_BLANK = "NETRXF_csum_blank", RXF_MORE_DATA = "NETRXF_more_data", RXF_EXTRA_INFO = "NETRXF_extra_info", RSP_OKAY = "NETIF_RSP_OKAY", RSP_ERROR = "NETIF_RSP_ERROR", RSP_NULL = "NETIF_RSP_NULL"));
    all.extend(named!("XEN_NETIF_", netif: NR_SLOTS_MIN = "NR_SLOTS_MIN", EXTRA_TYPE_GSO = "EXTRA_TYPE_GSO", EXTRA_TYPE_MCAST_ADD = "EXTRA_TYPE_MCAST_ADD", EXTRA_TYPE_MCAST_DEL = "EXTRA_TYPE_MCAST_DEL", EXTRA_TYPE_HASH = "EXTRA_TYPE_HASH", EXTRA_FLAG_MORE = "EXTRA_FLAG_MORE", GSO_TYPE_TCPV4 = "GSO_TYPE_TCPV4", GSO_TYPE_TCPV6 = "GSO_TYPE_TCPV6"));
    all.extend(named!("", iret_context: VGCF_IN_SYSCALL = "VGCF_in_syscall"));
    all.extend(
        named!("GNTTABOP_", gnttabop: MAP_GRANT_REF = "map_grant_ref", UNMAP_GRANT_REF = "unmap_grant_ref",
        COPY = "copy", UNMAP_AND_REPLACE = "unmap_and_replace", SWAP_GRANT_REF = "swap_grant_ref"),
    );
    all.extend(
        named!("GTF_", gtf: TYPE_MASK = "type_mask", PERMIT_ACCESS = "permit_access", TRANSITIVE = "transitive",
        READONLY = "readonly", READING = "reading", WRITING = "writing", SUB_PAGE = "sub_page"),
    );
    assert_eq!(
        (1 << gtf::READING_BIT, 1 << gtf::WRITING_BIT),
        (gtf::READING, gtf::WRITING)
    );
    all.extend(
        named!("GNTMAP_", gntmap: DEVICE_MAP = "device_map", HOST_MAP = "host_map", READONLY = "readonly",
        APPLICATION_MAP = "application_map", CONTAINS_PTE = "contains_pte"),
    );
    all.extend(named!("GNTCOPY_", gntcopy: SOURCE_GREF = "source_gref", DEST_GREF = "dest_gref"));
    all.extend(named!("GNTTAB_", grant: NR_RESERVED_ENTRIES = "NR_RESERVED_ENTRIES"));
    all.extend(
        named!("EVTCHNOP_", evtchnop: BIND_INTERDOMAIN = "bind_interdomain", BIND_VIRQ = "bind_virq",
        BIND_PIRQ = "bind_pirq", CLOSE = "close", SEND = "send", STATUS = "status", ALLOC_UNBOUND = "alloc_unbound",
        BIND_IPI = "bind_ipi", BIND_VCPU = "bind_vcpu", UNMASK = "unmask", RESET = "reset",
        INIT_CONTROL = "init_control", EXPAND_ARRAY = "expand_array", SET_PRIORITY = "set_priority"),
    );
    all.extend(
        named!("EVTCHNSTAT_", evtchnstat: CLOSED = "closed", UNBOUND = "unbound", INTERDOMAIN = "interdomain",
        VIRQ = "virq", IPI = "ipi"),
    );
    all.extend(
        named!("EVTCHN_FIFO_", fifo: PRIORITY_DEFAULT = "PRIORITY_DEFAULT", MAX_QUEUES = "MAX_QUEUES",
        NR_CHANNELS = "NR_CHANNELS", LINK_BITS = "LINK_BITS", PENDING = "PENDING", MASKED = "MASKED",
        LINKED = "LINKED", BUSY = "BUSY"),
    );
    all.extend(
        named!("", virq: TIMER = "VIRQ_TIMER", DEBUG = "VIRQ_DEBUG", XENOPROF = "VIRQ_XENOPROF",
        XENPMU = "VIRQ_XENPMU", COUNT = "NR_VIRQS"),
    );
    all.extend(GrantStatus::ALL.map(|s| (format!("value {s}"), i64::from(s.number()))));
    all.extend(Errno::ALL.map(|e| (format!("value XEN_{e}"), i64::from(e.number()))));
    all
}

fn numbers_of_32_bit_guests() -> Vec<(String, i64)> {
    let mut all = named!("FLAT_", selector: FLAT_COMPAT_RING1_CS = "RING1_CS", FLAT_COMPAT_RING1_DS = "RING1_DS",
        FLAT_COMPAT_RING1_SS = "RING1_SS", FLAT_COMPAT_RING3_CS = "RING3_CS", FLAT_COMPAT_RING3_DS = "RING3_DS",
        FLAT_COMPAT_RING3_SS = "RING3_SS");
    all.extend(
        named!("", layout: HYPERVISOR_VIRT_START_PAE = "__HYPERVISOR_VIRT_START_PAE", M2P_COMPAT_VA = "__MACH2PHYS_VIRT_START_PAE"),
    );
    all
}

fn grant_layouts(is_32bit: bool) -> Vec<(&'static str, i64)> {
    use grant::{
        copy, entry_v1, entry_v2, map_grant_ref, swap_grant_ref, unmap_and_replace, unmap_grant_ref,
    };
    vec![
        ("sizeof grant_entry_v1", entry_v1::SIZE as i64),
        ("offsetof grant_entry_v1 frame", entry_v1::FRAME as i64),
        ("sizeof grant_entry_v2", entry_v2::SIZE as i64),
        (
            "offsetof grant_entry_v2_full_page frame",
            entry_v2::FULL_FRAME as i64,
        ),
        (
            "offsetof grant_entry_v2_sub_page page_off",
            entry_v2::SUB_PAGE_OFF as i64,
        ),
        (
            "offsetof grant_entry_v2_sub_page length",
            entry_v2::SUB_LENGTH as i64,
        ),
        (
            "offsetof grant_entry_v2_sub_page frame",
            entry_v2::SUB_FRAME as i64,
        ),
        (
            "offsetof grant_entry_v2_transitive trans_domid",
            entry_v2::TRANS_DOMID as i64,
        ),
        (
            "offsetof grant_entry_v2_transitive gref",
            entry_v2::TRANS_GREF as i64,
        ),
        ("sizeof gnttab_map_grant_ref", map_grant_ref::SIZE as i64),
        (
            "offsetof gnttab_map_grant_ref host_addr",
            map_grant_ref::HOST_ADDR as i64,
        ),
        ("offsetof gnttab_map_grant_ref flags", map_grant_ref::FLAGS as i64),
        ("offsetof gnttab_map_grant_ref ref", map_grant_ref::REF as i64),
        ("offsetof gnttab_map_grant_ref dom", map_grant_ref::DOM as i64),
        (
            "offsetof gnttab_map_grant_ref status",
            map_grant_ref::STATUS as i64,
        ),
        (
            "offsetof gnttab_map_grant_ref handle",
            map_grant_ref::HANDLE as i64,
        ),
        (
            "offsetof gnttab_map_grant_ref dev_bus_addr",
            map_grant_ref::DEV_BUS_ADDR as i64,
        ),
        ("sizeof gnttab_unmap_grant_ref", unmap_grant_ref::SIZE as i64),
        (
            "offsetof gnttab_unmap_grant_ref dev_bus_addr",
            unmap_grant_ref::DEV_BUS_ADDR as i64,
        ),
        (
            "offsetof gnttab_unmap_grant_ref handle",
            unmap_grant_ref::HANDLE as i64,
        ),
        (
            "offsetof gnttab_unmap_grant_ref status",
            unmap_grant_ref::STATUS as i64,
        ),
        ("sizeof gnttab_unmap_and_replace", unmap_and_replace::SIZE as i64),
        (
            "offsetof gnttab_unmap_and_replace new_addr",
            unmap_and_replace::NEW_ADDR as i64,
        ),
        (
            "offsetof gnttab_unmap_and_replace handle",
            unmap_and_replace::HANDLE as i64,
        ),
        (
            "offsetof gnttab_unmap_and_replace status",
            unmap_and_replace::STATUS as i64,
        ),
        ("sizeof gnttab_copy", copy::size(is_32bit) as i64),
        ("offsetof gnttab_copy dest", copy::dest(is_32bit) as i64),
        ("offsetof gnttab_copy_ptr domid", copy::end_domid(is_32bit) as i64),
        (
            "offsetof gnttab_copy_ptr offset",
            copy::end_offset(is_32bit) as i64,
        ),
        ("offsetof gnttab_copy len", copy::len(is_32bit) as i64),
        ("offsetof gnttab_copy flags", copy::flags(is_32bit) as i64),
        ("offsetof gnttab_copy status", copy::status(is_32bit) as i64),
        ("sizeof gnttab_swap_grant_ref", swap_grant_ref::SIZE as i64),
        (
            "offsetof gnttab_swap_grant_ref ref_b",
            swap_grant_ref::REF_B as i64,
        ),
        (
            "offsetof gnttab_swap_grant_ref status",
            swap_grant_ref::STATUS as i64,
        ),
    ]
}

/// Name of a structure, its size, its members' names and offsets.
type Layout = (&'static str, usize, &'static [(&'static str, usize)]);

fn event_layouts(is_32bit: bool) -> Vec<(String, i64)> {
    use evtchn::{
        alloc_unbound, bind_interdomain, bind_ipi, bind_pirq, bind_vcpu, bind_virq, expand_array,
        init_control, one_port, reset, set_priority, shared_info, status,
    };
    let structs: [Layout; 16] = [
        (
            "alloc_unbound",
            alloc_unbound::SIZE,
            &[
                ("dom", alloc_unbound::DOM),
                ("remote_dom", alloc_unbound::REMOTE_DOM),
                ("port", alloc_unbound::PORT),
            ],
        ),
        (
            "bind_interdomain",
            bind_interdomain::SIZE,
            &[
                ("remote_dom", bind_interdomain::REMOTE_DOM),
                ("remote_port", bind_interdomain::REMOTE_PORT),
                ("local_port", bind_interdomain::LOCAL_PORT),
            ],
        ),
        (
            "bind_virq",
            bind_virq::SIZE,
            &[
                ("virq", bind_virq::VIRQ),
                ("vcpu", bind_virq::VCPU),
                ("port", bind_virq::PORT),
            ],
        ),
        ("bind_pirq", bind_pirq::SIZE, &[("pirq", bind_pirq::PIRQ)]),
        (
            "bind_ipi",
            bind_ipi::SIZE,
            &[("vcpu", bind_ipi::VCPU), ("port", bind_ipi::PORT)],
        ),
        ("close", one_port::SIZE, &[("port", one_port::PORT)]),
        ("send", one_port::SIZE, &[("port", one_port::PORT)]),
        ("unmask", one_port::SIZE, &[("port", one_port::PORT)]),
        (
            "status",
            status::SIZE,
            &[
                ("dom", status::DOM),
                ("port", status::PORT),
                ("status", status::STATUS),
                ("vcpu", status::VCPU),
                ("u", status::U),
            ],
        ),
        (
            "status_interdomain",
            status::SIZE - status::U,
            &[("dom", 0), ("port", status::U_INTERDOMAIN_PORT - status::U)],
        ),
        (
            "bind_vcpu",
            bind_vcpu::SIZE,
            &[("port", bind_vcpu::PORT), ("vcpu", bind_vcpu::VCPU)],
        ),
        ("reset", reset::SIZE, &[("dom", reset::DOM)]),
        (
            "init_control",
            init_control::SIZE,
            &[
                ("control_gfn", init_control::CONTROL_GFN),
                ("offset", init_control::OFFSET),
                ("vcpu", init_control::VCPU),
                ("link_bits", init_control::LINK_BITS),
            ],
        ),
        (
            "expand_array",
            expand_array::SIZE,
            &[("array_gfn", expand_array::ARRAY_GFN)],
        ),
        (
            "set_priority",
            set_priority::SIZE,
            &[("port", set_priority::PORT), ("priority", set_priority::PRIORITY)],
        ),
        (
            "fifo_control_block",
            fifo::control_block::SIZE as usize,
            &[
                ("ready", fifo::control_block::READY as usize),
                ("head", fifo::control_block::HEAD as usize),
            ],
        ),
    ];
    let mut all = Vec::new();
    for (name, size, fields) in structs {
        all.push((format!("sizeof evtchn_{name}"), size as i64));
        for (field, offset) in fields {
            all.push((format!("offsetof evtchn_{name} {field}"), *offset as i64));
        }
    }
    all.extend(
        [
            ("shared_info evtchn_pending", shared_info::EVTCHN_PENDING),
            ("shared_info evtchn_mask", shared_info::evtchn_mask(is_32bit)),
            (
                "vcpu_info evtchn_pending_sel",
                shared_info::evtchn_pending_sel(is_32bit),
            ),
        ]
        .map(|(name, offset)| (format!("offsetof {name}"), offset as i64)),
    );
    all
}

fn layouts(is_32bit: bool, golden: &HashMap<String, i64>) -> Vec<(String, i64)> {
    // The compiler knows offsets within one structure.
    let cr2 = golden["offsetof vcpu_info arch"] + golden["offsetof arch_vcpu_info cr2"];
    assert_eq!(vcpu_info::arch_cr2(is_32bit) as i64, cr2);
    let mut all = vec![
        ("sizeof vcpu_info", vcpu_info::SIZE as i64),
        (
            "offsetof vcpu_info evtchn_upcall_pending",
            vcpu_info::EVTCHN_UPCALL_PENDING as i64,
        ),
        (
            "offsetof vcpu_info evtchn_upcall_mask",
            vcpu_info::EVTCHN_UPCALL_MASK as i64,
        ),
        (
            "sizeof vcpu_set_singleshot_timer",
            vcpu_set_singleshot_timer::size(is_32bit) as i64,
        ),
        (
            "offsetof vcpu_set_singleshot_timer timeout_abs_ns",
            vcpu_set_singleshot_timer::TIMEOUT_ABS_NS as i64,
        ),
        ("sizeof mmu_update", mmu_update::SIZE as i64),
        ("offsetof mmu_update ptr", mmu_update::PTR as i64),
        ("offsetof mmu_update val", mmu_update::VAL as i64),
        ("sizeof mmuext_op", mmuext_op::size(is_32bit) as i64),
        ("offsetof mmuext_op cmd", mmuext_op::CMD as i64),
        ("offsetof mmuext_op arg1", mmuext_op::arg1(is_32bit) as i64),
        ("offsetof mmuext_op arg2", mmuext_op::arg2(is_32bit) as i64),
    ];
    let words = |n: u64| (n * multicall_entry::word(is_32bit)) as i64;
    all.extend([
        ("sizeof multicall_entry", words(multicall_entry::WORDS)),
        ("offsetof multicall_entry op", words(multicall_entry::OP)),
        ("offsetof multicall_entry result", words(multicall_entry::RESULT)),
        ("offsetof multicall_entry args", words(multicall_entry::ARGS)),
    ]);
    all.extend(grant_layouts(is_32bit));
    let block = if is_32bit { blkif::X86_32 } else { blkif::X86_64 };
    all.extend([
        ("sizeof blkif_request", block.entry as i64),
        ("offsetof blkif_request operation", blkif::OPERATION as i64),
        ("offsetof blkif_request nr_segments", blkif::SECOND_BYTE as i64),
        ("offsetof blkif_request id", block.id as i64),
        ("offsetof blkif_request sector_number", block.sector_number as i64),
        ("offsetof blkif_request seg", block.seg as i64),
        ("offsetof blkif_request_discard flag", blkif::SECOND_BYTE as i64),
        ("offsetof blkif_request_discard id", block.id as i64),
        (
            "offsetof blkif_request_discard sector_number",
            block.sector_number as i64,
        ),
        (
            "offsetof blkif_request_discard nr_sectors",
            block.nr_sectors as i64,
        ),
        (
            "offsetof blkif_request_indirect indirect_op",
            blkif::SECOND_BYTE as i64,
        ),
        (
            "offsetof blkif_request_indirect nr_segments",
            blkif::INDIRECT_NR_SEGMENTS as i64,
        ),
        ("offsetof blkif_request_indirect id", block.id as i64),
        (
            "offsetof blkif_request_indirect sector_number",
            block.sector_number as i64,
        ),
        (
            "offsetof blkif_request_indirect indirect_grefs",
            block.indirect_grefs as i64,
        ),
        ("sizeof blkif_request_segment", blkif::segment::SIZE as i64),
        ("offsetof blkif_request_segment gref", blkif::segment::GREF as i64),
        (
            "offsetof blkif_request_segment first_sect",
            blkif::segment::FIRST_SECT as i64,
        ),
        (
            "offsetof blkif_request_segment last_sect",
            blkif::segment::LAST_SECT as i64,
        ),
        ("sizeof blkif_response", block.response as i64),
        ("offsetof blkif_response id", 0),
        (
            "offsetof blkif_response operation",
            blkif::RESPONSE_OPERATION as i64,
        ),
        ("offsetof blkif_response status", blkif::RESPONSE_STATUS as i64),
    ]);
    all.extend([
        ("sizeof netif_tx_request", netif::tx_request::SIZE as i64),
        ("offsetof netif_tx_request gref", netif::tx_request::GREF as i64),
        (
            "offsetof netif_tx_request offset",
            netif::tx_request::OFFSET as i64,
        ),
        ("offsetof netif_tx_request flags", netif::tx_request::FLAGS as i64),
        ("offsetof netif_tx_request id", netif::tx_request::ID as i64),
        ("offsetof netif_tx_request size", netif::tx_request::LENGTH as i64),
        ("sizeof netif_tx_response", netif::tx_response::SIZE as i64),
        ("offsetof netif_tx_response id", netif::tx_response::ID as i64),
        (
            "offsetof netif_tx_response status",
            netif::tx_response::STATUS as i64,
        ),
        ("sizeof netif_rx_request", netif::rx_request::SIZE as i64),
        ("offsetof netif_rx_request id", netif::rx_request::ID as i64),
        ("offsetof netif_rx_request gref", netif::rx_request::GREF as i64),
        ("sizeof netif_rx_response", netif::rx_response::SIZE as i64),
        ("offsetof netif_rx_response id", netif::rx_response::ID as i64),
        (
            "offsetof netif_rx_response offset",
            netif::rx_response::OFFSET as i64,
        ),
        (
            "offsetof netif_rx_response flags",
            netif::rx_response::FLAGS as i64,
        ),
        (
            "offsetof netif_rx_response status",
            netif::rx_response::STATUS as i64,
        ),
        ("sizeof netif_extra_info", netif::extra_info::SIZE as i64),
        ("offsetof netif_extra_info type", netif::extra_info::TYPE as i64),
        ("offsetof netif_extra_info flags", netif::extra_info::FLAGS as i64),
        ("offsetof netif_extra_info u", netif::extra_info::GSO_SIZE as i64),
        (
            "offsetof netif_extra_info u",
            netif::extra_info::MCAST_ADDR as i64,
        ),
        (
            "offsetof netif_extra_info_gso type",
            (netif::extra_info::GSO_TYPE - netif::extra_info::GSO_SIZE) as i64,
        ),
    ]);
    all.extend([
        (
            "offsetof xen_9pfs_data_intf in_cons",
            p9::data_intf::IN_CONS as i64,
        ),
        (
            "offsetof xen_9pfs_data_intf in_prod",
            p9::data_intf::IN_PROD as i64,
        ),
        (
            "offsetof xen_9pfs_data_intf out_cons",
            p9::data_intf::OUT_CONS as i64,
        ),
        (
            "offsetof xen_9pfs_data_intf out_prod",
            p9::data_intf::OUT_PROD as i64,
        ),
        (
            "offsetof xen_9pfs_data_intf ring_order",
            p9::data_intf::RING_ORDER as i64,
        ),
        ("sizeof xen_9pfs_data_intf", p9::data_intf::REF as i64),
    ]);
    if !is_32bit {
        all.push(("sizeof iret_context", iret_context::SIZE as i64));
    }
    let all = all.into_iter().map(|(name, value)| (name.to_owned(), value));
    all.chain(event_layouts(is_32bit)).collect()
}

#[test]
fn numbers_and_layouts_are_those_of_the_headers() {
    for (width, numbers) in [("64", numbers()), ("32", numbers_of_32_bit_guests())] {
        let golden = golden(width);
        let ours = numbers.into_iter().chain(layouts(width == "32", &golden));
        let wrong: Vec<_> = ours
            .filter(|(name, value)| golden.get(name) != Some(value))
            .map(|(name, value)| format!("{name}: here {value}, there {:?}", golden.get(&name)))
            .collect();
        assert!(wrong.is_empty(), "{width}: {wrong:#?}");
    }
}
