"""Xenstore: the tree through which domains and Domain 0 configure each other.

`Store` is the database, `Connection` one client over the wire protocol without I/O, `RingBackend` a domain's ring.
"""

from domzero.dom0.xenstore.connection import Connection
from domzero.dom0.xenstore.ring import RingBackend, Transport
from domzero.dom0.xenstore.store import LocalWatch, Quotas, Store
from domzero.dom0.xenstore.wire import Op, RingError, XenstoreError

__all__ = [
    "Connection",
    "LocalWatch",
    "Op",
    "Quotas",
    "RingBackend",
    "RingError",
    "Store",
    "Transport",
    "XenstoreError",
]
