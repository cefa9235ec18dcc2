"""domctl.h, sysctl.h, platform.h: the control interfaces, as far as an unprivileged domain meets them."""

XEN_DOMCTL_INTERFACE_VERSION = 0x00000015
XEN_SYSCTL_INTERFACE_VERSION = 0x00000015
XENPF_INTERFACE_VERSION = 0x03000001
