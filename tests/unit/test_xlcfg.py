# SPDX-License-Identifier: Apache-2.0
"""xl.cfg files."""

import pytest

from domzero.dom0 import xlcfg
from domzero.dom0.config import Action
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
        ("type='hvm'", "type", "not supported yet"),
        ("type='vm'", "type", "no such type"),
        ("builder='hvm'", "builder", "not supported yet"),
        ("uuid='x'", "uuid", "not a UUID"),
        ("on_crash='explode'", "on_crash", "no such action"),
        ("on_crash='rename-restart'", "on_crash", "coredump-restart starts it again and keeps its memory"),
        ("on_soft_reset='sometimes'", "on_soft_reset", "no such action"),
        ("bootloader='lilo'", "bootloader", "not supported: 'lilo'"),
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
        xlcfg.load("memory=1; vcpus=99; on_crash='x'; uuid='y'; pci=['q']; type='hvm'; name='7'")
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
        "xl.cfg, line 1: max_event_channels ignored: expected a number, found '08'",
    ]


def test_memory_beyond_the_start_and_limits_are_the_domains() -> None:
    config = xlcfg.load(
        MINIMAL + "memory=128; maxmem=1024; max_event_channels=77; max_grant_frames='0x20'; max_grant_version=1"
    ).config
    assert (config.memory_mib, config.static_max_mib) == (128, 1024)
    assert (config.max_event_channels, config.max_grant_frames, config.max_grant_version) == (77, 32, 1)
    assert xlcfg.load(MINIMAL + "maxmem=77").config.memory_mib == 77
