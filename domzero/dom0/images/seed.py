# SPDX-License-Identifier: Apache-2.0
"""cloud-init's NoCloud drive: an ISO image labelled `cidata` that tells a cloud image at its first start who it is.

https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domzero.dom0.images.cache import Image
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.store import DiskImage
from domzero.errors import ConfigError, ImageError

LABEL = "cidata"
CLOUD_INIT = "cloud-init"
_KINDS = ("#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "Content-Type:", "##")
KEPT = "seed.iso"
"""In an image's directory."""


@dataclass(slots=True, frozen=True)
class Documents:
    """What cloud-init is told.

    :param user: user-data.
    :param hostname: of the machine, in its meta-data.
    :param network: network-config, or None: DHCP.
    """

    user: str
    hostname: str
    network: str | None = None


def user_data(first: FirstBoot) -> str:
    """A cloud-config document for these options; JSON is YAML."""
    account: dict[str, Any] = {"name": first.login, "lock_passwd": first.password is None}
    if first.user is not None:
        account |= {"shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "groups": "sudo"}
    if first.ssh_keys:
        account["ssh_authorized_keys"] = list(first.ssh_keys)
    config: dict[str, Any] = {"users": [account], "disable_root": first.user is not None}
    config["manage_etc_hosts"] = "localhost"  # it knows itself by its whole name
    if first.password is not None:
        config["chpasswd"] = {
            "expire": False,
            "users": [{"name": first.login, "password": first.password, "type": "text"}],
        }
    if first.run:
        config["runcmd"] = list(first.run)
    return "#cloud-config\n" + json.dumps(config, indent=2) + "\n"


def meta_data(hostname: str, instance: str) -> str:
    """What identifies an instance: with another name of it, cloud-init takes its first steps again."""
    return json.dumps({"instance-id": f"domzero-{instance}", "local-hostname": hostname}) + "\n"


def keep_seed(image: Image | DiskImage, documents: Documents) -> Path:
    """Makes the drive of an image, in its directory: whatever starts from it has that, until there is another one.

    The same documents make the same instance of it.

    :raises ConfigError: the image does not have cloud-init.
    :raises ImageError: as in `make_seed`.
    """
    if isinstance(image, Image):
        raise ConfigError(f"{image.name} is a kernel with a ramdisk: there is no cloud-init in it", key="image")
    if image.recipe and CLOUD_INIT not in image.recipe.get("packages", ()):
        hint = f"give these options to `domzero image build`, or build it with --packages {CLOUD_INIT}"
        raise ConfigError(f"{image.name} was built without cloud-init: nothing in it would read them", hint=hint)
    words = [image.name, image.created, documents.user, documents.hostname, documents.network]
    instance = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]
    target = Path(image.disk).parent / KEPT
    make_seed(target, documents, instance)
    return target


def seed_of(image: DiskImage) -> Path | None:
    """The drive that is kept with an image."""
    path = Path(image.disk).parent / KEPT
    return path if path.is_file() else None


def make_seed(target: Path, documents: Documents, instance: str | None = None) -> None:
    """Writes the drive: at once or not at all, readable for its owner only.

    :param instance: names the machine; by default no other one has the name.
    :raises ImageError: there is no library for it, or the file cannot be written.
    """
    files = {"user-data": documents.user, "meta-data": meta_data(documents.hostname, instance or str(uuid.uuid4()))}
    if documents.network is not None:
        files["network-config"] = documents.network
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
    """A user-data file that cloud-init would know. Raises ConfigError; ImageError if there is no library for YAML."""
    if not text.startswith(_KINDS):
        raise ConfigError("cloud-init knows it by its first line: #cloud-config, #!…", key="user-data")
    if text.startswith("#cloud-config") and not text.startswith("#cloud-config-"):
        _check_yaml(text, "user-data")
    return text


def check_network_config(text: str) -> str:
    """A network-config file that cloud-init would read. Errors as of `check_user_data`."""
    settings = _check_yaml(text, "network-config")
    if "network" not in settings and "version" not in settings:
        raise ConfigError("there is no `version:` in it", key="network-config")
    return text


def _check_yaml(text: str, key: str) -> dict[Any, Any]:
    """A document's settings. In the guest, an error in them would be a line in a log that nobody can log in to read."""
    try:
        import yaml
    except ImportError as error:
        raise ImageError(f"to check {key}, this needs PyYAML", hint="pip install domzero[images]") from error
    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise ConfigError(f"{where}{getattr(error, 'problem', None) or error}", key=key) from error
    except RecursionError as error:
        raise ConfigError("it is nested too deeply", key=key) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ConfigError("it is no list of `key: value`", key=key)
    return settings
