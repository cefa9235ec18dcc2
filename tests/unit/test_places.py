# SPDX-License-Identifier: Apache-2.0
"""Which files of the host somebody other than its owner may name, and for what."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from domzero.dom0.actors import PermissionDenied
from domzero.dom0.database import Database
from domzero.dom0.hostfiles import HostFile, Use
from domzero.dom0.places import check_files


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    store = tmp_path / "store"
    store.mkdir()
    return store


@pytest.fixture
def database(store: Path) -> Iterator[Database]:
    with closing(Database()) as database:
        with database.write() as cursor:
            cursor.execute(
                "INSERT INTO storage (uuid, name, path, description, labels, created_at) "
                "VALUES ('u', 's', ?, '', '{}', 0)",
                (str(store),),
            )
        yield database


def refused(database: Database, *files: HostFile, theirs: list[HostFile] | None = None) -> bool:
    try:
        check_files(files, database, theirs)
    except PermissionDenied:
        return True
    return False


def disk(path: Path, form: str = "raw", *, writable: bool = True) -> HostFile:
    return HostFile(str(path), Use.DISK, writable, form)


def test_a_disk_of_a_storage_has_the_format_of_its_name(store: Path, database: Database) -> None:
    """A guest that has it as raw could write a header that names another file of the owner's."""
    assert not refused(
        database, disk(store / "a.raw"), disk(store / "b.qcow2", "qcow2"), disk(store / "c.vmdk", "vmdk")
    )
    assert refused(database, disk(store / "a.raw", "qcow2"))
    assert refused(database, disk(store / "b.qcow2"))
    (store / "b.raw").symlink_to(store / "b.qcow2")
    assert refused(database, disk(store / "b.raw"))


def test_no_guest_gets_the_directory_of_a_storage(store: Path, database: Database) -> None:
    for use in (Use.SHARE, Use.SOCKET):
        assert refused(database, HostFile(str(store), use))
        assert refused(database, HostFile(str(store / "a"), use))


def test_what_was_fetched_is_read_by_everybody_and_written_by_none(tmp_path: Path, database: Database) -> None:
    nothing: list[HostFile] = []
    places = tmp_path / "cache/domzero/images/debian/vmlinuz", tmp_path / "data/domzero/kernels/mine/ramdisk"
    for kernel, theirs in itertools.product(places, (None, nothing)):
        assert not refused(database, HostFile(str(kernel), Use.BOOT), disk(kernel, writable=False), theirs=theirs)
        assert refused(database, disk(kernel), theirs=theirs)
        assert refused(database, disk(kernel, "qcow2", writable=False), theirs=theirs)
        assert refused(database, HostFile(str(kernel.parent), Use.SHARE), theirs=theirs)


def test_who_sees_some_domains_alone_uses_their_files_for_no_more_than_they_do(
    tmp_path: Path, store: Path, database: Database
) -> None:
    kernel, data, shared = HostFile("/boot/k", Use.BOOT), disk(store / "a.raw", writable=False), tmp_path / "shared"
    theirs = [kernel, data, HostFile(str(shared), Use.SHARE)]
    assert not refused(database, *theirs, HostFile(str(shared / "below"), Use.SHARE), theirs=theirs)
    assert refused(database, disk(Path("/boot/k")), theirs=theirs)
    assert refused(database, disk(store / "a.raw"), theirs=theirs)
    assert refused(database, disk(store / "b.raw", writable=False), theirs=theirs)
    assert refused(database, HostFile(str(shared), Use.SHARE, writable=True), theirs=theirs)
    assert refused(database, disk(shared / "file"), theirs=theirs)
