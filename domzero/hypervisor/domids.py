# SPDX-License-Identifier: Apache-2.0
"""Which domain a domid means, and to whom: every rule of it.

Xen looks a domain up by its number alone (`exists`): DOMID_SELF is none there. By any name (`check_any`): DOMID_SELF is
the caller. As another one (`check_remote`): the caller's own number is not permitted, and DOMID_SELF is none. Whoever
exists may still be forbidden: an unprivileged domain may act on itself only (`check_own`).

Domain 0 exists, and is host code: it has a number and no `Domain`, no port that waits for a guest, and has granted
nothing. DOMID_IO and DOMID_XEN are owners of frames, not domains; the machine's page-table operations know them
(`page_owner` in crates/machine), every other hypercall answers that there is no such domain. What the machine answers
itself has these rules there: event channels (`DomainEvents::check_own`) and grants.
"""

from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

from domzero.abi.errno import Errno
from domzero.abi.grant_table import GntStatus
from domzero.abi.xen import DOMID_SELF
from domzero.hypervisor.errors import GrantError, XenError

HARDWARE_DOMAIN = 0

D = TypeVar("D", covariant=True)


class Domids(Generic[D]):
    """Domain numbers as one domain means them.

    :param own: that domain.
    :param domid: its number.
    :param domains: all of its host.
    """

    __slots__ = ("_domains", "_domid", "_own")

    def __init__(self, own: D, domid: int, domains: Mapping[int, D]) -> None:
        self._own = own
        self._domid = domid
        self._domains = domains

    def all(self) -> Collection[D]:
        """Every domain of the host but Domain 0."""
        return self._domains.values()

    def exists(self, domid: int) -> bool:
        """Whether there is a domain of this number."""
        return domid == HARDWARE_DOMAIN or domid in self._domains

    def is_own(self, domid: int) -> bool:
        """Whether the caller is meant, by its number or as DOMID_SELF."""
        return domid in (DOMID_SELF, self._domid)

    def check_any(self, domid: int) -> None:
        """The domain must exist; which one does not matter yet.

        :raises XenError: ESRCH.
        """
        if domid != DOMID_SELF and not self.exists(domid):
            raise XenError(Errno.ESRCH, f"domain {domid}")

    def check_own(self, domid: int) -> None:
        """The domain must be the caller: an unprivileged one acts on no other.

        :raises XenError: ESRCH for a domain that does not exist, EPERM for another one.
        """
        self.check_any(domid)
        if not self.is_own(domid):
            raise XenError(Errno.EPERM)

    def check_remote(self, domid: int) -> None:
        """The domain must exist, by its own number, and be another one.

        :raises XenError: EPERM for the caller's number, ESRCH.
        """
        if domid == self._domid:
            raise XenError(Errno.EPERM)
        if not self.exists(domid):
            raise XenError(Errno.ESRCH, f"domain {domid}")

    # --- grants: the answer is a status

    def own_table(self, domid: int) -> D:
        """The domain whose grant table an operation is about: an unprivileged one may look only at its own.

        :raises GrantError: bad_domain, permission_denied.
        """
        try:
            self.check_own(domid)
        except XenError as error:
            unknown = error.errno is Errno.ESRCH
            status = GntStatus.GNTST_bad_domain if unknown else GntStatus.GNTST_permission_denied
            raise GrantError(status) from None
        return self._own
