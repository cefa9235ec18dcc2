"""xl.cfg files."""

import pytest

from domzero.dom0 import xlcfg
from domzero.dom0.config import Action
from domzero.errors import ConfigError

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


def test_values_of_all_kinds_are_read() -> None:
    text = """a=010;b=0x1F;c='it"s'; d="tab\\tquote\\"" ;e=[1,"two",[3],]
f=[ # comment
 'x',
 'y'
]"""
    values = xlcfg.parse_values(text)
    assert values == {"a": 8, "b": 31, "c": 'it"s', "d": 'tab\tquote"', "e": [1, "two", [3]], "f": ["x", "y"]}


def test_words_of_the_command_line_come_last_and_may_lack_their_quotes() -> None:
    config = xlcfg.load(MINIMAL + "memory=64", extra=["memory=128", "name=other", "vcpus='3'; extra='a b'"]).config
    assert (config.memory_mib, config.name, config.vcpus, config.cmdline) == (128, "other", 3, "a b")


def test_an_unknown_key_is_a_warning_with_a_suggestion() -> None:
    assert xlcfg.load(MINIMAL + "memroy=5").warnings == ["unknown key memroy ignored: did you mean memory?"]
    assert xlcfg.load(MINIMAL + "zzzzzz=5").warnings == ["unknown key zzzzzz ignored"]


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("memory='lots'", "memory", "expected a number"),
        ("memory=0", "memory", "0 MiB"),
        ("vcpus=[1]", "vcpus", "expected a number"),
        ("kernel=5", "kernel", "quoted string"),
        ("name=''", "name", "missing"),
        ("type='hvm'", "type", "not supported yet"),
        ("type='vm'", "type", "no such type"),
        ("builder='hvm'", "builder", "not supported yet"),
        ("uuid='x'", "uuid", "not a UUID"),
        ("on_crash='explode'", "on_crash", "no such action"),
        ("on_crash='coredump-restart'", "on_crash", "not supported yet"),
        ("bootloader='pygrub'", "bootloader", "not supported yet"),
        ("pci=['01:00.0']", "pci", "not supported yet"),
        ("cpus='0-3'", "cpus", "not supported yet"),
        ("cap=50", "cap", "not supported yet"),
        ("memory=128; maxmem=64", "maxmem", "less than"),
        ("memory=128; maxmem=1024", "maxmem", "not supported yet"),
        ("vif=''", "vif", "list of quoted strings"),
        ("disk=[1]", "disk", "list of quoted strings"),
        ("memory=", "memory", "line 2: expected a value, found nothing"),
        ("memory=many", "memory", "line 2: expected a value, found 'many' (a string needs quotes)"),
        ("vif=['' 'x']", "vif", "line 2: expected ',' or ']'"),
        ("vif=['',", "vif", "expected a value, found nothing"),
        ("memory 5", "memory", "line 2: expected '='"),
        ("memory=5 5", "memory", "line 2: expected the end of the line"),
        ("x='open", None, "line 2: a string that does not end"),
        ("x=5 & y=6", None, "line 2: a stray '&'"),
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
