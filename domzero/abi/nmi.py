# SPDX-License-Identifier: Apache-2.0
"""nmi.h: nmi_op."""

from enum import IntEnum

from domzero.abi.layout import Wire, ulong, wire


class NmiOp(IntEnum):
    """`XENNMI_*`."""

    XENNMI_register_callback = 0
    XENNMI_unregister_callback = 1


@wire
class xennmi_callback(Wire):
    """XENNMI_register_callback."""

    handler_address: ulong
    pad: ulong
