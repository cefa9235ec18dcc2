"""Emulation of privileged instructions, CPUID and MSRs."""
