# SPDX-License-Identifier: Apache-2.0
"""Specifications of shared directories: what xl.cfg(5) says, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from domzero import _machine
from domzero.dom0 import xlcfg
from domzero.dom0.backends.p9 import use_share
from domzero.dom0.open_files import open_share
from domzero.dom0.sharespec import SHARES_MAX, ShareSpec, parse_share, parse_shares
from domzero.errors import ConfigError, ConfigErrors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tag=share,path=/dir", ShareSpec(0, "share", "/dir")),
        ("tag=share_dir,path=/dir,security_model=none", ShareSpec(0, "share_dir", "/dir")),
        ("path=relative/dir, tag=/dev/root , writable", ShareSpec(0, "/dev/root", "relative/dir", writable=True)),
        ("tag=a,path=/a=b,tag=a,", ShareSpec(0, "a", "/a=b")),
    ],
)
def test_a_specification_is_understood(text: str, expected: ShareSpec) -> None:
    assert parse_share(text) == expected
    assert parse_share(expected.text("/x")) == ShareSpec(0, expected.tag, "/x", expected.writable)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no tag"),
        ("tag=share", "there is no path"),
        ("path=/dir", "there is no tag"),
        ("tag=share,path=", "there is no path"),
        ("tag=two words,path=/dir", "no tag"),
        ("tag=" + "t" * 32 + ",path=/dir", "no tag"),
        ("tag=share,path=/dir,path=/other", "path is given twice"),
        ("tag=share,path=/dir,security_model=mapped", "security_model=mapped is not supported"),
        ("tag=share,path=/dir,security_model=passthrough", "security_model=passthrough is not supported"),
        ("tag=share,path=/dir,security_model=all", "no such security_model"),
        ("tag=share,path=/dir,backend=files", "backend is not supported"),
        ("tag=share,path=/dir,type=xen_9pfsd", "type is not supported"),
        ("tag=share,path=/dir,rw", "what is 'rw'"),
        ("tag=share,path=/di\0r", "without NUL"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse_share(text)
    assert caught.value.key == "p9"


def test_two_shares_have_two_tags_and_there_is_an_end_to_their_number() -> None:
    found = list(parse_shares(["tag=a,path=/a", "tag=b,path=/a", "tag=a,path=/c"]))
    assert [type(each) for each in found] == [ShareSpec, ShareSpec, ConfigError]
    assert [each.devid for each in found[:2] if isinstance(each, ShareSpec)] == [0, 1]
    (error,) = parse_shares(["tag=a,path=/a"] * (SHARES_MAX + 1))
    assert isinstance(error, ConfigError)


def test_a_file_of_xls_has_them_under_p9() -> None:
    text = 'name="g"\nkernel="/k"\np9 = ["tag=share,path=/dir,security_model=none"]\n'
    assert xlcfg.load(text).config.share_specs == [ShareSpec(0, "share", "/dir")]
    with pytest.raises(ConfigErrors) as caught:
        xlcfg.load(text.replace("none", "mapped"))
    assert [error.key for error in caught.value.errors] == ["p9"]


def test_only_a_directory_can_be_shared(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    for name, why in (("none", "No such file"), ("file", "Not a directory"), ("fifo", "Not a directory")):
        with pytest.raises(ConfigError, match=why):
            open_share(ShareSpec(0, "tag", str(tmp_path / name)))
    (tmp_path / "link").symlink_to(tmp_path)  # the user's own choice
    spec = ShareSpec(0, "tag", str(tmp_path / "link"))
    share = use_share(spec, open_share(spec))
    assert share.counts.requests == 0
    share.close()
    with pytest.raises(OSError, match="Not a directory"):
        _machine.Share(os.open(tmp_path / "file", os.O_RDONLY), writable=False)
