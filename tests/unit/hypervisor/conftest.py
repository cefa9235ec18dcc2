"""Fixtures on the fake machine."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
import fakes


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
