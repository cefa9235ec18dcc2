# SPDX-License-Identifier: Apache-2.0
"""A domain's screen, keyboard and pointer: what its guest shows, and who looks (RFB, the protocol of VNC)."""
