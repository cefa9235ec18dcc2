# SPDX-License-Identifier: Apache-2.0
"""Emulation of privileged instructions, CPUID and MSRs."""
