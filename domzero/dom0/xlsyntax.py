# SPDX-License-Identifier: Apache-2.0
"""The syntax of xl.cfg files, as libxlutil reads it: every value is a string or a list.

Beyond libxlutil, three harmless things are taken: carriage returns before line ends, a comment on a last line without
a line end, and hexadecimal digits in upper case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from domzero.errors import ConfigError, ConfigErrors

Value: TypeAlias = "str | list[Value]"

DEPTH_MAX = 64
"""Lists in lists."""
ERRORS_MAX = 20
"""Problems of one file that are told; one at a line."""

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
      | (?P<newline>\n)
      | (?P<key>[a-z][a-z0-9_.]*)
      | (?P<number>[0-9][0-9a-fA-Fx]*)
      | (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
      | (?P<punctuation>\+=|[=,;\[\]])
      | (?P<stray>[^\n])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
_ESCAPES = {letter: plain for letter, plain in zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True)}
# xm's files were Python. What tells them: statements, calls, tuples, operators between values, triple quotes.
_PYTHON = re.compile(
    r"""^\s*(import|from|def|class|for|while|if|elif|else|try|except|print|return)\b[^=\n]*$
      | =\s*[A-Za-z_][\w.]*\( | =\s*[({] | ["'\])]\s*[+%*]\s*[\w"'(\[] | \'\'\'|\"\"\" | =\s*(True|False|None)\b""",
    re.VERBOSE | re.MULTILINE,
)
PYTHON_HINT = "the file looks like Python, as xm took it; an xl.cfg file has only KEY=VALUE lines"


@dataclass(slots=True)
class Setting:
    """One key's value.

    :param where: file and line, as messages begin with; empty for what the command line says.
    :param added: whether `+=` made it; libxlutil takes no number from such a value.
    """

    value: Value
    where: str
    added: bool = False


Settings: TypeAlias = dict[str, Setting]


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    line: int


class _Fault(Exception):
    """A problem in the statement under way; the parser goes on with the next line."""

    def __init__(self, error: ConfigError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class _Parser:
    text: str
    source: str
    settings: Settings
    errors: list[ConfigError] = field(default_factory=list)
    _tokens: list[_Token] = field(default_factory=list)
    _at: int = 0

    def parse(self) -> None:
        line = 1
        for match in _TOKEN.finditer(self.text):
            if match.lastgroup != "space":
                self._tokens.append(_Token(str(match.lastgroup), match.group(), line))
            line += match.group() == "\n"
        self._tokens.append(_Token("end", "", line))
        while self._peek().kind != "end":
            try:
                self._statement()
            except _Fault as fault:
                self.errors.append(fault.error)
                if len(self.errors) == ERRORS_MAX:
                    break
                while self._peek().kind not in ("newline", "end"):
                    self._at += 1
        if self.errors and _PYTHON.search(self.text):
            self.errors[0].hint = PYTHON_HINT

    def _statement(self) -> None:
        token = self._next()
        if token.kind == "newline" or token.text == ";":
            return
        if token.kind != "key":
            raise self._unexpected(token, "a key")
        key = token.text
        operator = self._next()
        if operator.text not in ("=", "+="):
            raise self._unexpected(operator, f"'=' after {key}", key)
        line = self._peek().line
        value = self._value(key, 0)
        end = self._peek()
        if end.kind not in ("newline", "end") and end.text != ";":
            raise self._unexpected(end, f"the end of the line after {key}'s value", key)
        self._set(key, Setting(value, self._where(line), operator.text == "+="))

    def _set(self, key: str, setting: Setting) -> None:
        if setting.added and (before := self.settings.get(key)) is not None:
            if isinstance(before.value, str) and isinstance(setting.value, str):
                setting.value = before.value + setting.value
            elif isinstance(before.value, list) and isinstance(setting.value, list):
                setting.value = [*before.value, *setting.value]
            else:
                raise _Fault(
                    ConfigError(f"{setting.where}+= joins strings, or lists, but not one with the other", key=key)
                )
        self.settings[key] = setting

    def _value(self, key: str, depth: int) -> Value:
        token = self._next()
        if token.kind == "string":
            return self._string(token, key)
        if token.kind == "number":
            return token.text
        if token.text != "[":
            hint = "a string needs quotes" if token.kind == "key" else "a value is a number, a quoted string or a list"
            raise self._unexpected(token, "a value", key, hint)
        if depth == DEPTH_MAX:
            raise self._fault(token.line, f"more than {DEPTH_MAX} lists in one another", key)
        return self._list(key, depth + 1)

    def _list(self, key: str, depth: int) -> list[Value]:
        values: list[Value] = []
        self._skip_newlines()
        while self._peek().text != "]":
            values.append(self._value(key, depth))
            self._skip_newlines()
            if self._peek().text == ",":
                self._at += 1
                self._skip_newlines()
            elif self._peek().text != "]":
                raise self._unexpected(self._peek(), "',' or ']' in the list", key)
        self._at += 1
        return values

    def _string(self, token: _Token, key: str) -> str:
        def plain(match: re.Match[str]) -> str:
            code = match[1]
            if len(code) == 3:
                return ""  # what libxlutil 4.17 makes of an octal escape
            if code not in _ESCAPES:
                raise self._fault(token.line, f"no such escape in a string: {match[0]}", key)
            return _ESCAPES[code]

        return _ESCAPE.sub(plain, token.text[1:-1])

    def _peek(self) -> _Token:
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def _next(self) -> _Token:
        token = self._peek()
        if token.kind != "end":
            self._at += 1
        return token

    def _skip_newlines(self) -> None:
        while self._peek().kind == "newline":
            self._at += 1

    def _unexpected(self, token: _Token, wanted: str, key: str | None = None, hint: str | None = None) -> _Fault:
        if token.kind == "newline":
            self._at -= self._tokens[self._at - 1] is token  # the line ends here: go on with the next one
        if token.kind == "stray" and token.text in "'\"":
            return self._fault(token.line, "a string that does not end on its line", key)
        if token.kind == "stray" and token.text.isalpha() and wanted == "a key":
            hint = "keys are in lower case"
        found = "nothing" if token.kind in ("newline", "end") else repr(token.text[:40])
        return self._fault(token.line, f"expected {wanted}, found {found}", key, hint)

    def _where(self, line: int) -> str:
        return f"{self.source}, line {line}: " if self.source else ""

    def _fault(self, line: int, what: str, key: str | None, hint: str | None = None) -> _Fault:
        return _Fault(ConfigError(f"{self._where(line)}{what}", key=key, hint=hint))


def parse(text: str, source: str = "xl.cfg", settings: Settings | None = None) -> Settings:
    """Keys and values of a file; the last one counts, `+=` adds to it.

    :param settings: what there is already; the file's come after it.
    :raises ConfigErrors: all problems of the syntax, with file and line.
    """
    found: Settings = dict(settings or {})
    parser = _Parser(text, source, found)
    parser.parse()
    if parser.errors:
        raise ConfigErrors(parser.errors)
    return found


def parse_words(words: Sequence[str], settings: Settings | None = None) -> Settings:
    """`key=value` words of a command line. The quotes around a single string, which a shell eats, may be missing."""
    found: Settings = dict(settings or {})
    for word in words:
        bare = re.fullmatch(r"([a-z][a-z0-9_.]*)(\+?=)([^'\"\[\];]*)", word, re.DOTALL)
        if bare:
            value = bare[3].replace("\\", "\\\\").replace("\n", "\\n")
            word = f'{bare[1]}{bare[2]}"{value}"'
        found = parse(word, "", found)
    return found
