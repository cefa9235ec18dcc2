"""Xen's public ABI, declared once: structures, numbers, flags, errno. No logic."""
