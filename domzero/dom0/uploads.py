# SPDX-License-Identifier: Apache-2.0
"""Requests whose bodies have no bound but what they are written to, and take as long as they go on."""

from __future__ import annotations

import re

from domzero.dom0.xenapi.http_access import UPLOADS

_IMAGE = re.compile(r"/v1/images/[^/]+(/ramdisk)?")


def is_upload(method: str, path: str) -> bool:
    """Whether a request brings a disk, a kernel or a ramdisk."""
    return path in UPLOADS or (method == "PUT" and _IMAGE.fullmatch(path) is not None)


__all__ = ["is_upload"]
