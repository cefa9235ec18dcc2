# SPDX-License-Identifier: Apache-2.0
"""/v1/images: what domains start from, as `domzero image` has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field, SecretStr
from starlette.requests import ClientDisconnect

from domzero.dom0.actions import BuildImage, CloneImage, FetchImage, ImportImage, RemoveImage, UploadImage, UploadKernel
from domzero.dom0.actors import Actor, Role
from domzero.dom0.api.asking import LONG, ActionsDep, ActorDep, ServicesDep, answer_or_task, needs, perform_or_task
from domzero.dom0.api.models import Model
from domzero.dom0.api.problems import RESPONSES
from domzero.dom0.config import CMDLINE_MAX
from domzero.dom0.images.cache import Image
from domzero.dom0.images.kernels import all_kernels
from domzero.dom0.images.lookup import DISK_MEMORY_MIB, disk_spec
from domzero.dom0.images.options import FirstBoot
from domzero.dom0.images.seed import seed_of
from domzero.dom0.images.store import DiskImage, DiskStore
from domzero.dom0.services import Services
from domzero.errors import ImageError, ResourceError

router = APIRouter(prefix="/v1/images", tags=["images"], responses={422: RESPONSES[422]})
Name = Annotated[str, Field(min_length=1, max_length=100)]
Size = Annotated[str, Field(max_length=24, examples=["20G"])]
KEYS_MAX = 20
KEY_MAX = 4096
UPLOADS_MAX = 8
"""Under way at once."""
Format = Literal["raw", "qcow2", "vhd", "vhdx", "vmdk", "vdi", "qed"]


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
            ramdisk=image.ramdisk or None,
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
    size: Annotated[Size, Field(description="`20G`, or `+5G` for so much more; empty: as large as the image.")] = ""
    first_boot: Annotated[
        FirstBootBody | None, Field(description="For images with cloud-init; absent: as the image's own.")
    ] = None


class FetchBody(Model):
    """A kernel from the host's own mirrors."""

    distribution: Annotated[Literal["debian"], Field(description="On Ubuntu, its own kernel.")] = "debian"
    refresh: Annotated[bool, Field(description="Ask the mirrors what is newest, even if lists are fresh.")] = False


class BuildBody(Model):
    """A disk with Debian on it."""

    name: Name
    suite: Literal["bookworm", "trixie"] = "bookworm"
    size: Size = "4G"
    packages: Annotated[
        list[Annotated[str, Field(max_length=100)]], Field(max_length=200, description="Beside those that it needs.")
    ] = Field(default_factory=list)
    first_boot: Annotated[FirstBootBody, Field(description="Who it is, and who may log in.")] = Field(
        default_factory=lambda: FirstBootBody()
    )


class ImportBody(Model):
    """A disk out of a file of the host's."""

    file: Annotated[
        str,
        Field(
            min_length=1,
            max_length=4096,
            description="Path; of an image's or a storage's directory, but for a pool-admin.",
        ),
    ]
    name: Name
    format: Annotated[Format | None, Field(description="null: by its first bytes.")] = None


def _all() -> list[ImageInfo]:
    disks = [ImageInfo.of_disk(image) for image in DiskStore().images()]
    return disks + [ImageInfo.of_kernel(image) for image in all_kernels()]


@router.get("", dependencies=[needs(Role.VM_ADMIN, "images of the host's user")])
async def list_images() -> list[ImageInfo]:
    """The images of the user that Domain 0 runs as: disks, and kernels that were fetched or sent."""
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
    first = None if body.first_boot is None else _first_boot(body.first_boot, body.name)
    action = CloneImage(image=image, name=body.name, size=body.size, first=first)
    return await perform_or_task(services, actor, action, _disk)


def _first_boot(told: FirstBootBody, name: str) -> FirstBoot:
    return FirstBoot(
        hostname=told.hostname or name,
        user=told.user,
        ssh_keys=tuple(told.ssh_keys),
        password=None if told.password is None else told.password.get_secret_value(),
    )


async def _disk(image: DiskImage) -> ImageInfo:
    return await asyncio.to_thread(ImageInfo.of_disk, image)


async def _kernel(image: Image) -> ImageInfo:
    return ImageInfo.of_kernel(image)


@router.post("/fetches", status_code=201, response_model=ImageInfo, responses={202: LONG})
async def fetch_image(body: FetchBody, services: ServicesDep, actor: ActorDep) -> Any:
    """Gets the newest kernel of the host's own distribution, and builds an initramfs; nothing if both are there."""
    return await perform_or_task(services, actor, FetchImage(refresh=body.refresh), _kernel)


@router.post("/builds", status_code=201, response_model=ImageInfo, responses={202: LONG})
async def build_image(body: BuildBody, services: ServicesDep, actor: ActorDep) -> Any:
    """Makes a disk with Debian on it, with packages from the host's own mirrors; minutes."""
    first, packages = _first_boot(body.first_boot, body.name), tuple(body.packages)
    action = BuildImage(name=body.name, suite=body.suite, size=body.size, packages=packages, first=first)
    return await perform_or_task(services, actor, action, _disk)


@router.post("/imports", status_code=201, response_model=ImageInfo, responses={202: LONG})
async def import_image(body: ImportBody, services: ServicesDep, actor: ActorDep) -> Any:
    """Copies a disk of the host's into the store: raw as it is, others as qcow2."""
    action = ImportImage(file=body.file, name=body.name, format=body.format)
    return await perform_or_task(services, actor, action, _disk)


FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
FileName = Annotated[str, Query(max_length=200, description="What it is called where it is from.")]


@router.put(
    "/{image}",
    status_code=201,
    response_model=ImageInfo,
    responses={202: LONG, 409: RESPONSES[409]},
    openapi_extra=FILE,
)
async def upload_image(
    image: Annotated[str, Path(max_length=100)],
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    kind: Annotated[Literal["disk", "kernel"], Query(description="A kernel's ramdisk comes afterwards.")] = "disk",
    format: Annotated[Format | None, Query(description="Of a disk; by its first bytes if absent.")] = None,
    cmdline: Annotated[str, Query(max_length=CMDLINE_MAX, description="Of a kernel's domains.")] = "",
    file: FileName = "a file",
) -> Any:
    """Makes an image of the body: a disk of any length, kept raw if it is, otherwise as qcow2; or a kernel."""
    if kind == "disk":
        return await _upload(
            request, services, actor, partial(UploadImage, name=image, format=format, file=file), _disk
        )
    return await _upload(
        request, services, actor, partial(UploadKernel, name=image, cmdline=cmdline, file=file), _kernel
    )


@router.put(
    "/{image}/ramdisk",
    status_code=201,
    response_model=ImageInfo,
    responses={202: LONG, 404: RESPONSES[404], 409: RESPONSES[409]},
    openapi_extra=FILE,
)
async def upload_ramdisk(
    image: Annotated[str, Path(max_length=100)],
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    file: FileName = "a file",
) -> Any:
    """Gives a kernel that was sent the body as its ramdisk, in the place of the one that it has."""
    action = partial(UploadKernel, name=image, is_ramdisk=True, file=file)
    return await _upload(request, services, actor, action, _kernel)


async def _upload(
    request: Request,
    services: Services,
    actor: Actor,
    action_of: Callable[..., UploadImage | UploadKernel],
    answer: Callable[[Any], Awaitable[ImageInfo]],
) -> Any:
    standing = services.standing(actor, Role.POOL_OPERATOR, "image.upload")
    length = request.headers.get("content-length", "")
    body = Body(standing.pieces(request.stream()))
    announced = int(length[:20]) if length.isdecimal() else None
    action = action_of(length=announced, body=body.pieces())
    services.actions.check(actor, action)
    kinds = (UploadImage.kind, UploadKernel.kind)
    if sum(task.kind in kinds and not task.is_over for task in services.tasks.all()) >= UPLOADS_MAX:
        raise ResourceError(f"{UPLOADS_MAX} uploads are under way", hint="try again when one of them is done")
    task = services.actions.begin(actor, action)
    assert task.job is not None
    read = asyncio.create_task(body.over.wait())
    await asyncio.wait({task.job, read}, return_when=asyncio.FIRST_COMPLETED)
    read.cancel()
    return await answer_or_task(services, task, answer)


class Body:
    """What a client sends, and whether all of it has come."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self.over = asyncio.Event()
        self._source = source

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its pieces. ImageError: the client has gone before the end."""
        try:
            async for piece in self._source:
                yield piece
        except ClientDisconnect:
            raise ImageError("who sent it has gone before the end") from None
        finally:
            self.over.set()


@router.delete("/{image}", status_code=204, responses={404: RESPONSES[404]})
async def remove_image(image: Annotated[str, Path(max_length=100)], actions: ActionsDep, actor: ActorDep) -> None:
    """Deletes an image that no domain has open."""
    await actions.perform(actor, RemoveImage(image=image))
