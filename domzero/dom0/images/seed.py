# SPDX-License-Identifier: Apache-2.0
"""cloud-init's NoCloud drive: an ISO image labelled `cidata` that tells a cloud image at its first start who it is.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

from domzero.dom0.images.options import FirstBoot
from domzero.errors import ConfigError, ImageError

LABEL = "cidata"


def user_data(first: FirstBoot) -> str:
    """A cloud-config document for these options; JSON is YAML."""
    account: dict[str, Any] = {"name": first.login, "lock_passwd": first.password is None}
    if first.user is not None:
        account |= {"shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "groups": "sudo"}
    if first.ssh_keys:
        account["ssh_authorized_keys"] = list(first.ssh_keys)
    config: dict[str, Any] = {"users": [account], "disable_root": first.user is not None}
    if first.password is not None:
        config["chpasswd"] = {
            "expire": False,
            "users": [{"name": first.login, "password": first.password, "type": "text"}],
        }
    if first.run:
        config["runcmd"] = list(first.run)
    return "#cloud-config\n" + json.dumps(config, indent=2) + "\n"


def meta_data(hostname: str) -> str:
    """What identifies an instance: a new one each time, so that cloud-init takes its first steps."""
    return json.dumps({"instance-id": f"domzero-{uuid.uuid4()}", "local-hostname": hostname}) + "\n"


def make_seed(target: Path, user: str, meta: str, network: str | None = None) -> None:
    """Writes the drive: at once or not at all, readable for its owner only.

    :param network: a network-config document, or None: DHCP on every interface.
    :raises ImageError: there is no library for it, or the file cannot be written.
    """
    files = {"user-data": user, "meta-data": meta, **({} if network is None else {"network-config": network})}
    data = _iso({name: text.encode() for name, text in files.items()})
    try:
        fd, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            os.replace(part, target)
        except BaseException:
            os.unlink(part)
            raise
    except OSError as error:
        raise ImageError(f"{target}: {error.strerror}") from error


def _iso(files: dict[str, bytes]) -> bytes:
    try:
        import pycdlib
    except ImportError as error:
        raise ImageError("a seed drive needs pycdlib", hint="pip install domzero[images]") from error
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for number, (name, data) in enumerate(files.items()):
        iso.add_fp(io.BytesIO(data), len(data), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    output = io.BytesIO()
    iso.write_fp(output)
    iso.close()
    return output.getvalue()


def check_user_data(text: str) -> str:
    """A user-data file that cloud-init would know. Raises ConfigError."""
    if not text.startswith(
        ("#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "Content-Type:", "##")
    ):
        raise ConfigError("cloud-init knows it by its first line: #cloud-config, #!…", key="user-data")
    return text
