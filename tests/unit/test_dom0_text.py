# SPDX-License-Identifier: Apache-2.0
"""Text formats, amounts, and what Domain 0 and its workers exchange."""

import os
import re
import socket
from pathlib import Path

import pytest
from runtime_dir import short_runtime_directory

from domzero.cli.text import duration, list_row, list_table, memory_kib, state_flags
from domzero.dom0 import json_values, messages
from domzero.dom0.config import Action, DomainConfig
from domzero.dom0.message_set import Refused
from domzero.dom0.paths import SOCKET_PATH_MAX, candidates, existing_socket, socket_for_serving, xenstore_sockets
from domzero.dom0.records import DomainLog
from domzero.dom0.socket_frames import FrameDecoder, FrameError, encode_frame
from domzero.errors import ConfigError, DomzeroError, ImageError


@pytest.mark.parametrize(
    ("state", "reason", "flags"),
    [
        ("running", None, "r-----"),
        ("blocked", None, "-b----"),
        ("paused", None, "--p---"),
        ("shutdown", "poweroff", "---s--"),
        ("shutdown", "reboot", "---sr-"),
        ("shutdown", "suspend", "---ss-"),
        ("crashed", "crash", "---sc-"),
        ("crashed", "watchdog", "---sw-"),
        ("destroyed", "destroyed", "-----d"),
        ("running", "reboot", "r-----"),
    ],
)
def test_states_are_xls_letters(state: str, reason: str | None, flags: str) -> None:
    assert state_flags({"state": state, "exit": {"reason": reason} if reason else None}) == flags


def test_a_row_of_list_is_xls() -> None:
    row = list_row("Domain-0", 0, 750, 4, "r-----", 11794.3)
    assert row == "Domain-0                                     0   750     4     r-----   11794.3"


def test_the_first_column_of_list_is_xls_or_as_wide_as_the_longest_name() -> None:
    domain = {
        "domid": 7,
        "current_memory_mib": 64,
        "vcpus": 1,
        "state": "running",
        "exit": None,
        "cpu_time_seconds": 1.5,
    }
    header, row = list_table([{**domain, "name": "short"}], None).splitlines()
    assert header == "Name                                        ID   Mem VCPUs\tState\tTime(s)"
    assert row == "short                                        7    64     1     r-----       1.5"
    header, short, wide = list_table([{**domain, "name": "short"}, {**domain, "name": "客" * 30}], None).splitlines()
    assert header.index("ID") == 64
    assert short.index("    7    64") == wide.index("    7    64") + 30 == 61


@pytest.mark.parametrize(
    ("text", "kib"),
    [("2048", 2048), ("2g", 2 << 20), ("512m", 512 << 10), ("7k", 7), ("4096b", 4), ("1T", 1 << 30), ("", None)]
    + [(bad, None) for bad in ("x", "1.5g", "-1", "m", "1mm", "²")],
)
def test_amounts_of_memory_are_xls(text: str, kib: int | None) -> None:
    assert memory_kib(text) == kib


@pytest.mark.parametrize(("seconds", "text"), [(5, " 0:00:05"), (3661, " 1:01:01"), (90061, "1 day,  1:01:01")])
def test_uptimes_are_xls(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_configuration_survives_its_way_to_a_worker() -> None:
    config = DomainConfig(kernel="/k", name="n", on_crash=Action.PRESERVE, seed=7, cmdline="ü")
    start = messages.Start(7, config)
    assert messages.decode(messages.encode(start, 5)) == (start, 5)


@pytest.mark.parametrize("kind", [ConfigError, ImageError, DomzeroError])
def test_an_error_survives_its_way_from_a_worker(kind: type[DomzeroError]) -> None:
    message, _ = messages.decode(messages.encode(Refused.of(kind("what", key="k", hint="h"))))
    assert isinstance(message, Refused)
    error = message.error()
    assert type(error) is kind
    assert (error.message, error.key, error.hint) == ("what", "k", "h")


def test_an_error_of_a_kind_that_the_other_process_does_not_know_arrives_as_the_nearest_that_it_does() -> None:
    class Special(ImageError):
        pass

    assert type(Refused.of(Special("x")).error()) is ImageError


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\xff", "not JSON"),
        (b"[1]", "not an object"),
        (b'{"type": "Pause", "id": 1}', "not an object of type, id and body"),
        (b'{"type": "Nonsense", "id": 1, "body": {}}', "no such message: 'Nonsense'"),
        (b'{"type": ["Pause"], "id": 1, "body": {}}', "no such message"),
        (b'{"type": "Pause", "id": "1", "body": {}}', "id: not a int"),
        (b'{"type": "Pause", "id": 1, "body": {"x": 1}}', "Pause: no such field: 'x'"),
        (b'{"type": "LogLine", "id": 0, "body": {}}', "LogLine: a field is missing"),
        (b'{"type": "LogLine", "id": 0, "body": {"line": 7}}', "LogLine.line: not a str: 7"),
        (b'{"type": "InputTaken", "id": 0, "body": {"count": true}}', "InputTaken.count: not a int"),
        (b'{"type": "Stats", "id": 0, "body": {"state": "odd", "cpu_ns": 1}}', "Stats.state: not a DomainState"),
        (b'{"type": "Audited", "id": 0, "body": {"problems": "x"}}', "Audited.problems: not a list"),
        (b'{"type": "Start", "id": 0, "body": {"domid": 1, "config": {"uuid": "x"}}}', "Start.config.uuid: not a UUID"),
    ],
)
def test_what_is_no_message_is_refused_with_what_is_wrong(payload: bytes, says: str) -> None:
    with pytest.raises(json_values.MessageError, match=re.escape(says)):
        messages.decode(payload)


def test_frames_are_cut_from_any_chunks_and_absurd_ones_are_refused() -> None:
    stream = encode_frame(0, b"abc") + encode_frame(1) + encode_frame(2, b"x" * 70000)
    decoder = FrameDecoder()
    frames = [frame for start in range(0, len(stream), 999) for frame in decoder.feed(stream[start : start + 999])]
    assert frames == [(0, b"abc"), (1, b""), (2, b"x" * 70000)]
    with pytest.raises(FrameError):
        decoder.feed(b"\0\xff\xff\xff\xff")


def test_the_log_keeps_the_last_lines_within_bounds() -> None:
    log = DomainLog(limit=10)
    for n in range(100):
        log.add(f"{n} " + "x" * 5000)
    assert [line.split()[0] for line in log.lines()] == [str(n) for n in range(90, 100)]
    assert all(len(line) <= 1000 for line in log.lines())


def test_a_socket_that_another_user_made_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make another user's socket")
    for name in ("DOMZERO_SOCKET", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "domzero").mkdir()
    path = tmp_path / "domzero" / "domzero.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert existing_socket() == path
        os.chown(path, 65534, -1)
        with pytest.raises(ConfigError, match="another user's"):
            existing_socket()
        monkeypatch.setenv("DOMZERO_SOCKET", str(path))
        assert existing_socket() == path


def test_the_socket_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOMZERO_SOCKET", raising=False)
    with short_runtime_directory() as directory:  # a path that is too long is no place
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory / "run"))
        monkeypatch.setenv("HOME", str(directory / "home"))
        assert candidates()[0] == directory / "run" / "domzero" / "domzero.sock"
        assert socket_for_serving(None) == candidates()[0]
        assert (directory / "run" / "domzero").stat().st_mode & 0o777 == 0o700
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert socket_for_serving(None) == directory / "home" / ".local" / "state" / "domzero" / "domzero.sock"
        monkeypatch.setenv("DOMZERO_SOCKET", str(directory / "mine"))
        assert candidates() == [directory / "mine"]


def test_xenstores_socket_is_where_libxenstore_looks_or_beside_domain_0s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = tmp_path / "domzero.sock"
    for name in ("XENSTORED_PATH", "XENSTORED_RUNDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOMZERO_SOCKET", str(own))
    assert xenstore_sockets(None, own) == [tmp_path / "domzero.sock.xenstore"]
    monkeypatch.setenv("XENSTORED_RUNDIR", str(tmp_path))
    assert xenstore_sockets(None, own) == [tmp_path / "socket"]
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "path"))
    assert xenstore_sockets(None, own) == [tmp_path / "path"]
    assert xenstore_sockets(str(tmp_path / "chosen"), own) == [tmp_path / "chosen"]
    for wrong in (tmp_path / "none" / "socket", tmp_path / ("x" * 120)):
        with pytest.raises(ConfigError):
            xenstore_sockets(str(wrong), own)


def test_where_no_path_fits_there_is_no_xenstore_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XENSTORED_PATH", "XENSTORED_RUNDIR"):
        monkeypatch.delenv(name, raising=False)
    longest = tmp_path / ("x" * (SOCKET_PATH_MAX - len(str(tmp_path)) - 1))
    monkeypatch.setenv("DOMZERO_SOCKET", str(longest))
    assert xenstore_sockets(None, socket_for_serving(None)) == []
