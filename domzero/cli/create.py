# SPDX-License-Identifier: Apache-2.0
"""`domzero create`: a domain from an xl.cfg file, from key=value words, or from options."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domzero.cli.api_client import Dom0, Json, add_connection_options
from domzero.cli.domain_type import ENGINE_HELP, HVM_KEYS, add_type, console_of
from domzero.cli.first_boot import add_documents, add_options, seed_image
from domzero.cli.status import ExitStatus
from domzero.dom0.channelspec import HELP as CHANNEL_HELP
from domzero.dom0.channelspec import PTY, PTY_HELP
from domzero.dom0.config import DomainConfig
from domzero.dom0.diskspec import HELP as DISK_HELP
from domzero.dom0.hvmspec import ACCELERATORS
from domzero.dom0.json_values import to_json
from domzero.dom0.life import EndReason
from domzero.dom0.sharespec import HELP as SHARE_HELP
from domzero.dom0.vfbspec import HELP as VFB_HELP
from domzero.dom0.vifspec import HELP as VIF_HELP
from domzero.errors import ConfigError
from domzero.hypervisor.emulate.cpu_features import LEVELS
from domzero.hypervisor.emulate.cpu_policy import CPU_HELP, CPUID_HELP

if TYPE_CHECKING:
    from domzero.dom0.xlsyntax import Settings

DESCRIPTION = """Creates a domain and starts it. Its configuration comes from an xl.cfg file, from key=value words in
xl.cfg's syntax (which come after the file's), or from the options; options win."""
EPILOG = """examples:
  domzero create guest.cfg
  domzero create guest.cfg memory=512 'extra="console=hvc0 quiet"' -c
  domzero create --kernel vmlinuz --ramdisk initrd.img --cmdline console=hvc0 --memory 256 --name guest
  domzero create --image debian --name guest -c"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = subparsers.add_parser(
        "create",
        help="create a domain",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="FILE | KEY=VALUE", help="an xl.cfg file, and more configuration")
    parser.add_argument("-f", "--defconfig", metavar="FILE", help="the xl.cfg file")
    what = parser.add_argument_group("the domain")
    what.add_argument("--kernel", metavar="FILE", help="PV kernel: bzImage or ELF")
    what.add_argument("--ramdisk", metavar="FILE", help="initramfs")
    what.add_argument("--image", metavar="NAME", help="a fetched kernel, or a disk, that `domzero image` has")
    what.add_argument("--cmdline", metavar="TEXT", help="kernel command line")
    what.add_argument("--memory", metavar="MiB", type=int, help="memory in MiB (default: 256)")
    what.add_argument("--vcpus", metavar="N", type=int, help="virtual CPUs (default: 1)")
    what.add_argument("--maxvcpus", metavar="N", type=int, help="that `vcpu-set` can give it (default: as many)")
    what.add_argument("--disk", metavar="SPEC", action="append", default=[], help=DISK_HELP)
    what.add_argument("--vif", metavar="SPEC", action="append", default=[], help=VIF_HELP)
    what.add_argument("--share", metavar="SPEC", action="append", default=[], help=SHARE_HELP)
    what.add_argument("--channel", metavar="SPEC", action="append", default=[], help=CHANNEL_HELP)
    what.add_argument("--vfb", metavar="SPEC", action="append", default=[], help=VFB_HELP)
    what.add_argument("--pty", action="store_true", help=PTY_HELP)
    what.add_argument("--name", help="its name (default: guest- and some digits)")
    what.add_argument("--seed", metavar="N", type=int, help="seed of all randomness of its machine")
    what.add_argument("--cpu", choices=list(LEVELS), help=CPU_HELP)
    what.add_argument("--cpuid", metavar="SPEC", action="append", default=[], help=CPUID_HELP)
    what.add_argument("--engine", choices=("auto", "interpreter", "translator", *ACCELERATORS[1:]), help=ENGINE_HELP)
    add_type(what)
    add_options(parser, hostname=None, run="run this shell command at its first start")
    add_documents(parser)
    how = parser.add_argument_group("how")
    how.add_argument("-p", "--paused", action="store_true", help="leave it paused")
    how.add_argument("-c", "--console", action="store_true", help="attach to its console; Ctrl-] detaches")
    how.add_argument("--persistent", action="store_true", help="define it, too: it is halted after its end, not gone")
    how.add_argument("--define", action="store_true", help="only define it; `domzero start` starts it")
    how.add_argument("--autostart", action="store_true", help="define it, and start it with Domain 0 each time")
    how.add_argument("-F", "--foreground", action="store_true", help="wait for its end; exit status as `domzero run`")
    how.add_argument("-n", "--dryrun", action="store_true", help="only show the configuration, as JSON")
    how.add_argument("-q", "--quiet", action="store_true", help="say nothing")
    add_connection_options(parser)
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    """Creates it."""
    config, warnings = configuration(args)
    if not args.quiet:
        for warning in warnings:
            print(f"domzero: warning: {warning}", file=sys.stderr)
    body = request_body(config)
    if args.persistent or args.define or args.autostart:
        body |= {"persistent": True, "start": not args.define, "autostart": args.autostart}
    if args.dryrun:
        print(json.dumps(body, indent=2))
        return ExitStatus.OK
    if args.define and (args.console or args.foreground or args.paused):
        raise ConfigError("a domain that is only defined has no console, end or pause", key="define")
    with Dom0.from_args(args) as dom0:
        domain = dom0.create(body, quiet=args.quiet)
        if args.json:
            print(json.dumps(domain, indent=2), flush=True)
        elif not args.quiet:
            what = "defined" if args.define else f"domain {domain['domid']}"
            print(f"domain {domain['name']} is {what}", file=sys.stderr, flush=True)
        if args.console:
            from domzero.cli.attach import attach

            status = attach(dom0, domain["uuid"])
            if not args.foreground:
                return status
        if args.foreground:
            after = dom0.wait_ended(domain["uuid"])
            if not args.console and not args.quiet:
                from domzero.cli.attach import tell_end

                tell_end(after)
            return EndReason(after["exit"]["reason"]).exit_status if after["exit"] else ExitStatus.FAILED
    return ExitStatus.OK


def configuration(args: argparse.Namespace) -> tuple[DomainConfig, list[str]]:
    """The configuration that the arguments mean, and warnings about it; paths are absolute. ConfigError."""
    from domzero.dom0 import xlcfg

    words = list(args.words)
    path = args.defconfig
    if path is None and words and "=" not in words[0]:
        path = words.pop(0)
    settings: xlcfg.Settings = {}
    if path is not None:
        settings = xlcfg.parse(xlcfg.read_text(path), path)
    elif not words and args.kernel is None and args.image is None and not args.disk:
        raise ConfigError("nothing to create: give a configuration file, --kernel FILE, --image NAME or --disk SPEC")
    settings = xlcfg.parse_words(words, settings)
    seed_image(args)
    drives: tuple[str, ...] = ()
    if args.image is not None:
        from domzero.dom0.images.lookup import start_of

        image = start_of(args.image, lambda text: print(f"domzero: {text}", file=sys.stderr))
        cmdline = console_of(args.type, image.cmdline)
        found: dict[str, str | None] = {"kernel": image.kernel, "ramdisk": image.ramdisk, "cmdline": cmdline}
        settings |= {key: xlcfg.Setting(value, "") for key, value in found.items() if value is not None}
        _extend(settings, "disk", before=image.disks)
        drives = image.drives
        if image.memory_mib is not None:
            settings.setdefault("memory", xlcfg.Setting(str(image.memory_mib), ""))
    for key in ("kernel", "ramdisk", "cmdline", "memory", "vcpus", "maxvcpus", "name", "seed", "cpu", *HVM_KEYS):
        if (value := getattr(args, key)) is not None:
            settings[key] = xlcfg.Setting(str(value), "")
    _extend(settings, "disk", behind=[*args.disk, *drives])
    _extend(settings, "vif", behind=args.vif)
    _extend(settings, "p9", behind=args.share)
    _extend(settings, "channel", behind=args.channel)
    _extend(settings, "vfb", behind=args.vfb)
    if args.cpuid:
        if "cpuid" in settings and isinstance(value := settings["cpuid"].value, str):
            settings["cpuid"] = xlcfg.Setting([value] if value else [], "")
        _extend(settings, "cpuid", behind=args.cpuid)
    if args.pty:
        settings["console"] = xlcfg.Setting(PTY, "")
    if path is None:
        settings.setdefault("name", xlcfg.Setting(f"guest-{uuid.uuid4().hex[:6]}", ""))
    config, warnings = _finished(settings)
    config.paused = args.paused
    return config, warnings


def from_words(path: str | None, words: Sequence[str]) -> tuple[DomainConfig, list[str]]:
    """What an xl.cfg file and key=value words mean, as `configuration`. ConfigError."""
    from domzero.dom0 import xlcfg

    settings = xlcfg.parse(xlcfg.read_text(path), path) if path is not None else {}
    return _finished(xlcfg.parse_words(words, settings))


def _finished(settings: Settings) -> tuple[DomainConfig, list[str]]:
    from domzero.dom0 import xlcfg

    parsed = xlcfg.from_settings(settings)
    config = parsed.config
    config.kernel = str(Path(config.kernel).absolute()) if config.kernel else ""
    if config.ramdisk is not None:
        config.ramdisk = str(Path(config.ramdisk).absolute())
    config.disks = [spec.text(spec.absolute()) for spec in config.disk_specs]
    config.channels = [spec.text(str(Path(spec.path).absolute()) if spec.path else "") for spec in config.channel_specs]
    config.shares = [spec.text(str(Path(spec.path).absolute())) for spec in config.share_specs]
    config.vfbs = [spec.text(str(Path(spec.path).absolute()) if spec.path else "") for spec in config.vfb_specs]
    if parsed.chosen and config.type.is_full:
        parsed.warnings.append(f"type {config.type.value}: {parsed.chosen}")
    return config, parsed.warnings


def _extend(settings: Settings, key: str, *, before: Sequence[str] = (), behind: Sequence[str] = ()) -> None:
    """Puts more into a list; what the file has in its place that is none is as good as nothing."""
    from domzero.dom0.xlsyntax import Setting

    if before or behind:
        given = settings[key].value if key in settings else []
        settings[key] = Setting([*before, *(given if isinstance(given, list) else []), *behind], "")


def request_body(config: DomainConfig) -> Json:
    """What the API is asked for."""
    return to_json(config)
