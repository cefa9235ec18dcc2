# SPDX-License-Identifier: Apache-2.0
"""Fixtures on the fake machine."""

from collections.abc import Iterator
from typing import Any

import fakes
import pytest


@pytest.fixture
def host() -> Iterator[Any]:
    host = fakes.make_host()
    with host.lock:
        yield host
        host.close()


@pytest.fixture
def domain(host: Any) -> Any:
    return fakes.make_domain(host, vcpus=2)


@pytest.fixture
def vcpu(domain: Any) -> Any:
    return domain.vcpus[0]
