# SPDX-License-Identifier: Apache-2.0
"""TLS for `domzero serve --listen`: with a certificate that is given, or one that is made for it and kept."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import platform
import ssl
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from domzero.dom0.images.tools import need_tools
from domzero.errors import ConfigError

DAYS = 825
"""A certificate that is made counts for so long: more is not believed by some clients."""
_RENEW_SECONDS = 30 * 86400
_SUFFIX_CERTIFICATE, _SUFFIX_KEY = ".cert.pem", ".key.pem"


_of_serve: list[Certificate] = []


@dataclass(slots=True, frozen=True)
class Certificate:
    """A certificate with its key, both PEM.

    :param is_own: it was made here: nobody else vouches for it.
    """

    certificate: Path
    key: Path
    is_own: bool = False

    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers and openssl show it."""
        der = ssl.PEM_cert_to_DER_cert(_first(self.certificate.read_text()))
        digest = hashlib.sha256(der).hexdigest().upper()
        return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def given(certificate: str, key: str) -> Certificate:
    """One that was given. ConfigError: it cannot be used."""
    found = Certificate(Path(certificate).absolute(), Path(key).absolute())
    for path, option in ((found.certificate, "tls-cert"), (found.key, "tls-key")):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: {os.strerror(error.errno or 0)}", key=option) from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(found.certificate, found.key, password=lambda: "")
    except ssl.SSLError as error:
        what = f"certificate and key cannot be used: {error.reason or error}"
        raise ConfigError(what, key="tls-cert", hint="PEM, the key without a password") from error
    return found


def made(directory: Path, host: str) -> Certificate:
    """One that was made for this address, kept in a directory and made again before its end. ConfigError.

    :param host: the IP address that is listened on.
    """
    stem = f"tls-{host.replace(':', '_')}"
    found = Certificate(directory / (stem + _SUFFIX_CERTIFICATE), directory / (stem + _SUFFIX_KEY), True)
    (openssl,) = need_tools("openssl")
    if found.certificate.exists() and found.key.exists() and _is_good(openssl, found.certificate):
        return found
    names = [f"IP:{each}" for each in dict.fromkeys(("127.0.0.1", "::1", host)) if not _is_any(each)]
    names += [f"DNS:{each}" for each in dict.fromkeys(("localhost", platform.node())) if each]
    with tempfile.TemporaryDirectory(prefix=".tls-", dir=directory) as temporary:  # mode 0700
        certificate, key = Path(temporary) / "cert", Path(temporary) / "key"
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", str(DAYS), "-subj", "/CN=Domzero", "-addext", f"subjectAltName={','.join(names)}"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ConfigError(f"openssl made no certificate: {done.stderr.strip()[-300:]}", key="tls")
        key.chmod(0o600)
        os.rename(key, found.key)
        os.rename(certificate, found.certificate)
    return found


def use_for_screens(certificate: Certificate) -> None:
    """Lets the screens of this process's domains have the certificate that its HTTP has."""
    _of_serve[:] = [certificate]


def for_screen(directory: Path, host: str) -> Certificate:
    """The certificate for a screen at an IP address: that of HTTP, or one that is made. ConfigError.

    :param directory: where it is kept if it is made.
    """
    return _of_serve[0] if _of_serve else made(directory, host)


def _is_good(openssl: str, certificate: Path) -> bool:
    command = [openssl, "x509", "-noout", "-checkend", str(_RENEW_SECONDS), "-in", str(certificate)]
    return subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL).returncode == 0


def _is_any(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return False


def _first(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    start = text.find("-----BEGIN CERTIFICATE-----")
    return text[start : text.find(end, start) + len(end)]
