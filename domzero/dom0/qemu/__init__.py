# SPDX-License-Identifier: Apache-2.0
"""Domains whose processor and devices are QEMU's (`type="hvm"`, `type="pvh"`): one QEMU for each start of a domain."""
