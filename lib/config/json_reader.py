"""Reads JSON and keeps the line of every key and value, so that a mistake can be reported with its line.

Python's json module keeps no positions and silently drops the first of two equal keys. In a file that people edit,
both must be reported.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # undocumented; json.loads reads strings with it

_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r'[^\s,:{}\[\]"]+')
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_CONSTANTS = {"true": True, "false": False, "null": None}
MAX_DEPTH = 20


class JsonSyntaxError(ValueError):
    """The text is not JSON; `line` and `column` count from 1."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        super().__init__(problem)
        self.line, self.column = line, column


@dataclass(frozen=True)
class Node:
    """One value and the line on which it begins. For a member of an object: the line of its key."""

    value: dict[str, Node] | list[Node] | str | int | float | bool | None
    line: int
    #: names that this object holds twice, with the line of the second; the first value is kept
    duplicates: tuple[tuple[str, int], ...] = ()

    @property
    def members(self) -> dict[str, Node]:
        """The members of an object; anything else has none."""
        return self.value if isinstance(self.value, dict) else {}


def read_json(text: str) -> Node:
    """Parse strictly (RFC 8259: no comments, no trailing commas, no NaN); raises JsonSyntaxError."""
    reader = _JsonParser(text, [match.start() for match in re.finditer("\n", text)])
    node = reader.node(reader.skip(0), depth=0)
    end = reader.skip(reader.end)
    if end < len(text):
        raise reader.error(f"expected the end of the file, found {reader.found(end)}", end)
    return node


@dataclass
class _JsonParser:
    text: str
    newlines: list[int]
    #: the position after the last value or mark that was read
    end: int = field(default=0)

    def node(self, start: int, depth: int) -> Node:
        """The value that begins at `start`."""
        first = self.text[start : start + 1]
        if depth > MAX_DEPTH:
            raise self.error("nested too deeply", start)
        if first == "{":
            return self.object(start, depth)
        if first == "[":
            return self.array(start, depth)
        if first == '"':
            return Node(self.string(start), self.line(start))
        word = _WORD.match(self.text, start)
        if word and word[0] in _CONSTANTS:
            self.end = word.end()
            return Node(_CONSTANTS[word[0]], self.line(start))
        number = _NUMBER.fullmatch(word[0]) if word and len(word[0]) <= 30 else None
        if not word or not number:
            raise self.error(f"expected a value, found {self.found(start)}", start)
        self.end = word.end()
        return Node(float(word[0]) if number[1] or number[2] else int(word[0]), self.line(start))

    def object(self, start: int, depth: int) -> Node:
        members: dict[str, Node] = {}
        duplicates: list[tuple[str, int]] = []
        position = self.skip(start + 1)
        if self.text[position : position + 1] == "}":
            self.end = position + 1
            return Node(members, self.line(start))
        while True:
            if self.text[position : position + 1] != '"':
                raise self.error(f"expected a name in double quotes, found {self.found(position)}", position)
            key, line = self.string(position), self.line(position)
            colon = self.skip(self.end)
            if self.text[colon : colon + 1] != ":":
                raise self.error(f"expected ':' after {key!r}, found {self.found(colon)}", colon)
            child = self.node(self.skip(colon + 1), depth + 1)
            if key in members:
                duplicates.append((key, line))
            else:
                members[key] = Node(child.value, line, child.duplicates)
            closed, position = self.comma_or("}", start)
            if closed:
                return Node(members, self.line(start), tuple(duplicates))

    def array(self, start: int, depth: int) -> Node:
        items: list[Node] = []
        position = self.skip(start + 1)
        if self.text[position : position + 1] == "]":
            self.end = position + 1
            return Node(items, self.line(start))
        while True:
            items.append(self.node(position, depth + 1))
            closed, position = self.comma_or("]", start)
            if closed:
                return Node(items, self.line(start))

    def comma_or(self, closing: str, start: int) -> tuple[bool, int]:
        """After a member: (True, end) if the closing bracket follows, else (False, start of the next member)."""
        position = self.skip(self.end)
        mark = self.text[position : position + 1]
        if mark == closing:
            self.end = position + 1
            return True, self.end
        if mark != ",":
            if mark in ('"', "{", "[") and mark and self.line(position) > self.line(self.end):
                raise self.error("a comma is missing at the end of this line", self.end)
            opened = f"{self.text[start]!r} of line {self.line(start)}"
            raise self.error(f"expected ',' or {closing!r} (for the {opened}), found {self.found(position)}", position)
        following = self.skip(position + 1)
        if self.text[following : following + 1] == closing:
            raise self.error(f"a comma too many before {closing!r}", position)
        return False, following

    def string(self, start: int) -> str:
        value: str
        try:
            value, self.end = scanstring(self.text, start + 1, True)
        except JSONDecodeError as error:
            if "Unterminated" in error.msg or self.text[error.pos : error.pos + 1] == "\n":
                raise self.error("text that is not closed with a double quote", start) from None
            raise self.error(error.msg.removesuffix(" at"), error.pos) from None
        return value

    def skip(self, position: int) -> int:
        space = _SPACE.match(self.text, position)
        return space.end() if space else position

    def found(self, position: int) -> str:
        """What is at this position, in words, for a message."""
        rest = self.text[position:]
        if not rest:
            return "the end of the file"
        if rest.startswith(("//", "/*", "#")):
            return "a comment (JSON has none)"
        if rest.startswith("'"):
            return "a single quote (JSON needs double quotes)"
        word = _WORD.match(rest)
        return repr(word[0][:30] if word else rest[0])

    def line(self, position: int) -> int:
        return bisect_left(self.newlines, position) + 1

    def error(self, problem: str, position: int) -> JsonSyntaxError:
        return JsonSyntaxError(problem, self.line(position), position - self.text.rfind("\n", 0, position))
