/*
 * How a domain finds itself at its first instruction, and what Xen says of itself.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core.h"

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

void probe_state(void)
{
    static const char *const names[] = {"flags", "cs", "ss", "ds", "es", "fs", "gs", "ax", "bx", "cx", "dx"};
    ulong end = (ulong)info->pt_base + info->nr_pt_frames * PAGE;
    for (int i = 0; i < 11; i++)
        say("entry %s = %lx\n", names[i], first_regs[i + 1]);
    say("entry di = %lx\n", first_regs[13]);
    say("entry bp = %lx\n", first_regs[14]);
    say("entry si is start_info = %ld\n", (long)(first_regs[12] == (ulong)info));
    say("entry sp mod 4096 = %ld\n", (long)(first_regs[0] % PAGE));
    say("entry sp pages after page tables = %ld\n", (long)((first_regs[0] - end) / PAGE));
    say("start_info magic is xen-3.0-x86 = %ld\n", (long)same(info->magic, WIDTH == 64 ? "xen-3.0-x86_64" : "xen-3.0-x86_32p"));
    say("start_info magic = %s\n", info->magic);
    say("start_info flags = %lx\n", (ulong)info->flags);
    say("start_info mod_start = %lx\n", info->mod_start);
    say("start_info mod_len = %lx\n", info->mod_len);
    say("start_info first_p2m_pfn = %lx\n", info->first_p2m_pfn);
    say("start_info nr_p2m_frames = %ld\n", (long)info->nr_p2m_frames);
    say("start_info nr_pages = %ld\n", (long)info->nr_pages);
    say("start_info nr_pt_frames = %ld\n", (long)info->nr_pt_frames);
    say("start_info console port = %ld\n", (long)info->console.domU.evtchn);
    say("start_info store port = %ld\n", (long)info->store_evtchn);
    say("start_info shared_info is page aligned = %ld\n", (long)(info->shared_info % PAGE == 0));
    say("start_info itself mod 4096 = %ld\n", (long)((ulong)info % PAGE));
    say("layout: p2m list, start_info, tables, in order = %ld\n",
        (long)(info->mfn_list < (ulong)info && (ulong)info < info->pt_base));
    say("layout: start_info pages before tables = %ld\n", (long)((info->pt_base - (ulong)info) / PAGE));
    say("shared_info upcall mask = %ld\n", (long)shared->vcpu_info[0].evtchn_upcall_mask);
    say("shared_info upcall pending = %ld\n", (long)shared->vcpu_info[0].evtchn_upcall_pending);
    say("shared_info vcpu 1 upcall mask = %ld\n", (long)shared->vcpu_info[1].evtchn_upcall_mask);
    say("shared_info vcpu 31 upcall mask = %ld\n", (long)shared->vcpu_info[31].evtchn_upcall_mask);
    say("shared_info pending words zero = %ld\n",
        (long)!(shared->evtchn_pending[1] | shared->evtchn_pending[2] | shared->evtchn_pending[7]));
    say("shared_info mask of port 0 = %lx\n", (ulong)shared->evtchn_mask[0]);
    say("shared_info mask last word = %lx\n", (ulong)shared->evtchn_mask[sizeof(ulong) * 8 - 1]);
    say("shared_info wc_sec set = %ld\n", (long)(shared->wc_sec != 0));
    say("shared_info wc_version odd = %ld\n", (long)(shared->wc_version & 1));
    say("shared_info max_pfn = %ld\n", (long)shared->arch.max_pfn);
    say("shared_info nmi_reason = %ld\n", (long)shared->arch.nmi_reason);
    say("vcpu_time flags = %ld\n", (long)(shared->vcpu_info[0].time.flags & ~XEN_PVCLOCK_TSC_STABLE_BIT));
    say("vcpu_time version odd = %ld\n", (long)(shared->vcpu_info[0].time.version & 1));
    say("vcpu_time vcpu 1 version = %ld\n", (long)shared->vcpu_info[1].time.version);
    say("xen_version version = %lx\n", (ulong)HC2(xen_version, XENVER_version, 0));
    zeroed();
    say("xen_version extraversion rc ");
    rc_sign(HC2(xen_version, XENVER_extraversion, buf));
    zeroed();
    say("xen_version capabilities rc ");
    rc_sign(HC2(xen_version, XENVER_capabilities, buf));
    say("capabilities = %s\n", buf);
    zeroed();
    HC2(xen_version, XENVER_platform_parameters, buf);
    say("platform_parameters virt_start = %lx\n", *(ulong *)buf);
    for (u32 i = 0; i < 4; i++) {
        struct xen_feature_info features = {.submap_idx = i};
        say("features %ld ", (long)i);
        rc_text(HC2(xen_version, XENVER_get_features, &features));
        say("features %ld submap = %lx\n", (long)i, (ulong)features.submap);
    }
    say("xen_version pagesize = %ld\n", HC2(xen_version, XENVER_pagesize, 0));
    zeroed();
    HC2(xen_version, XENVER_guest_handle, buf);
    say("guest_handle first word zero = %ld\n", (long)(*(u32 *)buf == 0));
    zeroed();
    say("changeset denied text = %s\n", HC2(xen_version, XENVER_changeset, buf) == 0 && buf[0] == '<' ? buf : "(open)");
    zeroed();
    say("commandline text = %s\n", HC2(xen_version, XENVER_commandline, buf) == 0 && buf[0] == '<' ? buf : "(open)");
    zeroed();
    say("build_id ");
    rc_sign(HC2(xen_version, XENVER_build_id, buf));
    say("build_id null ");
    rc_sign(HC2(xen_version, XENVER_build_id, 0));
    say("max gpfn is nr_pages-1 = %ld\n", (long)(HC2(memory_op, XENMEM_maximum_gpfn, &(domid_t){DOMID_SELF}) == (long)info->nr_pages - 1));
    say("maximum_gpfn ");
    rc_text(HC2(memory_op, XENMEM_maximum_gpfn, &(domid_t){DOMID_SELF}));
    say("current_reservation minus nr_pages = %ld\n",
        HC2(memory_op, XENMEM_current_reservation, &(domid_t){DOMID_SELF}) - (long)info->nr_pages);
    say("maximum_reservation minus nr_pages = %ld\n",
        HC2(memory_op, XENMEM_maximum_reservation, &(domid_t){DOMID_SELF}) - (long)info->nr_pages);
    struct xen_machphys_mapping mapping;
    rc_text(HC2(memory_op, XENMEM_machphys_mapping, &mapping));
    say("machphys_mapping v_start = %lx\n", (ulong)mapping.v_start);
    say("machphys_mapping v_end = %lx\n", (ulong)mapping.v_end);
    /* page-table bits as the builder leaves them */
    const u64 *top = (const u64 *)info->pt_base;
    for (int i = 0; i < (WIDTH == 64 ? 512 : 4); i++)
        if (top[i] & 1 && (WIDTH == 32 || i > 271))
            say("top table slot %ld bits = %lx\n", (long)i, (ulong)(top[i] & 0xfff));
#ifdef __x86_64__
    for (int i = 256; i < 272; i++)
        if (top[i] & 1)
            say("xen slot %ld bits = %lx\n", (long)i, (ulong)(top[i] & 0xfff));
#endif
}
