"""The store as Azure Blob Storage: a container for each file, a shared access signature that reads and lists it.

The signature is computed from the received query (Azure: "Create a service SAS", version 2020-12-06 and later).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote, urlencode

from sandbox.messages import Request, Response
from sandbox.object_store import StoredObject
from sandbox.store_access import Clock, Target, xml_error
from sandbox.tables import api_time

ACCOUNT = "kbcsandbox"
_VERSION = "2022-11-02"
#: signed fields in order; None stands for the resource
_SIGNED: tuple[str | None, ...] = (
    "sp",
    "st",
    "se",
    None,
    "si",
    "sip",
    "spr",
    "sv",
    "sr",
    "snapshot",
    "ses",
    "rscc",
    "rscd",
    "rsce",
    "rscl",
)
_SIGNED += ("rsct",)
_CODES = {
    "unauthorized": "AuthenticationFailed",
    "forbidden": "AuthorizationFailure",
    "notFound": "BlobNotFound",
    "conditionNotMet": "ConditionNotMet",
    "busy": "ServerBusy",
    "internalError": "InternalError",
}


class AzureStore:
    """Azure Blob Storage, one account."""

    provider = "azure"
    region = "northeurope"

    def __init__(self, url: str, clock: Clock, lifetime: float | None, prefix: str) -> None:
        self._url, self._clock, self._prefix = url, clock, prefix
        self._lifetime = lifetime or 12 * 3600
        self.account_key = _new_key()

    def place(self, project: str, table_id: str, file_id: int, file_name: str) -> Target:
        # one container per file; a prefix becomes a folder in it
        return Target(f"exp-2-files-{project}-{file_id}", f"{self._prefix}/{file_name}")

    def entry_url(self, target: Target) -> str:
        return f"azure://{ACCOUNT}.blob.core.windows.net/{target.bucket}/{target.key}"

    def path(self, target: Target) -> str:
        return f"/{ACCOUNT}/{target.bucket}/{quote(target.key)}"

    def file_fields(self, target: Target) -> dict[str, object]:
        return {"absPath": {"container": target.bucket, "name": target.key}}

    def grant(self, target: Target) -> dict[str, object]:
        now = self._clock()
        expires = now + self._lifetime
        query = {"sv": _VERSION, "sr": "c", "st": _sas_time(now - 60), "se": _sas_time(expires), "sp": "rl"}
        query["sig"] = self._signature(query, target.bucket)
        connection = f"BlobEndpoint={self._url}/{ACCOUNT};SharedAccessSignature={urlencode(query, quote_via=quote)}"
        return {"absCredentials": {"SASConnectionString": connection, "expiration": api_time(expires)}}

    def environment(self) -> dict[str, str]:
        return {}

    def target(self, request: Request) -> Target | None:
        account, _, path = request.path[1:].partition("/")
        container, _, key = path.partition("/")
        return Target(unquote(container), unquote(key)) if account == ACCOUNT and key else None

    def refusal(self, request: Request, target: Target) -> Response | None:
        query = dict(parse_qsl(request.raw_query, keep_blank_values=True))
        signed = hmac.compare_digest(query.get("sig", ""), self._signature(query, target.bucket))
        valid = query.get("st", "") <= _sas_time(self._clock()) < query.get("se", "")
        if "authorization" in request.headers or not (signed and valid and query.get("sr") == "c"):
            message = (
                "Server failed to authenticate the request. Make sure the value of the signature is formed correctly."
            )
            return self.refuse(403, "unauthorized", message, request)
        if "r" not in query.get("sp", ""):
            return self.refuse(403, "AuthorizationPermissionMismatch", "This permission was not granted.", request)
        return None

    def refuse(self, status: int, reason: str, message: str, request: Request) -> Response:
        code = _CODES.get(reason, reason)
        response = xml_error(status, code, message)
        response.headers["x-ms-error-code"] = code
        return response

    def object_headers(self, stored: StoredObject) -> dict[str, str]:
        last_modified = "Thu, 02 Jan 2025 03:04:05 GMT"
        return {"x-ms-version": _VERSION, "x-ms-blob-type": "BlockBlob", "Last-Modified": last_modified}

    def expire_all(self) -> None:
        """A new account key makes every signature worthless."""
        self.account_key = _new_key()

    def _signature(self, query: dict[str, str], container: str) -> str:
        resource = f"/blob/{ACCOUNT}/{container}"
        text = "\n".join(resource if name is None else query.get(name, "") for name in _SIGNED)
        digest = hmac.new(base64.b64decode(self.account_key), text.encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()


def _sas_time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
