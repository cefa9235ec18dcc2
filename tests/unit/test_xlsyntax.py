# SPDX-License-Identifier: Apache-2.0
"""The syntax of xl.cfg files, compared with libxlutil's."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from xlutil import XlUtil, library

from domzero.dom0.xlcfg import to_number
from domzero.dom0.xlsyntax import PYTHON_HINT, Value, parse, parse_words
from domzero.errors import ConfigErrors

KEYS = ["a", "b", "a.b", "a_b", "b9", "c..d", "e."]
CASES = [
    *("a=08", 'a="08"', "a=010", "a='0x1f'", "a=0x1f", "a=12ab", "a=1 2", "a=0x", "a='-1'", "a=' 5'", "a='5 '"),
    *("a=99999999999999999999", "a='9223372036854775807'", "a='-9223372036854775809'", "a='+5'", "a=''", "a=-1"),
    *("a='x\\060y'", "a='\\101'", "a='\\x41'", "a='\\q'", "a='\\8'", "a='\\1'", "a='x\\'y'", 'a="x\\"y"', "a='\\'"),
    *("a='\\a\\b\\f\\n\\r\\t\\v\\\\'", 'a="\'"', "a='#x;[,]'", "a='tab\tx'", "a='é→'", "a='multi\nline'"),
    *("a.b=1", "A=1", "_a=1", "a-b=1", "c..d=1", "e.=2", "a=1;b=2", "a=1;;b=2;", ";a=1", "a=5\na=6", "a\n=5", "a=\n5"),
    *("a='x'\na+='y'", "a+='y'", "a=['x']\na+=['y','z']", "a=['x']\na+='y'", "a='x'\na+=['y']", "a=5\na+=6", "a+=5"),
    *("a+=[]", "a=[]\na+=['y']", "a=['x']\na='y'", "a='y'\na=['x']", "a+ =5", "a= +5", "a=['x']+['y']", "a='x' + 'y'"),
    *(
        "a=[1,2,[3,'4'],]",
        "a=['x',\n # c\n 'y' # d\n ,\n 'z'\n]",
        "a=[ ]",
        "a=[,]",
        "a=[1\n2]",
        "a=['x' 'y']",
        "a=['x'",
    ),
    *(
        "a=[['x']\n,'y']",
        "a=['x';'y']",
        "a=['x',,'y']",
        "a=" + "[" * 20 + "1" + "]" * 20,
        "a=1,",
        "'x'=1",
        "=5",
        "a",
        "a=",
    ),
    *(
        "a='''x'''",
        "import os\n",
        "a=os.getcwd()\n",
        "a=('x','y')\n",
        "a=True\n",
        "a={}\n",
        "a=1.5\n",
        "a='x\n",
        "a==1\n",
    ),
    *("a=1 # c\n", "# c\na=1\n", " a = 1 \n", "\ta\t=\t1\n", "\n\n\n", "", "a=1\x0bb=2\n", "a=1\x00\n"),
]


@pytest.fixture(scope="module")
def oracle() -> XlUtil:
    lib = library()
    if lib is None:
        pytest.skip("libxlutil is not here (Debian's libxen-dev brings it)")
    return XlUtil(lib)


def ours(text: str) -> dict[str, tuple[Value, int | None]] | None:
    try:
        settings = parse(text)
    except ConfigErrors:
        return None
    numbers = {
        key: to_number(one.value) if isinstance(one.value, str) and not one.added else None
        for key, one in settings.items()
    }
    return {key: (settings[key].value, numbers[key]) for key in KEYS if key in settings}


@pytest.mark.parametrize("text", CASES)
def test_a_file_means_what_it_means_to_xl(oracle: XlUtil, text: str) -> None:
    assert ours(text) == oracle.read(text, KEYS)


def generated(seed: int, count: int) -> Iterator[str]:
    """Files put together from pieces that are mostly right."""
    draw = random.Random(seed)
    scalars = [
        "0",
        "7",
        "08",
        "010",
        "0x1f",
        "12ab",
        "''",
        '"x"',
        "'a b'",
        "'-3'",
        '"0x10"',
        "'\\n\\060'",
        '"\\""',
        "'\\x'",
    ]

    def value(depth: int = 0) -> str:
        if draw.random() < 0.7 or depth == 3:
            return draw.choice(scalars)
        gap = draw.choice(["", " ", "\n", " # c\n"])
        items = [value(depth + 1) for _ in range(draw.randrange(4))]
        comma = "," if items and draw.random() < 0.2 else ""
        return f"[{gap}{(gap + ',' + gap).join(items)}{gap}{comma}{gap}]"

    for _ in range(count):
        lines = []
        for _ in range(draw.randrange(1, 6)):
            line = draw.choice(KEYS) + draw.choice(["=", "=", " = ", "+=", "\t="]) + value()
            if draw.random() < 0.1:
                cut = draw.randrange(len(line))
                line = (
                    line[:cut] + draw.choice(["", "]", "[", ",", "'", "=", " ", "(", "x", "\\", "\n"]) + line[cut + 1 :]
                )
            lines.append(line + draw.choice(["", " ", " # c"]))
        yield draw.choice(["\n", ";", "\n\n"]).join(lines) + "\n"


def test_files_put_together_at_random_mean_what_they_mean_to_xl(oracle: XlUtil) -> None:
    for text in generated(7, 1500):
        assert ours(text) == oracle.read(text, KEYS), text


@pytest.mark.parametrize("text", ["a=1\r\nb='x'\r\n", "b=2 # c", "a=0x1F\n"])
def test_what_is_taken_beyond_xl_is_what_people_write(text: str) -> None:
    assert ours(text)


def test_all_problems_of_a_file_are_told_at_once() -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse("a=1\nb=(2)\nName=3\na=[1 2]\nb='\\q'\na=1 b=2\n", "f")
    assert len(caught.value.errors) == 5
    assert str(caught.value).splitlines()[1] == "f, line 3: expected a key, found 'N' (keys are in lower case)"


@pytest.mark.parametrize(
    "text",
    [
        "import os\nname = 'x'",
        "name = 'x'\ndef f():\n  return 1",
        "a = os.getcwd() + 'x'",
        "a = ('x', 'y')",
        "if 1:\n a = 2",
        "a = 'x' + 'y'",
        "a = 'x%d' % 5",
        'a = """x"""',
        "a = {}",
        "a = True",
    ],
)
def test_a_python_file_is_called_one(text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(text)
    assert PYTHON_HINT in str(caught.value)


def test_a_file_that_is_right_or_only_wrong_is_not_called_python() -> None:
    parse("#!/usr/bin/python\n# import os\na = 'import os'\n")
    with pytest.raises(ConfigErrors) as caught:
        parse("a = 5 5\n")
    assert PYTHON_HINT not in str(caught.value)


def test_words_of_the_command_line_may_lack_their_quotes_and_may_add() -> None:
    settings = parse_words(["a+= z", "b=a=b\\n", "a_b=[1,'2']", "b9='x';e.=08"], parse("a='x'"))
    values = {key: setting.value for key, setting in settings.items()}
    assert values == {"a": "x z", "b": "a=b\\n", "a_b": ["1", "2"], "b9": "x", "e.": "08"}
