"""An object store for exports that serves GET with ranges, like a cloud.

This module has the objects, byte ranges and preconditions. Who may read what, and how each cloud forms its URLs, is in
`store_access`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.messages import Request, Response

_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


@dataclass(frozen=True)
class StoredObject:
    """An object's bytes (`data`, or the file `path`) and what a store reports about them."""

    size: int
    md5: bytes
    #: changes when the object is replaced
    generation: int
    path: Path | None = None
    data: bytes = b""

    @property
    def etag(self) -> str:
        return f'"{self.md5.hex()}"'


class ObjectStore:
    """Objects by (bucket or container, key)."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], StoredObject] = {}

    def put(self, bucket: str, key: str, stored: StoredObject) -> None:
        self._objects[bucket, key] = stored

    def get(self, bucket: str, key: str) -> StoredObject | None:
        return self._objects.get((bucket, key))

    def remove(self, bucket: str, prefix: str) -> None:
        """Remove every object whose key begins with the prefix."""
        for place in [place for place in self._objects if place[0] == bucket and place[1].startswith(prefix)]:
            del self._objects[place]


def serve(stored: StoredObject, request: Request, headers: Mapping[str, str]) -> Response:
    """Answer GET or HEAD of an object with the whole object or the requested range (RFC 9110, sections 13 and 14).

    Answers 200 or 206; 412 if If-Match or a generation precondition names another version; 416 for a range beyond the
    end. An invalid range, or several ranges, are ignored: the answer is then the whole object.
    """
    shown = {"ETag": stored.etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    if not _still_the_one(stored, request):
        return Response(412, shown)
    span = _span(request.headers.get("x-ms-range") or request.headers.get("range", ""), stored.size)
    if span is None:
        return _bytes(stored, 200, shown, 0, stored.size)
    start, end = span
    if start >= stored.size:
        return Response(416, {**shown, "Content-Range": f"bytes */{stored.size}"})
    return _bytes(stored, 206, {**shown, "Content-Range": f"bytes {start}-{end - 1}/{stored.size}"}, start, end - start)


def _bytes(stored: StoredObject, status: int, headers: dict[str, str], start: int, length: int) -> Response:
    if stored.path is None:
        return Response(status, headers, stored.data[start : start + length])
    return Response(status, headers, path=stored.path, start=start, length=length)


def _span(header: str, size: int) -> tuple[int, int] | None:
    """The first byte of the range and the one after its last; None: the whole object."""
    match = _RANGE.match(header)
    if not match or match[1] == match[2] == "":
        return None
    if match[1] == "":
        suffix = int(match[2])
        return (max(0, size - suffix), size) if suffix else (size, size)
    start = int(match[1])
    if match[2] and int(match[2]) < start:
        return None
    return start, min(size, int(match[2]) + 1) if match[2] else size


def _still_the_one(stored: StoredObject, request: Request) -> bool:
    if_match = request.headers.get("if-match", "*")
    generation = request.query().get("ifGenerationMatch") or request.headers.get("x-goog-if-generation-match")
    return (if_match == "*" or stored.etag in if_match.split(", ")) and generation in (None, str(stored.generation))
