"""Access to objects: the interface that each cloud's style implements, and presigned URLs (docs/keboola.md 6.1).

Google's style is in `store_gcs`. Those of the other clouds are in the tests.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from sandbox.messages import Request, Response
from sandbox.object_store import StoredObject

Clock = Callable[[], float]


@dataclass(frozen=True)
class Target:
    """The object that a request names."""

    bucket: str
    key: str


@dataclass(frozen=True)
class Grant:
    """What a credential allows: to read keys of `bucket` that begin with `prefix`, until `expires` (epoch seconds)."""

    bucket: str
    prefix: str
    expires: float

    def covers(self, target: Target) -> bool:
        return target.bucket == self.bucket and target.key.startswith(self.prefix)


class StoreStyle(Protocol):
    """How one cloud names objects, grants and refuses access, and describes objects."""

    provider: str
    region: str

    def place(self, project: str, table_id: str, file_id: int, file_name: str) -> Target:
        """Where the file of an export is stored."""

    def entry_url(self, target: Target) -> str:
        """The object's URL in a manifest."""

    def path(self, target: Target) -> str:
        """The object's path on this server, percent-encoded."""

    def file_fields(self, target: Target) -> dict[str, object]:
        """The location in the format of the file detail."""

    def grant(self, target: Target) -> dict[str, object]:
        """New credentials for all keys that begin with the target's key, in the format of the file detail."""

    def environment(self) -> dict[str, str]:
        """The environment variables through which clients find this store."""

    def target(self, request: Request) -> Target | None:
        """The object that a request names."""

    def refusal(self, request: Request, target: Target) -> Response | None:
        """An error response, or None if the request's credentials allow the target."""

    def refuse(self, status: int, reason: str, message: str, request: Request) -> Response:
        """An error response in this cloud's format. `reason` is the cloud's own code, or one that each style
        translates: unauthorized, forbidden, notFound, conditionNotMet, busy, internalError."""

    def object_headers(self, stored: StoredObject) -> dict[str, str]:
        """This cloud's additional headers for an object."""

    def expire_all(self) -> None:
        """Let every credential that was granted so far expire now."""


#: makes a style from: the server's URL, a clock, the seconds that credentials are valid (None: as in the real cloud),
#: and the prefix of every key
MakeStore = Callable[[str, Clock, float | None, str], StoreStyle]


def export_key(prefix: str, project: str, table_id: str, file_name: str) -> str:
    """`exp-2/815/table-exports/in/c-shop/orders/99.csv.gz`."""
    return f"{prefix}/{project}/table-exports/{table_id.replace('.', '/')}/{file_name}"


def xml_error(status: int, code: str, message: str) -> Response:
    text = (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    )
    return Response(status, {"Content-Type": "application/xml; charset=UTF-8"}, text.encode())


class Presigner:
    """Makes and checks presigned URLs: an HMAC over path and date, with a random key for each server."""

    def __init__(self, clock: Clock, lifetime: float) -> None:
        self._clock, self._lifetime, self._key = clock, lifetime, secrets.token_bytes(32)

    def sign(self, path: str) -> str:
        """The path with a query that grants access for `lifetime` seconds."""
        since = int(self._clock())
        return f"{path}?{self._proof(path, since)}"

    def is_presigned(self, request: Request) -> bool:
        return "X-Signature=" in request.raw_query

    def allows(self, request: Request) -> bool:
        since = parse_qs(request.raw_query).get("X-Date", ["0"])[0]
        fresh = since.isdigit() and self._clock() < int(since) + self._lifetime
        return fresh and hmac.compare_digest(request.raw_query, self._proof(request.path, int(since)))

    def _proof(self, path: str, since: int) -> str:
        text = f"{path}\n{since}".encode()
        signature = hmac.new(self._key, text, hashlib.sha256).hexdigest()
        return f"X-Date={since}&X-Expires={int(self._lifetime)}&X-Signature={signature}"
