"""Domzero: a Xen-compatible paravirtualizing hypervisor that installs with pip and runs as an ordinary user."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("domzero")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
