# SPDX-License-Identifier: Apache-2.0
"""Xenstore: the tree through which domains and Domain 0 configure each other.

`Store` is the database, `Connection` one client over the wire protocol without I/O, `RingBackend` a domain's ring.
Code that may run in a worker takes a `StoreApi` (`Store` or `RemoteStore`) and gets its guest's connection by
`store.connect(domid)`.
"""

from domzero.dom0.xenstore.connection import Connection
from domzero.dom0.xenstore.quotas import Quotas
from domzero.dom0.xenstore.remote import RemoteStore, StoreApi
from domzero.dom0.xenstore.ring import RingBackend, Transport
from domzero.dom0.xenstore.store import LocalWatch, Store
from domzero.dom0.xenstore.wire import Op, RingError, XenstoreError

__all__ = [
    "Connection",
    "LocalWatch",
    "Op",
    "Quotas",
    "RemoteStore",
    "RingBackend",
    "RingError",
    "Store",
    "StoreApi",
    "Transport",
    "XenstoreError",
]
