# SPDX-License-Identifier: Apache-2.0
"""io/xenbus.h: the states through which the two ends of a device come together."""

from enum import IntEnum


class XenbusState(IntEnum):
    """`enum xenbus_state`: the value of a node `state`."""

    XenbusStateUnknown = 0
    XenbusStateInitialising = 1
    XenbusStateInitWait = 2
    """The back end has said what it can do, and waits for the front end."""
    XenbusStateInitialised = 3
    """The front end has given its rings, and waits for the back end."""
    XenbusStateConnected = 4
    XenbusStateClosing = 5
    XenbusStateClosed = 6
    XenbusStateReconfiguring = 7
    XenbusStateReconfigured = 8
