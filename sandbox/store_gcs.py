"""The store in the style of Google Cloud Storage: JSON and XML style URLs, a bearer token (docs/keboola.md 6)."""

from __future__ import annotations

import base64
import json
import re
import secrets
from urllib.parse import quote, unquote

from sandbox.messages import Request, Response
from sandbox.object_store import StoredObject
from sandbox.store_access import Clock, Grant, Target, export_key, xml_error

#: reason -> code of the JSON API, code of the XML API
_CODES = {
    "unauthorized": ("authError", "AuthenticationRequired"),
    "forbidden": ("forbidden", "AccessDenied"),
    "notFound": ("notFound", "NoSuchKey"),
    "conditionNotMet": ("conditionNotMet", "PreconditionFailed"),
    "busy": ("backendError", "ServiceUnavailable"),
    "internalError": ("internalError", "InternalError"),
}


class GoogleStore:
    """The style of Google Cloud Storage. Its bearer tokens are valid for an hour by default."""

    provider = "gcp"
    region = "europe-west3"
    _JSON = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)$")

    def __init__(self, url: str, clock: Clock, lifetime: float | None, prefix: str) -> None:
        self._url, self._clock, self._prefix = url, clock, prefix
        self._lifetime = lifetime or 3600
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
            return self.refuse(401, "unauthorized", "Invalid Credentials", request)
        if not grant.covers(target):
            return self.refuse(403, "forbidden", "Caller does not have storage.objects.get access.", request)
        return None

    def refuse(self, status: int, reason: str, message: str, request: Request) -> Response:
        json_code, xml_code = _CODES.get(reason, (reason, reason))
        if not self._JSON.match(request.path):
            return xml_error(status, xml_code, message)
        errors = [{"message": message, "domain": "global", "reason": json_code}]
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
