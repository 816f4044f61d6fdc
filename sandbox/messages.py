"""Requests and responses of the sandbox as plain data, and the formats in which clients send parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import parse_qsl

_BRACKET = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True)
class Request:
    """One HTTP request. `path` is as it was sent, with percent-escapes. Header names are in lower case."""

    method: str
    path: str
    raw_query: str
    headers: Mapping[str, str]
    body: bytes = b""

    def query(self) -> dict[str, object]:
        return php_parameters(self.raw_query)

    def is_malformed(self) -> bool:
        """Whether the body does not match its content type, or cannot be read as parameters."""
        try:
            self.parameters()
        except (AttributeError, TypeError, ValueError):
            return True
        return False

    def parameters(self) -> dict[str, object]:
        """The parameters of query and body. The body is JSON or a form with PHP brackets (docs/keboola.md 1.3)."""
        parameters = self.query()
        if "json" in self.headers.get("content-type", ""):
            parameters.update(json.loads(self.body or b"{}"))
        else:
            parameters.update(php_parameters(self.body.decode("utf-8", "replace")))
        return parameters


@dataclass
class Response:
    """One HTTP response. The body is `data`, or `length` bytes of the file `path` from byte `start` on."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    path: Path | None = None
    start: int = 0
    length: int = 0
    #: faults: the byte of the body at which the connection closes, or waits; -1: before the response
    cut_at: int | None = None
    stall_at: int | None = None

    def __post_init__(self) -> None:
        if self.path is None:
            self.length = len(self.data)
        self.headers.setdefault("Content-Length", str(self.length))

    def body(self, begin: int, end: int) -> bytes:
        """The bytes of the body from `begin` up to `end`."""
        if self.path is None:
            return self.data[begin:end]
        with self.path.open("rb") as file:
            file.seek(self.start + begin)
            return file.read(end - begin)


def json_response(value: object, status: int = 200) -> Response:
    """JSON as PHP writes it: slashes and non-ASCII characters are escaped."""
    text = json.dumps(value).replace("/", "\\/")
    return Response(status, {"Content-Type": "application/json; charset=utf-8"}, text.encode())


def php_parameters(encoded: str) -> dict[str, object]:
    """`a=1&tags[]=x&f[0][column]=y` -> {"a": "1", "tags": ["x"], "f": [{"column": "y"}]}."""
    root: dict[str, object] = {}
    for name, value in parse_qsl(encoded, keep_blank_values=True):
        head, bracket, _ = name.partition("[")
        keys = [head, *_BRACKET.findall(name[len(head) :])] if bracket else [name]
        node = root
        for key in keys[:-1]:
            node = cast(dict[str, object], node.setdefault(key or str(len(node)), {}))
        node[keys[-1] or str(len(node))] = value
    return {name: _lists(value) for name, value in root.items()}


def _lists(node: object) -> object:
    if not isinstance(node, dict):
        return node
    values = [_lists(value) for value in node.values()]
    return values if all(key.isdigit() for key in node) else dict(zip(node, values, strict=True))


def truthy(value: object) -> bool:
    """A boolean in any of the formats that clients send (docs/keboola.md 1.3)."""
    return str(value).lower() in ("1", "true")
