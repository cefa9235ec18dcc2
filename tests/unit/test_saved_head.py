# SPDX-License-Identifier: Apache-2.0
"""What Domain 0 has written of a domain into its file is what it reads there, or the file is no more believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("domzero._machine", reason="the machine is not built", exc_type=ImportError)

from domzero.dom0.config import DomainConfig
from domzero.dom0.records import Record
from domzero.dom0.save_format import begin
from domzero.dom0.saving import _description, check_head
from domzero.hypervisor.saved import RestoreError


def test_a_worker_cannot_put_another_disk_into_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.save"
    config = DomainConfig(kernel="/k", name="a", memory_mib=32, disks=["/images/a.img,raw,xvda"], vifs=[])
    description = _description(Record(config), None)
    with path.open("wb") as file:
        begin(file.fileno(), description)
    check_head(str(path), description)
    theirs = _description(Record(replace(config, disks=["/home/somebody/secret,raw,xvda"])), None)
    with path.open("wb") as file:
        begin(file.fileno(), {**theirs, "saved_at": description["saved_at"]})
    with pytest.raises(RestoreError, match="its worker has changed it"):
        check_head(str(path), description)
    path.write_bytes(b"")
    with pytest.raises(RestoreError, match="cut off"):
        check_head(str(path), description)
