# SPDX-License-Identifier: Apache-2.0
"""/v1/images: what domains start from, as `domzero image` has it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import Field, SecretStr

from domzero.dom0.actions import CloneImage
from domzero.dom0.actors import Role
from domzero.dom0.api.asking import LONG, ActorDep, ServicesDep, needs, perform_or_task
from domzero.dom0.api.models import Model
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.images.cache import Image, ImageCache
from domzero.dom0.images.lookup import DISK_MEMORY_MIB, disk_spec
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.seed import seed_of
from domzero.dom0.images.store import DiskImage, DiskStore

router = APIRouter(prefix="/v1/images", tags=["images"], responses={422: RESPONSES[422]})
Name = Annotated[str, Field(min_length=1, max_length=100)]
KEYS_MAX = 20
KEY_MAX = 4096


class ImageInfo(Model):
    """What a domain starts from: `kernel`, `ramdisk`, `cmdline` and `disks` are for `POST /v1/domains`."""

    name: str
    kind: Annotated[Literal["kernel", "disk"], Field(description="A kernel with a small ramdisk, or a whole system.")]
    kernel: Annotated[str, Field(description="Empty: GRUB finds it on the disk.")]
    ramdisk: str | None
    cmdline: str
    disks: list[str]
    memory_mib: Annotated[int | None, Field(description="That it needs; null: no wishes.")]
    bytes: Annotated[int | None, Field(description="Of a disk, as its guest sees it.")]
    origin: str
    has_first_boot: Annotated[bool, Field(description="It is told at its start who it is and who may log in.")]

    @classmethod
    def of_kernel(cls, image: Image) -> ImageInfo:
        """A kernel with its ramdisk."""
        return cls(
            name=image.name,
            kind="kernel",
            kernel=image.kernel,
            ramdisk=image.ramdisk,
            cmdline=image.cmdline,
            disks=[],
            memory_mib=None,
            bytes=None,
            origin=f"{image.distribution} {image.version}",
            has_first_boot=False,
        )

    @classmethod
    def of_disk(cls, image: DiskImage) -> ImageInfo:
        """A disk."""
        seed = seed_of(image)
        return cls(
            name=image.name,
            kind="disk",
            kernel="",
            ramdisk=None,
            cmdline="",
            disks=[disk_spec(image), *([] if seed is None else [f"format=raw, access=ro, target={seed}"])],
            memory_mib=DISK_MEMORY_MIB,
            bytes=image.size,
            origin=image.origin,
            has_first_boot=seed is not None,
        )


Keys = Annotated[
    list[Annotated[str, Field(max_length=KEY_MAX)]], Field(max_length=KEYS_MAX, description="Public keys.")
]


class FirstBootBody(Model):
    """What cloud-init is told at the first start."""

    hostname: Annotated[str, Field(max_length=64, description="The clone's name if absent.")] = ""
    user: Annotated[str | None, Field(max_length=32, description="An account with sudo; root if absent.")] = None
    ssh_keys: Keys = Field(default_factory=list)
    password: Annotated[SecretStr | None, Field(max_length=200, description="Absent: none.")] = None


class CloneBody(Model):
    """A new disk with the contents of another."""

    name: Name
    first_boot: Annotated[
        FirstBootBody | None, Field(description="For images with cloud-init; absent: as the image's own.")
    ] = None


def _all() -> list[ImageInfo]:
    disks = [ImageInfo.of_disk(image) for image in DiskStore().images()]
    return disks + [ImageInfo.of_kernel(image) for image in ImageCache().images()]


@router.get("", dependencies=[needs(Role.POOL_ADMIN, "images of the host's user")])
async def list_images() -> list[ImageInfo]:
    """The images of the user that Domain 0 runs as: disks, and kernels that were fetched."""
    return await asyncio.to_thread(_all)


@router.post(
    "/{image}/clones",
    status_code=201,
    response_model=ImageInfo,
    responses={202: LONG, 404: RESPONSES[404]},
)
async def clone_image(
    image: Annotated[str, Path(max_length=100)], body: CloneBody, services: ServicesDep, actor: ActorDep
) -> Any:
    """Makes a disk with the contents of another, for a machine of its own: both go on from there."""
    first = None
    if (told := body.first_boot) is not None:
        first = FirstBoot(
            hostname=told.hostname or body.name,
            user=told.user,
            ssh_keys=tuple(told.ssh_keys),
            password=None if told.password is None else told.password.get_secret_value(),
        )

    async def answer(clone: DiskImage) -> ImageInfo:
        return await asyncio.to_thread(ImageInfo.of_disk, clone)

    return await perform_or_task(services, actor, CloneImage(image=image, name=body.name, first=first), answer)
