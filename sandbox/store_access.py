"""Who may read which object, and where: the clouds' URL styles, credentials and refusals (API note 6.1 to 6.3).

Each style checks what its cloud checks: the bearer token, for the file's own prefix only, until it expires. A presigned
URL carries its own proof and refuses a second one beside it, as the clouds do.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol
from urllib.parse import parse_qs, quote, unquote

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
    """What a credential allows: keys below `prefix` of `bucket`, until `expires` (epoch seconds)."""

    bucket: str
    prefix: str
    expires: float
    secret: str = ""
    session: str = ""

    def covers(self, target: Target) -> bool:
        return target.bucket == self.bucket and target.key.startswith(self.prefix)


class StoreStyle(Protocol):
    """One cloud's way of naming, granting, refusing and describing objects."""

    provider: str

    def place(self, project: str, table_id: str, file_id: int, file_name: str) -> Target:
        """Where an export keeps its file."""

    def entry_url(self, target: Target) -> str:
        """The object as a manifest names it."""

    def path(self, target: Target) -> str:
        """The object's path on this server, percent-encoded."""

    def file_fields(self, target: Target) -> dict[str, object]:
        """The place as the file detail shows it."""

    def grant(self, target: Target) -> dict[str, object]:
        """Fresh credentials for everything below the target, as the file detail shows them."""

    def environment(self) -> dict[str, str]:
        """The variables by which clients find this store."""

    def target(self, request: Request) -> Target | None:
        """The object that a request names."""

    def refusal(self, request: Request, target: Target) -> Response | None:
        """None where the request's own credential allows the target."""

    def refuse(self, status: int, code: str, message: str, request: Request) -> Response:
        """An error as this cloud words it."""

    def object_headers(self, stored: StoredObject) -> dict[str, str]:
        """What this cloud says of an object beside the usual headers."""

    def expire_all(self) -> None:
        """Let every credential granted so far expire now."""


class GoogleStore:
    """Google Cloud Storage: JSON and XML style URLs, a bearer token."""

    provider = "gcp"
    _JSON = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)$")

    def __init__(self, url: str, clock: Clock, lifetime: float, prefix: str) -> None:
        self._url, self._clock, self._lifetime, self._prefix = url, clock, lifetime, prefix
        self._grants: dict[str, Grant] = {}

    def place(self, project: str, table_id: str, file_id: int, file_name: str) -> Target:
        return Target("kbc-sandbox-files", export_key(self._prefix, project, table_id, file_name))

    def entry_url(self, target: Target) -> str:
        return f"gs://{target.bucket}/{target.key}"

    def path(self, target: Target) -> str:
        return f"/{target.bucket}/{quote(target.key)}"

    def file_fields(self, target: Target) -> dict[str, object]:
        return {"gcsPath": {"bucket": target.bucket, "key": target.key}}

    def grant(self, target: Target) -> dict[str, object]:
        token = "ya29." + secrets.token_urlsafe(48)
        self._grants[token] = Grant(target.bucket, target.key, self._clock() + self._lifetime)
        credentials = {
            "access_token": token,
            "expires_in": int(self._lifetime) - 1,
            "token_type": "Bearer",
            "projectId": "kbc-sandbox",
        }
        return {"gcsCredentials": credentials}

    def environment(self) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": self._url}

    def target(self, request: Request) -> Target | None:
        match = self._JSON.match(request.path)
        bucket, _, key = match.expand(r"\1/\2").partition("/") if match else request.path[1:].partition("/")
        return Target(unquote(bucket), unquote(key)) if key else None

    def refusal(self, request: Request, target: Target) -> Response | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = self._grants.get(token) if scheme.lower() == "bearer" else None
        if grant is None or grant.expires <= self._clock():
            return self.refuse(401, "authError", "Invalid Credentials", request)
        if not grant.covers(target):
            return self.refuse(403, "forbidden", "Caller does not have storage.objects.get access.", request)
        return None

    def refuse(self, status: int, code: str, message: str, request: Request) -> Response:
        if not self._JSON.match(request.path):
            return xml_error(status, _XML_CODES.get(code, code), message)
        errors = [{"message": message, "domain": "global", "reason": code}]
        text = json.dumps({"error": {"code": status, "message": message, "errors": errors}})
        return Response(status, {"Content-Type": "application/json; charset=UTF-8"}, text.encode())

    def object_headers(self, stored: StoredObject) -> dict[str, str]:
        return {
            "x-goog-generation": str(stored.generation),
            "x-goog-metageneration": "1",
            "x-goog-hash": "md5=" + base64.b64encode(stored.md5).decode(),
        }

    def expire_all(self) -> None:
        self._grants.clear()


def export_key(prefix: str, project: str, table_id: str, file_name: str) -> str:
    """`exp-2/815/table-exports/in/c-shop/orders/99.csv.gz`."""
    return f"{prefix}/{project}/table-exports/{table_id.replace('.', '/')}/{file_name}"


_XML_CODES = {"authError": "AuthenticationRequired", "forbidden": "AccessDenied", "notFound": "NoSuchKey"}


def xml_error(status: int, code: str, message: str) -> Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Response(status, {"Content-Type": "application/xml; charset=UTF-8"}, text.encode())


class Presigner:
    """URLs that carry their own proof: HMAC of path and expiry under a key that dies with the server."""

    def __init__(self, clock: Clock, lifetime: float) -> None:
        self._clock, self._lifetime, self._key = clock, lifetime, secrets.token_bytes(32)

    def sign(self, path: str) -> str:
        """The path with a query that opens it for `lifetime` seconds."""
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


def iso_time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
