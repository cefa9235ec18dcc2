# SPDX-License-Identifier: Apache-2.0
"""domctl.h, sysctl.h, platform.h: the control interfaces, as far as an unprivileged domain meets them."""

XEN_DOMCTL_INTERFACE_VERSION = 0x00000015
XEN_SYSCTL_INTERFACE_VERSION = 0x00000015
XENPF_INTERFACE_VERSION = 0x03000001

XEN_DOMCTL_createdomain = 1
XEN_DOMCTL_getdomaininfo = 5
XEN_DOMCTL_shadow_op = 10

XENOPROF_init = 0
XENOPROF_get_buffer = 14
XENOPROF_last_op = 17
