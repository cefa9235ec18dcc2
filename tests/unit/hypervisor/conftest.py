# SPDX-License-Identifier: Apache-2.0
"""Fixtures on the fake machine; on the real one for what that does itself."""

from collections.abc import Iterator
from typing import Any

import fakes
import pytest
import real_host

ON_THE_REAL_MACHINE = {"test_grant", "test_grant_v2", "test_audit", "test_evtchn", "test_evtchn_fifo", "test_timers"}


@pytest.fixture
def support(request: pytest.FixtureRequest) -> Any:
    """`fakes` or `real_host`."""
    return real_host if request.module.__name__ in ON_THE_REAL_MACHINE else fakes


@pytest.fixture
def host(support: Any) -> Iterator[Any]:
    host = support.make_host()
    with host.lock:
        yield host
        host.close()


@pytest.fixture
def domain(host: Any, support: Any) -> Any:
    return support.make_domain(host, vcpus=2)


@pytest.fixture
def vcpu(domain: Any) -> Any:
    return domain.vcpus[0]
