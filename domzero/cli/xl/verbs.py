# SPDX-License-Identifier: Apache-2.0
"""All verbs that xl 4.17 has: what does each, or why it is refused."""

from __future__ import annotations

from domzero.cli.xl import create, devices, domains, host
from domzero.cli.xl.grammar import Option, Verb

_MEMORY = "<Domain> <MemMB['b'[bytes]|'k'[KB]|'m'[MB]|'g'[GB]|'t'[TB]]>"
_DOMAIN, _DOMAINS = "<Domain>", "<Domain(s)>"
_DRY = Option("n", "dryrun", "only show the configuration, as -N does")
_FILE = Option("f", "defconfig", "the configuration file", "FILE")
_FORCE = Option("f", "force", "take it away even if the guest uses it")
_WAIT = Option("w", "wait", "wait until it is done; twice: until the domain is gone")
_ALL = Option("a", "all", "all domains but Domain 0")
_SCHEDULE = (
    Option("d", "domain", "the domain to show or change", "DOMAIN"),
    Option("w", "weight", "1 to 65535; 256 is the default", "WEIGHT"),
    Option("c", "cap", "percent of one processor; 0 for no bound", "CAP"),
    Option("s", "schedparam", "the parameters of the scheduler"),
    Option("t", "tslice_ms", "refused: the host's scheduler has none", "TSLICE"),
    Option("r", "ratelimit_us", "refused: the host's scheduler has none", "RLIMIT"),
    Option("m", "migration_delay_us", "refused: the host's scheduler has none", "DELAY"),
    Option("p", "cpupool", "the pool; there is Pool-0", "CPUPOOL"),
)

_DONE = (
    Verb(
        "create",
        "<ConfigFile> [options] [vars]",
        "Create a domain from a configuration file",
        create.create,
        options=(
            Option("c", "", "connect to its console"),
            Option("d", "", "nothing: for scripts that have it"),
            Option("e", "", "nothing: Domain 0 waits for its end"),
            Option("F", "", "wait for its end"),
            _FILE,
            _DRY,
            Option("p", "", "leave it paused"),
            Option("q", "quiet", "say nothing"),
            Option("i", "", "nothing: for scripts that have it"),
            Option("V", "vncviewer", "open its screen with vncviewer"),
            Option("A", "vncviewer-autopass", "refused: the viewer asks"),
            Option("", "ignore-global-affinity-masks", "nothing: there are none"),
        ),
        dry=True,
        changes=True,
    ),
    Verb(
        "config-update",
        "<Domain> <ConfigFile> [options] [vars]",
        "Let a domain start with another configuration the next time",
        create.update,
        options=(_FILE, Option("d", "", "nothing: for scripts that have it"), Option("q", "quiet", "say nothing")),
        dry=True,
        changes=True,
    ),
    Verb(
        "list",
        "[options] [Domain]",
        "List domains",
        domains.list_domains,
        options=(
            Option("l", "long", "everything, as JSON"),
            Option("v", "verbose", "UUID, reason of a shutdown, security label"),
            Option("Z", "context", "security label"),
            Option("c", "cpupool", "pool of processors"),
            Option("n", "numa", "NUMA nodes"),
        ),
    ),
    Verb(
        "destroy",
        "[options] <Domain>",
        "End a domain at once",
        domains.destroy,
        1,
        options=(Option("f", "", "Domain 0, too: refused"),),
        changes=True,
    ),
    Verb(
        "shutdown",
        "[options] <-a|Domain>",
        "Ask a domain to shut down",
        domains.shut_down("shutdown"),
        options=(_ALL, _WAIT, Option("F", "", "nothing: PV domains have no ACPI")),
        changes=True,
    ),
    Verb(
        "reboot",
        "[options] <-a|Domain>",
        "Ask a domain to reboot",
        domains.shut_down("reboot"),
        options=(_ALL, _WAIT, Option("F", "", "nothing: PV domains have no ACPI")),
        changes=True,
    ),
    Verb("pause", _DOMAIN, "Pause a domain", domains.act("pause"), 1, changes=True),
    Verb("unpause", _DOMAIN, "Let a paused domain go on", domains.act("unpause"), 1, changes=True),
    Verb(
        "console",
        "[options] <Domain>",
        "Attach to a domain's console; Ctrl-] detaches",
        domains.console,
        1,
        options=(Option("n", "", "number of the console", "NUM"), Option("t", "", "its type: pv", "TYPE")),
    ),
    Verb("dump-core", "<Domain> <filename>", "Write a domain's core dump", domains.dump_core, 2, changes=True),
    Verb(
        "cd-insert",
        "<Domain> <VirtualDevice> <path>",
        "Put a CD into a drive",
        devices.insert_cd,
        3,
        dry=True,
        changes=True,
    ),
    Verb(
        "cd-eject",
        "<Domain> <VirtualDevice>",
        "Take a CD out of its drive",
        devices.eject_cd,
        2,
        dry=True,
        changes=True,
    ),
    Verb(
        "mem-max",
        _MEMORY,
        "Set how much memory a domain may have; in KiB without a unit",
        host.set_memory("memory_limit_mib", "static max memory"),
        2,
        changes=True,
    ),
    Verb(
        "mem-set",
        _MEMORY,
        "Set a domain's memory target; in KiB without a unit",
        host.set_memory("memory_target_mib", "dynamic max memory"),
        2,
        changes=True,
    ),
    Verb("vcpu-list", "[Domain, ...]", "List the vCPUs of domains", host.list_vcpus),
    Verb(
        "vcpu-pin",
        "[option] <Domain> <VCPU|all> <Hard affinity|-|all> <Soft affinity|-|all>",
        "Choose the processors that vCPUs run on",
        host.pin_vcpu,
        3,
        options=(
            Option("f", "force", "nothing: guests pin nothing"),
            Option("i", "ignore-global-affinity-masks", "nothing: there are none"),
        ),
        dry=True,
        changes=True,
    ),
    Verb(
        "vcpu-set",
        "[option] <Domain> <vCPUs>",
        "Set how many vCPUs a domain uses",
        host.set_vcpus,
        2,
        options=(Option("i", "ignore-host", "nothing: the host's processors are no bound"),),
        changes=True,
    ),
    Verb("vm-list", "", "List domains with their UUIDs", domains.list_vms),
    Verb(
        "info",
        "[options] [field]",
        "Show the host",
        host.info,
        options=(Option("n", "numa", "with processors and nodes"),),
    ),
    Verb("sharing", "[Domain]", "Show how many pages domains share: none", domains.list_sharing),
    Verb(
        "sched-credit",
        "[-d <Domain> [-w[=WEIGHT]|-c[=CAP]]] [-s [-t TSLICE] [-r RATELIMIT]] [-p CPUPOOL]",
        "Show or set weight and cap",
        host.schedule,
        options=_SCHEDULE,
        changes=True,
    ),
    Verb(
        "sched-credit2",
        "[-d <Domain> [-w[=WEIGHT]]] [-p CPUPOOL]",
        "Show or set weight and cap",
        host.schedule,
        options=_SCHEDULE,
        changes=True,
    ),
    Verb("domid", "<DomainName>", "Show a domain's domid", domains.show_domid, 1),
    Verb("domname", "<DomainId>", "Show a domain's name", domains.show_name, 1),
    Verb("rename", "<Domain> <NewDomainName>", "Rename a domain", domains.rename, 2, changes=True),
    Verb(
        "trigger",
        "<Domain> <nmi|reset|init|power|sleep|s3resume> [<VCPU>]",
        "Send a domain an NMI, or ask it to shut down or reboot",
        domains.trigger,
        2,
        changes=True,
    ),
    Verb("sysrq", "<Domain> <letter>", "Press a SysRq key in a domain", domains.press_sysrq, 2, changes=True),
    Verb(
        "debug-keys",
        "<Keys>",
        "Let the hypervisor write into its log; h shows the keys",
        host.press_debug_keys,
        1,
        changes=True,
    ),
    Verb(
        "dmesg",
        "[-c]",
        "Show what the hypervisor has logged",
        host.show_log,
        options=(Option("c", "clear", "and clear it"),),
    ),
    Verb(
        "top",
        "",
        "Watch what domains use",
        host.show_top,
        options=(
            Option("b", "batch", "line by line on a terminal, too"),
            Option("d", "delay", "between two (default: 3)", "SECONDS"),
            Option("i", "iterations", "end after so many", "N"),
            Option("n", "networks", "with network interfaces"),
            Option("x", "vbds", "with disks"),
            Option("v", "vcpus", "with vCPUs"),
            Option("r", "repeat-header", "with the header before each domain"),
            Option("f", "full-name", "names in full"),
        ),
    ),
    Verb(
        "network-attach",
        "<Domain> [type=<type>] [mac=<mac>] [bridge=<bridge>] [ip=<ip>] [script=<script>] [backend=<BackDomain>] "
        "[vifname=<name>] [rate=<rate>] [model=<model>] [accel=<accel>] [mtu=<mtu>]",
        "Plug a network interface in",
        devices.attach_network,
        1,
        dry=True,
        changes=True,
    ),
    Verb(
        "vncviewer",
        "[options] <Domain>",
        "Open a domain's screen with vncviewer",
        domains.view,
        1,
        options=(
            Option("", "vncviewer-autopass", "refused: the viewer asks"),
            Option("", "autopass", "refused: the viewer asks"),
        ),
    ),
    Verb("network-list", _DOMAINS, "List network interfaces", devices.list_networks, 1),
    Verb(
        "network-detach",
        "<Domain> <DevId|mac>",
        "Take a network interface away",
        devices.detach_network,
        2,
        changes=True,
    ),
    Verb("channel-list", _DOMAINS, "List channels", devices.list_channels, 1),
    Verb(
        "block-attach",
        "<Domain> <disk-spec-component(s)>...",
        "Plug a disk in",
        devices.attach_block,
        2,
        dry=True,
        changes=True,
    ),
    Verb("block-list", _DOMAINS, "List disks", devices.list_blocks, 1),
    Verb(
        "block-detach",
        "[option] <Domain> <DevId>",
        "Take a disk away",
        devices.detach_block,
        2,
        options=(_FORCE,),
        changes=True,
    ),
    Verb(
        "uptime",
        "[-s] [Domain]",
        "Show how long domains have run",
        domains.uptime,
        options=(Option("s", "short", "one line each, without the table"),),
    ),
    Verb("claims", "", "Show what memory is claimed: none", domains.list_claims),
    Verb(
        "cpupool-list",
        "[-c|--cpus] [<CPU Pool>]",
        "List the pools of processors: one",
        host.list_pools,
        options=(Option("c", "cpus", "with the processors"),),
    ),
)

_NO_DEVICES = "a domain of an ordinary user has none of the host's devices"
_NO_SAVE = "a domain's state cannot be saved yet"
_ONE_POOL = "all processors of the host are one pool, Pool-0"
_NO_FLASK = "there is no Flask: who may do what is Domain 0's own matter"
_CACHES = "what domains may use of a processor's caches is the host kernel's matter (resctrl)"
_REFUSED = {
    "pci-attach pci-detach pci-list pci-assignable-add pci-assignable-remove pci-assignable-list": _NO_DEVICES,
    "usbctrl-attach usbctrl-detach usbdev-attach usbdev-detach usb-list": _NO_DEVICES,
    "save restore migrate migrate-receive remus": _NO_SAVE,
    "button-press": "a PV domain has no ACPI buttons; `xl trigger DOMAIN power` asks it to shut down",
    "set-parameters": "the hypervisor has no parameters that change while it runs",
    "sched-rtds": "the host's scheduler has neither periods nor budgets; sched-credit2 has weight and cap",
    "vtpm-attach vtpm-list vtpm-detach": "there is no back end of virtual TPMs",
    "vkb-attach vkb-list vkb-detach": "keyboard and pointer come with vfb, and are not plugged in alone",
    "vdispl-attach vdispl-list vdispl-detach": "there is no back end of displays",
    "vsnd-attach vsnd-list vsnd-detach": "there is no back end of sound cards",
    "cpupool-create cpupool-destroy cpupool-rename cpupool-cpu-add cpupool-cpu-remove cpupool-migrate": _ONE_POOL,
    "cpupool-numa-split": _ONE_POOL,
    "getenforce setenforce loadpolicy": _NO_FLASK,
    "devd": "back ends are parts of Domain 0",
    "psr-hwinfo psr-cmt-attach psr-cmt-detach psr-cmt-show psr-cat-set psr-cat-show psr-mba-set psr-mba-show": _CACHES,
    "qemu-monitor-command": "no domain has a device model",
}

VERBS: dict[str, Verb] = {verb.name: verb for verb in _DONE} | {
    name: Verb(name, "", "Not here", refused=why) for names, why in _REFUSED.items() for name in names.split()
}
"""By name."""
