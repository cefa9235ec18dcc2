# SPDX-License-Identifier: Apache-2.0
"""TLS over TCP, with a certificate that Domain 0 has made and with one that was given."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from building import ROOT
from dom0_server import Server

from domzero.dom0 import tls
from domzero.errors import ConfigError


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("tls"), "--listen", "127.0.0.1:0", "--tls")
    yield server
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text(), "connections over TLS that were lost"


def url(server: Server) -> str:
    text = server.log.read_text()
    return text[text.index("https://") :].split(" ", 1)[0]


def certificate(server: Server) -> Path:
    return server.socket.with_name("tls-127.0.0.1.cert.pem")


def token(server: Server) -> str:
    return server.socket.with_name(f"tcp-127.0.0.1-{url(server).rpartition(':')[2]}.token").read_text().strip()


def test_what_passes_is_encrypted_and_the_key_is_the_owners_alone(secure: Server) -> None:
    key = secure.socket.with_name("tls-127.0.0.1.key.pem")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    trust = ssl.create_default_context(cafile=str(certificate(secure)))
    headers = {"Authorization": f"Bearer {token(secure)}"}
    with httpx.Client(base_url=url(secure), verify=trust, headers=headers) as client:
        assert client.get("/v1/domains").json() == []
        login = client.post("/v1/sessions", json={"token": token(secure)})
        assert "secure" in login.headers["set-cookie"].lower()
    with httpx.Client(base_url=url(secure)) as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
        client.get("/v1/domains")
    host, port = url(secure).removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), 10) as plain:
        plain.sendall(b"GET /v1/domains HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in plain.recv(1000)
    with socket.create_connection((host, int(port)), 10) as sock, trust.wrap_socket(sock, server_hostname=host) as end:
        assert end.version() in ("TLSv1.2", "TLSv1.3")
    assert tls.Certificate(certificate(secure), key).fingerprint() in secure.log.read_text()


def test_the_verbs_talk_to_it(secure: Server) -> None:
    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "domzero", *arguments, "--url", url(secure)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "DOMZERO_TOKEN": token(secure)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert cli("list", "--cacert", str(certificate(secure))).returncode == 0
    untrusted = cli("list")
    assert untrusted.returncode == 1 and "Traceback" not in untrusted.stderr
    assert cli("list", "--cacert", "/nowhere").stderr.startswith("domzero: cacert: /nowhere: No such file")


def test_another_name_for_this_host_is_answered_and_no_other(secure: Server) -> None:
    trust = ssl.create_default_context(cafile=str(certificate(secure)))
    headers = {"Authorization": f"Bearer {token(secure)}"}
    with httpx.Client(base_url=url(secure), verify=trust, headers=headers) as client:
        for name, status in (
            ("192.0.2.7", 200),
            ("[2001:db8::1]", 200),
            (socket.gethostname(), 200),
            ("evil.example", 403),
        ):
            assert client.get("/v1/host", headers={"Host": name}).status_code == status, name


def test_a_certificate_is_kept_and_a_given_one_is_used(tmp_path: Path) -> None:
    first = tls.made(tmp_path, "127.0.0.1")
    text = first.certificate.read_text()
    assert tls.made(tmp_path, "127.0.0.1").certificate.read_text() == text
    assert tls.given(str(first.certificate), str(first.key)).fingerprint() == first.fingerprint()
    other = tls.made(tmp_path, "127.0.0.2")
    with pytest.raises(ConfigError, match="tls-cert: certificate and key cannot be used"):
        tls.given(str(first.certificate), str(other.key))
    with pytest.raises(ConfigError, match=r"tls-key: .*No such file"):
        tls.given(str(first.certificate), str(tmp_path / "none"))
    server = Server(
        tmp_path, "--listen", "127.0.0.1:0", "--tls-cert", str(first.certificate), "--tls-key", str(first.key)
    )
    try:
        trust = ssl.create_default_context(cafile=str(first.certificate))
        with httpx.Client(base_url=url(server), verify=trust) as client:
            assert client.get("/v1/domains").status_code == 401
            assert client.get("/openapi.json").status_code == 200
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--listen", "192.0.2.1:0"], "not a loopback address"),
        (["--tls"], "TLS is for --listen"),
        (["--listen", "127.0.0.1:0", "--tls-cert", "/nowhere"], "tls-cert: /nowhere: No such file"),
    ],
)
def test_what_cannot_be_is_said(arguments: list[str], text: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "domzero", "serve", "--socket", str(tmp_path / "s"), *arguments]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and text in done.stderr
