"""Reads one object of an export as a stream of CSV bytes and resumes after a cut connection.

Between a store and COPY it resumes, counts and gunzips the bytes, and checks the header line of a file that is not
sliced. It contains nothing about a particular cloud (see `object_stores`) and calls no Keboola API: `access` supplies
credentials. Memory use does not depend on the size of the object.
"""

from __future__ import annotations

import csv
import io
import re
import zlib
from typing import TYPE_CHECKING, Protocol

import requests
from isal import isal_zlib

from lib.errors import ExtractError
from lib.extract import ExportGone
from lib.extract.http import CUT, NETWORK_ERRORS, Failure, Http, Retries, is_transient, text_of
from lib.extract.object_stores import Location

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: bytes per read from the connection, and the most bytes that one step of gunzip returns
RAW_BLOCK = 256 * 1024
CSV_BLOCK = 1024 * 1024
#: after this many bytes, earlier failures no longer count
PROGRESS = 1024 * 1024
#: in bytes; header lines are much shorter, because column names have at most 64 characters
LONGEST_HEADER = 1024 * 1024

_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_RECORD = re.compile(rb'(?:"[^"]*"|[^"\n])*\n')
_S3_TOKEN = re.compile(r"<Code>\w*Token\w*</Code>")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class Access(Protocol):
    """Location and credentials of one file, shared by all readers of its objects."""

    def location(self) -> Location:
        """The location, with credentials that are not about to expire."""

    def renew(self, refused: Location) -> None:
        """Fetch new credentials, unless another reader has already replaced those of `refused`."""


class ObjectBytes:
    """All stored bytes of one object, in order, with retries if the connection breaks.

    `may_be_empty` False: an object of 0 bytes counts as a failed download and is tried again.
    """

    def __init__(self, http: Http, access: Access, key: str, subject: str, may_be_empty: bool = True) -> None:
        self._http, self._access, self._key, self._subject = http, access, key, subject
        self._may_be_empty = may_be_empty
        self._retries = Retries(http, subject)
        #: how often the object was asked for; more than 1 after cut connections
        self.tries = 1
        self._response: requests.Response | None = None
        self._position = 0
        self._counted_from = 0
        self._total: int | None = None
        self._etag: str | None = None
        self._generation: str | None = None

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; b"" only at the end of the object.

        Raises ExtractError if the bytes cannot be read, or if the object was replaced since the first read; ExportGone
        if it no longer exists."""
        while self._total is None or self._position < self._total:
            try:
                if self._response is None:
                    self._response = self._open()
                data = self._http.read(self._response, size)
            except NETWORK_ERRORS as error:
                failure = Failure(self._at(self._http.reason_of(error)), retry=is_transient(error))
            else:
                if data:
                    return self._count(data)
                total = self._position if self._total is None else self._total
                if total == 0 and not self._may_be_empty:
                    # the size and ETag belong to a failed download, so the next try must not rely on them
                    self._total = self._etag = None
                    failure = Failure("the object has 0 bytes, but even an empty gzip stream has 20")
                elif total == self._position:
                    self._total = total
                    break
                else:
                    failure = Failure(self._at(CUT))
            self.close()
            self._retries.wait(failure)
            self.tries += 1
        self.close()
        return b""

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _count(self, data: bytes) -> bytes:
        self._position += len(data)
        if self._position - self._counted_from >= PROGRESS:
            self._counted_from = self._position
            self._retries.reset()
        return data

    def _at(self, why: str) -> str:
        return f"{why} after {self._position} of {'?' if self._total is None else self._total} bytes"

    def _open(self) -> requests.Response:
        """The store's answer, ready to be read from the current position on."""
        response = self._ask()
        if response.status_code == 412:
            raise self._refused(response, "the object was replaced while it was read; run again")
        if response.status_code == 404:
            raise ExportGone(str(self._refused(response, "the object is gone (exported files live 2 days)")))
        if response.status_code == 416:
            raise self._refused(response, f"the object ends before byte {self._position}, it had {self._total}")
        if response.status_code not in (200, 206):
            raise self._refused(response, "the store refuses the object")
        start, total = self._extent(response)
        etag = response.headers.get("ETag")
        if self._position and (_differ(total, self._total) or _differ(etag, self._etag)):
            raise self._refused(response, "the object was replaced while it was read; run again")
        self._total = self._total if total is None else total
        self._etag = etag or self._etag
        self._generation = response.headers.get("x-goog-generation")
        self._response = response  # a failure from here on closes it
        self._skip(response, self._position - start)
        return response

    def _ask(self) -> requests.Response:
        """The store's answer. If it refuses the credentials, they are renewed once."""
        headers = {}
        if self._position:
            headers["Range"] = f"bytes={self._position}-"
            if self._etag and not self._etag.startswith("W/"):
                headers["If-Match"] = self._etag
        location = self._access.location()
        response = self._http.send(location.call(self._subject, self._key, self._generation, headers))
        if _refuses_credential(response):
            response.close()
            # a file can answer 403 for about a second after its creation (docs/keboola.md 6.3)
            self._http.pause(1.0)
            self._access.renew(location)
            location = self._access.location()
            response = self._http.send(location.call(self._subject, self._key, self._generation, headers))
        return response

    def _extent(self, response: requests.Response) -> tuple[int, int | None]:
        """Where the answer's body begins in the object, and the object's size."""
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not match or int(match[1]) != self._position:
                raise self._refused(response, "the store sent another byte range than was requested")
            return int(match[1]), int(match[2])
        length = response.headers.get("Content-Length", "")
        if length.isdigit():
            return 0, int(length)
        if response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise self._refused(response, "the store does not say how long the object is")
        return 0, None

    def _skip(self, response: requests.Response, count: int) -> None:
        """Read and discard `count` bytes that were read before, because the store ignored the Range header."""
        while count:
            data = self._http.read(response, min(count, RAW_BLOCK))
            if not data:
                raise requests.ConnectionError
            count -= len(data)

    def _refused(self, response: requests.Response, why: str) -> ExtractError:
        said = "" if response.status_code < 300 else f" ({self._http.words_of(response)})"
        response.close()
        return ExtractError(f"{self._subject}: {why}{said}")


def _differ(now: object, before: object) -> bool:
    """Whether both are known and different."""
    return None not in (now, before) and now != before


def _refuses_credential(response: requests.Response) -> bool:
    """Whether the store refuses the credentials, perhaps because they have expired (S3 then answers 400)."""
    if response.status_code == 400:
        return bool(_S3_TOKEN.search(text_of(response)[:2000]))
    return response.status_code in (401, 403)


class SliceStream(io.RawIOBase):
    """The CSV bytes of one object. Gzip is recognised by content and unpacked; it may have several members.

    `header`: the column names that the first line must hold; that line is then left out. None: there is no header.
    """

    def __init__(self, source: ObjectBytes, subject: str, header: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self._source, self._subject = source, subject
        self._pending = b""
        self._member: isal_zlib.Decompress | None = None
        self._plain: bool | None = None
        self._header = header
        self._ready = b""
        self._offset = 0

    def readable(self) -> bool:
        return True

    @property
    def tries(self) -> int:
        return self._source.tries

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises ExtractError if bytes are missing or damaged."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(CSV_BLOCK), b""))
        if self._header is not None:
            self._ready, self._header = self._after_header(self._header), None
        if self._offset >= len(self._ready):
            self._ready, self._offset = self._next(), 0
        data = self._ready[self._offset : self._offset + size]
        self._offset += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _next(self) -> bytes:
        """The next block of CSV bytes; b"" at the end."""
        if self._plain is None:
            while len(self._pending) < len(_PARQUET) and self._refill():
                pass
            if self._pending.startswith(_PARQUET):
                raise ExtractError(f"{self._subject} is a Parquet file; only CSV can be read")
            self._plain = not self._pending.startswith(_GZIP)
        if self._plain:
            data, self._pending = self._pending, b""
            return data or self._source.read(RAW_BLOCK)
        return self._gunzip()

    def _gunzip(self) -> bytes:
        while True:
            if not self._pending and not self._refill():
                if self._member is not None:
                    raise ExtractError(f"{self._subject}: the gzip data end early")
                return b""
            if self._member is None:
                # RFC 1952: members follow each other, and zero bytes may pad the end
                self._pending = self._pending.lstrip(b"\0")
                if not self._pending or (len(self._pending) < len(_GZIP) and self._refill()):
                    continue
                if not self._pending.startswith(_GZIP):
                    raise ExtractError(f"{self._subject}: the gzip data are damaged")
                self._member = isal_zlib.decompressobj(31)
            data = self._unpack(self._member)
            if self._member.eof:
                self._pending, self._member = self._member.unused_data, None
            else:
                self._pending = self._member.unconsumed_tail
            if data:
                return data

    def _unpack(self, member: isal_zlib.Decompress) -> bytes:
        """Unpack pending bytes, at most CSV_BLOCK bytes of output."""
        try:
            return member.decompress(self._pending, CSV_BLOCK)
        # isal's type stub declares `error` as an exception, but it is an exception class
        except (isal_zlib.error, zlib.error):  # type: ignore[misc]
            pass
        raise ExtractError(f"{self._subject}: the gzip data are damaged")

    def _refill(self) -> bool:
        """Append stored bytes to the pending ones. Returns False at the end of the object."""
        more = self._source.read(RAW_BLOCK)
        self._pending += more
        return bool(more)

    def _after_header(self, columns: tuple[str, ...]) -> bytes:
        """The bytes read so far after the first record, which must name the columns (docs/keboola.md 7.3)."""
        head = b""
        while not (match := _RECORD.match(head)):
            block = self._next()
            if not block or len(head) > LONGEST_HEADER:
                break
            head += block
        line = match[0] if match else head
        if not line:
            raise ExtractError(f"{self._subject} is empty where its header line was expected")
        text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
        try:
            names = next(csv.reader(io.StringIO(text, newline="")), [])
        except csv.Error:  # a field longer than any name
            names = []
        if tuple(names) != columns:
            raise ExtractError(f"{self._subject} begins with {text[:200]!r} where its header line was expected")
        return head[len(line) :]


def open_object(
    http: Http, access: Access, key: str, subject: str, *, is_gzip: bool, header: tuple[str, ...] | None = None
) -> SliceStream:
    """One object, read from its beginning. The first request is sent at the first read.

    is_gzip: the object was announced as gzip, so it cannot have 0 bytes. Whether it is unpacked depends on its content,
    because a store may already have unpacked it.
    """
    return SliceStream(ObjectBytes(http, access, key, subject, may_be_empty=not is_gzip), subject, header)
