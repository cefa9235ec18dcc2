# SPDX-License-Identifier: Apache-2.0
"""Xen's public ABI, declared once: structures, numbers, flags, errno. No logic."""
