# SPDX-License-Identifier: Apache-2.0
"""xl.cfg files."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.dom0 import xlcfg, xlkeys
from domzero.dom0.config import Action
from domzero.dom0.hvmspec import DiskBus, Firmware, HvmOptions, Screen
from domzero.dom0.images import grub
from domzero.errors import ConfigError, ConfigErrors

MINIMAL = 'name="a"; kernel="/k"\n'


def test_a_file_as_people_write_them_becomes_a_configuration() -> None:
    parsed = xlcfg.load(
        """# a comment
name = "guest"   # another
type = 'pv'
uuid = "00000000-0000-0000-0000-000000000001"
kernel = '/boot/vmlinuz'; ramdisk = "/boot/initrd"
memory = 0x200
vcpus = 2
maxvcpus = 2
root = "/dev/xvda1 ro"
extra = "console=hvc0 quiet"
on_crash = "preserve"
on_reboot = 'destroy'
disk = [ ]
vif = [
]
localtime = 1
"""
    )
    config = parsed.config
    assert (config.name, str(config.uuid)) == ("guest", "00000000-0000-0000-0000-000000000001")
    assert (config.kernel, config.ramdisk) == ("/boot/vmlinuz", "/boot/initrd")
    assert (config.memory_mib, config.vcpus) == (512, 2)
    assert config.cmdline == "root=/dev/xvda1 ro console=hvc0 quiet"
    assert (config.on_crash, config.on_reboot, config.on_poweroff) == (Action.PRESERVE, Action.DESTROY, Action.DESTROY)
    assert parsed.warnings == []


def test_cmdline_wins_over_root_and_extra_with_a_warning() -> None:
    parsed = xlcfg.load(MINIMAL + 'cmdline="x"; root="y"')
    assert parsed.config.cmdline == "x"
    assert parsed.warnings == ["root ignored, as cmdline is given"]


def test_words_of_the_command_line_come_last_and_may_lack_their_quotes() -> None:
    config = xlcfg.load(MINIMAL + "memory=64", extra=["memory=128", "name=other", "vcpus='3'; extra='a b'"]).config
    assert (config.memory_mib, config.name, config.vcpus, config.cmdline) == (128, "other", 3, "a b")


def test_cpuid_is_a_string_of_libxls_or_a_list_of_xends() -> None:
    config = xlcfg.load(MINIMAL + 'cpu="v2"; cpuid="host,sse4_2=0"').config
    assert (config.cpu, config.cpuid) == ("v2", ["host,sse4_2=0"])
    bits = "1:ecx=" + "x" * 32
    assert xlcfg.load(MINIMAL + f'cpuid=["{bits}", "{bits}"]').config.cpuid == [bits, bits]
    config = xlcfg.load(MINIMAL + 'cpuid=""').config
    assert (config.cpu, config.cpuid) == ("max", [])
    with pytest.raises(ConfigErrors, match="cpuid: sse3=7: not a value"):
        xlcfg.load(MINIMAL + 'cpuid="host,sse3=7"')
    with pytest.raises(ConfigErrors, match="cpu: no such processor: v7"):
        xlcfg.load(MINIMAL + 'cpu="v7"')


def test_an_unknown_key_is_a_warning_with_a_suggestion() -> None:
    assert xlcfg.load(MINIMAL + "memroy=5").warnings == ["unknown key memroy ignored: did you mean memory?"]
    assert xlcfg.load(MINIMAL + "zzzzzz=5").warnings == ["unknown key zzzzzz ignored"]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("memory=0", "memory", "0 MiB"),
        ("memory='-1'", "memory", "-1 MiB"),
        ("name=''", "name", "missing"),
        ("name=['x']", "name", "missing"),
        ("name=27", "name", "domid"),
        ("name='..'", "name", "not '.' or '..'"),
        ("type='vm'", "type", "no such type"),
        ("builder='xen'", "builder", "no such builder"),
        ("type='hvm'; vga='vmware'", "vga", "not supported: 'vmware'"),
        ("type='hvm'; boot='x'", "boot", "'x': c (disks)"),
        ("type='hvm'; seed=1", "seed", "not for a domain of type hvm"),
        ("type='hvm'; engine='translator'", "engine", "no engine of a domain of type hvm"),
        ("type='hvm'; vif=['model=ne3000']", "vif", "no such model of a network card: 'ne3000'"),
        ("uuid='x'", "uuid", "not a UUID"),
        ("on_crash='explode'", "on_crash", "no such action"),
        ("on_crash='rename-restart'", "on_crash", "coredump-restart starts it again and keeps its memory"),
        ("on_soft_reset='sometimes'", "on_soft_reset", "no such action"),
        ("bootloader='lilo'", "bootloader", "not supported: 'lilo'"),
        ("firmware='pvgrub64'", "firmware", "there is a kernel or a bootloader, too"),
        ("firmware='bios'", "firmware", "not for a PV domain: 'bios' (pvgrub64 or pvgrub32)"),
        ("driver_domain=1", "driver_domain", "not supported yet"),
        ("cpus='node:1'", "cpus", "there is no node 1"),
        ("bootloader='pygrub'", "bootloader", "there is a kernel, too"),
        ("pci=['01:00.0']", "pci", "not supported yet"),
        ("cpus='4000'", "cpus", "there is no 4000"),
        ("rtc_timeoffset=99999999999", "rtc_timeoffset", "99999999999 is not possible"),
        ("cap=9999", "cap", "9999 is not possible"),
        ("memory=128; maxmem=64", "maxmem", "64 MiB is not possible"),
        ("max_grant_frames=0", "max_grant_frames", "0 is not possible"),
        ("max_event_channels='-1'", "max_event_channels", "-1 is not possible"),
        ("vcpus=4; maxvcpus=2", "maxvcpus", "2 is not possible: from the 4 that"),
        ("vif=['script=x']", "vif", "script is not supported"),
        ("disk=['a,vpc,xvda']", "disk", "no such format: 'vpc'"),
        ("memory=", "memory", "line 2: expected a value, found nothing"),
        ("memory=many", "memory", "line 2: expected a value, found 'many' (a string needs quotes)"),
        ("vif=['' 'x']", "vif", "line 2: expected ',' or ']'"),
        ("vif=['',", "vif", "expected a value, found nothing"),
        ("memory 5", "memory", "line 2: expected '='"),
        ("memory=5 5", "memory", "line 2: expected the end of the line"),
        ("x='open", "x", "line 2: a string that does not end"),
        ("x=5 & y=6", "x", "line 2: expected the end of the line after x's value, found '&'"),
        ("'x'=5", None, "line 2: expected a key"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_key_and_the_line(text: str, key: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        xlcfg.load(MINIMAL + text)
    assert caught.value.key == key
    assert message in str(caught.value)


@pytest.mark.parametrize(("text", "key"), [('name="a"', "kernel"), ('kernel="/k"', "name"), ("", "kernel")])
def test_mandatory_keys_are_asked_for(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        xlcfg.load(text)
    assert caught.value.key == key


def test_all_problems_of_a_file_are_told_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        xlcfg.load("memory=1; vcpus=99; on_crash='x'; uuid='y'; pci=['q']; type='vm'; name='7'")
    keys = [error.key for error in caught.value.errors]
    assert sorted(map(str, keys)) == sorted(["memory", "vcpus", "on_crash", "uuid", "pci", "type", "name", "kernel"])
    assert len(str(caught.value).splitlines()) == 8


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("memory='512M'", "memory ignored: expected a number, found '512M'"),
        ("memory='08'", "memory ignored: expected a number, found '08'"),
        ("vcpus=[1]", "vcpus ignored: expected a number, found a list"),
        ("vcpus=1; vcpus+=2", "vcpus ignored: expected a number that is not made with +=, found '12'"),
        ("vif='x'", "vif ignored: expected a list of strings, found 'x'"),
        ("disk=[['x']]", "disk ignored: expected a list of strings, found a list"),
        ("pci='x'", "pci ignored: expected a list, found 'x'"),
        ("bootloader=['x']", "bootloader ignored: expected a string, found a list"),
        ("ramdisk=['x']", "ramdisk ignored: expected a string, found a list"),
    ],
)
def test_a_value_of_the_wrong_kind_is_ignored_with_a_warning_as_in_xl(text: str, warning: str) -> None:
    parsed = xlcfg.load(MINIMAL + text)
    assert parsed.warnings == [f"xl.cfg, line 2: {warning}"]
    assert (parsed.config.memory_mib, parsed.config.vcpus, parsed.config.vifs) == (256, 1, [])


def test_values_that_read_otherwise_in_other_languages_are_read_as_by_xl() -> None:
    text = """name=5e3; kernel=7; memory="0x100"; vcpus='02'; cap="0"; pvshim='0'; vncdisplay=08; max_event_channels=08
extra='a'
extra+=' b'
vfb=[]
vfb+=[]
x.y=1"""
    parsed = xlcfg.load(text)
    config = parsed.config
    assert (config.name, config.kernel, config.memory_mib, config.vcpus) == ("5e3", "7", 256, 2)
    assert config.cmdline == "a b"
    assert parsed.warnings == [
        "unknown key x.y ignored",
        "vncdisplay: for HVM domains only; a PV domain has no such thing",
        "xl.cfg, line 1: max_event_channels ignored: expected a number, found '08'",
    ]


def test_memory_beyond_the_start_and_limits_are_the_domains() -> None:
    config = xlcfg.load(
        MINIMAL + "memory=128; maxmem=1024; max_event_channels=77; max_grant_frames='0x20'; max_grant_version=1"
    ).config
    assert (config.memory_mib, config.static_max_mib) == (128, 1024)
    assert (config.max_event_channels, config.max_grant_frames, config.max_grant_version) == (77, 32, 1)
    assert xlcfg.load(MINIMAL + "maxmem=77").config.memory_mib == 77


MANUAL = """
acpi acpi_firmware acpi_laptop_slate acpi_s3 acpi_s4 altp2m altp2mhvm apic bios bios_path_override boot bootloader
bootloader_args builder cap channel cmdline cpu_weight cpuid cpus cpus_soft device_model_args device_model_args_hvm
device_model_args_pv device_model_override device_model_stubdomain_override device_model_stubdomain_seclabel
device_model_user device_model_version device_tree disk dm_restrict driver_domain dtdev e820_host extra firmware
gfx_passthru gic_version hap hdtype hpet init_seclabel iomem ioports irqs kernel keymap localtime max_event_channels
max_grant_frames max_grant_version max_maptrack_frames maxmem maxvcpus mca_caps memory mmio_hole ms_vm_genid
msr_relaxed name nestedhvm nographic nomigrate nx on_crash on_poweroff on_reboot on_soft_reset on_watchdog oos opengl
p9 pae passthrough pci pci_msitranslate pci_permissive pci_power_mgmt pci_seize pool pvcalls pvshim pvshim_cmdline
pvshim_extra pvshim_path ramdisk rdm rdm_mem_boundary root rtc_timeoffset sdl seclabel serial shadow_memory
smbios_firmware soundhw spice spice_clipboard_sharing spice_image_compression spice_streaming_video spiceagent_mouse
spicedisable_ticketing spicehost spicepasswd spiceport spicetls_port spiceusbredirection spicevdagent stdvga
stubdomain_cmdline stubdomain_kernel stubdomain_memory stubdomain_ramdisk tee timer_mode tsc_mode type usb usbctrl
usbdev usbdevice usbversion uuid vcpus vdispl vendor_device vfb vga videoram vif viridian vkb vkb_device
vmtrace_buf_kb vnc vncdisplay vnclisten vncpasswd vncunused vnuma vpmu vpt_align vsnd vtpm vuart xen_platform_pci
xend_suspend_evtchn_compat
"""
"""The keys that xl.cfg(5) of Xen 4.17 describes: `KEY=` at the begin of its entries."""
HONOURED = {
    "name": "'b'",
    "type": "'pv'",
    "builder": "'generic'",
    "uuid": "'00000000-0000-0000-0000-000000000001'",
    "pool": "'Pool-0'",
    "nomigrate": "1",
    "vcpus": "2",
    "maxvcpus": "2",
    "cpus": "'node:0'",
    "cap": "50",
    "cpu_weight": "512",
    "memory": "64",
    "maxmem": "256",
    "kernel": "'/x'",
    "ramdisk": "'/r'",
    "cmdline": "'c'",
    "root": "'r'",
    "extra": "'e'",
    "disk": "['/d,raw,xvda,rw']",
    "vif": "['']",
    "p9": "['tag=t,path=/p,security_model=none']",
    "channel": "['connection=pty,name=c']",
    "vfb": "['vnc=1,vncpasswd=x']",
    "cpuid": "'host,sse4_2=0'",
    "localtime": "1",
    "rtc_timeoffset": "60",
    "on_poweroff": "'restart'",
    "on_reboot": "'destroy'",
    "on_crash": "'preserve'",
    "on_watchdog": "'restart'",
    "on_soft_reset": "'restart'",
    "max_event_channels": "99",
    "max_grant_frames": "9",
    "max_maptrack_frames": "9",
    "max_grant_version": "1",
    "bootloader": "'pygrub'",
    "firmware": "'pvgrub64'",
}
"""Keys that do what they say, with a value that says something."""


def test_every_key_of_the_manual_is_known() -> None:
    keys = set(MANUAL.split())
    assert keys <= xlkeys.KNOWN
    assert set(HONOURED) == keys & xlkeys.HONOURED
    kinds = [xlkeys.HONOURED, xlkeys.REFUSED, *(reason.keys for reason in xlkeys.REASONS)]
    assert sum(map(len, kinds)) == len(xlkeys.KNOWN), "a key is of one kind"


@pytest.mark.parametrize("key", sorted(HONOURED.keys() - {"name", "kernel", "type", "builder", "pool", "nomigrate"}))
def test_a_key_that_is_honoured_changes_the_configuration(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grub, "find_pvgrub", lambda cache=None, kind="x86_64": Path(f"/grub/{kind}"))
    base = 'name="a"; uuid="00000000-0000-0000-0000-000000000009"\n'
    base += "disk=['/d,raw,xvdz,r']\n" if key in ("bootloader", "firmware") else 'kernel="/k"\n'
    before, after = xlcfg.load(base), xlcfg.load(f"{base}{key}={HONOURED[key]}")
    assert after.warnings == []
    if key in ("bootloader", "firmware"):  # a disk alone is started by GRUB, too
        assert after.config.kernel == before.config.kernel == "/grub/x86_64"
    else:
        assert replace(after.config) != replace(before.config)


def test_grub_is_the_one_of_the_domains_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grub, "find_pvgrub", lambda cache=None, kind="x86_64": Path(f"/grub/{kind}"))
    assert xlcfg.load("name='a'; disk=['/d,raw,xvda,w']; firmware='pvgrub32'").config.kernel == "/grub/i386"
    monkeypatch.setattr(grub, "find_pvgrub", lambda cache=None, kind="x86_64": None)
    with pytest.raises(ConfigErrors, match="GRUB's PV kernel is not here: pvgrub32"):
        xlcfg.load("name='a'; disk=['/d,raw,xvda,w']; firmware='pvgrub32'")


@pytest.mark.parametrize("key", sorted(set(MANUAL.split()) & xlkeys.WITHOUT_EFFECT))
def test_a_key_without_effect_is_named_with_what_happens_instead(key: str) -> None:
    (warning,) = xlcfg.load(f"{MINIMAL}{key}='x'").warnings
    assert re.fullmatch(rf"{key}: \w.*", warning) and "unknown" not in warning
    for nothing in ("''", "[]", "0"):
        assert xlcfg.load(f"{MINIMAL}{key}={nothing}").warnings == []


def test_keys_without_effect_for_one_reason_are_one_warning() -> None:
    warnings = xlcfg.load(MINIMAL + "acpi=1; vkb=['x']; apic=1; pool='other'; tsc_mode='default'").warnings
    assert warnings == [
        "pool: all processors of the host are one pool, Pool-0",
        "acpi, apic: for HVM domains only; a PV domain has no such thing",
        "vkb: keyboard and pointer come with vfb",
    ]


@pytest.mark.parametrize("key", sorted(xlkeys.REFUSED))
def test_a_device_that_cannot_be_had_is_refused_by_name(key: str) -> None:
    value = "1" if key == "driver_domain" else "['x']"
    with pytest.raises(ConfigErrors, match=f"{key}: .*not supported yet"):
        xlcfg.load(f"{MINIMAL}{key}={value}")
    assert xlcfg.load(f"{MINIMAL}{key}={'0' if key == 'driver_domain' else '[]'}").warnings == []


# What people have in their files: Xen's own example of a PV guest, and files as installers and guides print them.
FILES = {
    "pvlinux": """# comment
name = "example.pvlinux"
#uuid = "XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX"
kernel = "/boot/vmlinuz"
#ramdisk = "/boot/initrd.gz"
extra = "root=/dev/xvda1"
memory = 128
#maxmem = 512
vcpus = 2
vif = [ '' ]
disk = [ '/dev/vg/guest-volume,raw,xvda,rw' ]
""",
    "xen-tools": """
bootloader  = 'pygrub'
vcpus       = '1'
memory      = '512'
root        = '/dev/xvda2 ro'
disk        = [
                  'phy:/dev/vg0/mail-disk,xvda2,w',
                  'phy:/dev/vg0/mail-swap,xvda1,w',
              ]
name        = 'mail'
vif         = [ 'ip=10.0.0.7 ,mac=00:16:3E:AA:BB:CC' ]
on_poweroff = 'destroy'
on_reboot   = 'restart'
on_crash    = 'restart'
""",
    "alpine": """name = "alpine"
type = "pv"
kernel = "/root/vmlinuz-virt"
ramdisk = "/root/initramfs-virt"
extra = "modules=loop,squashfs console=hvc0"
disk = [ 'format=raw, vdev=xvda, access=w, target=/data/a1.img',
         'format=raw, vdev=xvdc, access=r, devtype=cdrom, target=/data/alpine.iso' ]
vif = [ 'bridge=xenbr0' ]
vfb = [ 'type=vnc,vncpasswd=x' ]
memory = 512
vcpus = 2
serial = "pty"
""",
    "netbsd": """name = "netbsd"
kernel = "/usr/pkg/etc/xen/netbsd-XEN3_DOMU"
memory = 64
disk = [ 'file:/home/netbsd.img,0x1,w' ]
vif = [ 'mac=aa:00:00:d1:00:09,bridge=bridge0' ]
""",
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_people_have_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grub, "find_pvgrub", lambda cache=None, kind="x86_64": Path("/grub"))
    parsed = xlcfg.load(FILES[name])
    assert parsed.config.disk_specs and parsed.config.vif_specs
    assert not [warning for warning in parsed.warnings if "unknown" in warning]


def test_a_file_for_an_hvm_domain_is_understood() -> None:
    """As Debian's and the Xen wiki's examples have it."""
    parsed = xlcfg.load(
        """
        builder = "hvm"
        name = "windows"
        memory = 1024
        vcpus = 2
        disk = ["phy:/dev/vg/win,hda,w", "file:/iso/win.iso,hdc:cdrom,r"]
        vif = ["type=ioemu,model=e1000,bridge=lan"]
        boot = "dc"
        bios = "ovmf"
        hdtype = "ahci"
        vga = "cirrus"
        videoram = 8
        vnc = 1
        vnclisten = "127.0.0.1"
        vncpasswd = "secret"
        usb = 1
        usbdevice = "tablet"
        serial = "pty"
        acpi = 1
        hpet = 0
        viridian = 1
        sdl = 0
        device_model_version = "qemu-xen"
        """
    )
    config = parsed.config
    assert config.type.value == "hvm" and not config.kernel
    assert config.hvm == HvmOptions(
        firmware=Firmware.UEFI, boot="dc", hdtype=DiskBus.AHCI, vga=Screen.CIRRUS, videoram_mib=8, hpet=False
    )
    assert config.vfbs == ["vnc=1,vnclisten=127.0.0.1,vncpasswd=secret"] and config.console == "pty"
    assert [spec.vdev for spec in config.disk_specs] == ["hda", "hdc"] and config.vif_specs[0].model == "e1000"
    assert sorted(parsed.warnings) == [
        "device_model_version: the device model is the QEMU that is installed, confined as it always is",
        "viridian: Hyper-V's interface is not offered",
    ]


def test_a_screen_of_an_hvm_domain_is_shown_unless_it_is_switched_off() -> None:
    text = "name='x'; type='hvm'; "
    assert xlcfg.load(text).config.vfbs == ["vnc=1"]
    assert xlcfg.load(text + "vnc=0").config.vfbs == []
    dark = xlcfg.load(text + "vga='none'").config
    assert dark.vfbs == [] and not dark.has_screen
