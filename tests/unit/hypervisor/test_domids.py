# SPDX-License-Identifier: Apache-2.0
"""Which domain a domid means, and to whom."""

from collections.abc import Callable

import pytest

from domzero.abi.xen import DOMID_IO, DOMID_SELF, DOMID_XEN
from domzero.hypervisor.domids import Domids
from domzero.hypervisor.errors import GrantError, XenError

OWN, OTHER, ZERO, NOBODY = 3, 4, 0, 9
NAMES = {"own": OWN, "self": DOMID_SELF, "other": OTHER, "zero": ZERO, "io": DOMID_IO, "xen": DOMID_XEN, "none": NOBODY}


@pytest.fixture
def domids() -> Domids[str]:
    return Domids("me", OWN, {OWN: "me", OTHER: "them"})


def answer(call: Callable[[], object]) -> object:
    try:
        return call()
    except XenError as error:
        return error.errno.name
    except GrantError as error:
        return error.status.name.removeprefix("GNTST_")


E, P = "ESRCH", "EPERM"
BAD, DENIED = "bad_domain", "permission_denied"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("exists", (True, False, True, True, False, False, False)),
        ("is_own", (True, True, False, False, False, False, False)),
        ("check_any", (None, None, None, None, E, E, E)),
        ("check_own", (None, None, P, P, E, E, E)),
        ("check_remote", (P, E, None, None, E, E, E)),
        ("own_table", ("me", "me", DENIED, DENIED, BAD, BAD, BAD)),
    ],
)
def test_every_rule_for_every_kind_of_number(domids: Domids[str], rule: str, expected: tuple[object, ...]) -> None:
    got = {name: answer(lambda d=domid: getattr(domids, rule)(d)) for name, domid in NAMES.items()}  # type: ignore[misc]
    assert got == dict(zip(NAMES, expected, strict=True))
