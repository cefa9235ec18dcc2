# SPDX-License-Identifier: Apache-2.0
"""How much of xenstore one client may have."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(slots=True)
class Quotas:
    """What one unprivileged domain may have; 0 means no limit.

    :param depth: components of the path of a node that it creates; Xen's own nodes have up to a dozen.
    """

    nodes: int = 1000
    depth: int = 64
    watches: int = 128
    transactions: int = 10
    transaction_operations: int = 1024
    node_size: int = 2048
    perms: int = 5
    queued_events: int = 1024

    def of_worker(self) -> Quotas:
        """What a domain's worker may have as its toolstack: its guest can make it ask for things."""
        return replace(NO_LIMIT, watches=self.watches, transactions=self.transactions)


NO_LIMIT = Quotas(0, 0, 0, 0, 0, 0, 0, queued_events=1024)
"""Of Domain 0's own code."""
TOOL = Quotas(
    nodes=200_000,
    depth=0,
    watches=8192,
    transactions=64,
    transaction_operations=100_000,
    node_size=0,
    perms=0,
    queued_events=16_384,
)
"""What a tool on the Unix socket may have, which is Domain 0 itself; the nodes are all that there are in the store."""
