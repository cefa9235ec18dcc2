/* SPDX-License-Identifier: Apache-2.0 */
/* xen_version: every sub-operation. Documented: xen/version.h, xen/features.h. */
#include "guest.h"

void guest(void)
{
    static char buffer[2048] ALIGNED(8);
    struct xen_feature_info features = {.submap_idx = 0};
    struct xen_platform_parameters platform;
    long version = version_op(XENVER_version, NULL);
    CHECK(version >> 16 == 4, "version %lx", version);
    RC(version_op(XENVER_extraversion, buffer), 0, "extraversion");
    CHECK(buffer[0] == '.', "extraversion %s", buffer);
    RC(version_op(XENVER_compile_info, buffer), 0, "compile_info");
    RC(version_op(XENVER_capabilities, buffer), 0, "capabilities");
    CHECK(buffer[0] == 'x' && buffer[4] == '3', "capabilities %s", buffer);
    RC(version_op(XENVER_changeset, buffer), 0, "changeset");
    RC(version_op(XENVER_platform_parameters, &platform), 0, "platform_parameters");
    EQ(platform.virt_start, HYPERVISOR_VIRT_START, "virt_start");
    RC(version_op(XENVER_get_features, &features), 0, "features");
    CHECK(features.submap & 1 << XENFEAT_mmu_pt_update_preserve_ad, "preserve_ad");
    CHECK(features.submap & 1 << XENFEAT_gnttab_map_avail_bits, "gnttab_map_avail_bits");
    EQ(features.submap & 1 << XENFEAT_auto_translated_physmap, 0, "not auto-translated");
    EQ(features.submap & 1 << XENFEAT_dom0, 0, "not dom0");
    features.submap_idx = 1;
    RC(version_op(XENVER_get_features, &features), -EINVAL, "submap 1: there is one");
    features.submap_idx = 1000;
    RC(version_op(XENVER_get_features, &features), -EINVAL, "an absurd submap");
    RC(version_op(XENVER_pagesize, NULL), 4096, "pagesize");
    xen_domain_handle_t handle;
    RC(version_op(XENVER_guest_handle, &handle), 0, "guest_handle");
    long rc = version_op(XENVER_commandline, buffer);
    CHECK(rc == 0 ? same_text(buffer, "<denied>") : rc == -EPERM, "commandline: %ld %s", rc, buffer);
    rc = version_op(XENVER_build_id, NULL);
    CHECK(rc == -EPERM || rc == -61 || rc >= 0, "build_id: %ld", rc);
    RC(version_op(99, buffer), -ENOSYS, "an unknown operation");
    RC(version_op(XENVER_extraversion, (void *)8), -EFAULT, "no room");
    RC(version_op(XENVER_extraversion, NULL), -EFAULT, "a null pointer");
    RC(protect(pool[5], ROP), 0, "read-only");
    RC(version_op(XENVER_extraversion, pool[5]), -EFAULT, "room that cannot be written");
    RC(protect(pool[5], RWP), 0, "writable");
    for (int i = 0; i < 1000; i++)
        if (version_op(XENVER_version, NULL) != version)
            CHECK(0, "the version changes");
}
