"""The store as Amazon S3: path-style URLs, requests signed with Signature Version 4 and a session token.

The signature is checked for real, over the request as it came (AWS: "Signature Calculations for the Authorization
Header"); the codes are those of S3's list of error responses, where an expired token is a 400.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from sandbox.messages import Request, Response
from sandbox.object_store import StoredObject
from sandbox.store_access import Clock, Grant, Target, export_key, xml_error

_CODES = {
    "unauthorized": "InvalidAccessKeyId",
    "forbidden": "AccessDenied",
    "notFound": "NoSuchKey",
    "conditionNotMet": "PreconditionFailed",
    "busy": "SlowDown",
    "internalError": "InternalError",
}
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, *"
    r"SignedHeaders=([^,]+), *Signature=([0-9a-f]{64})$"
)
_NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class _Key:
    """A temporary access key."""

    secret: str
    session: str
    grant: Grant


class S3Store:
    """Amazon S3 in one region."""

    provider = "aws"
    region = "eu-central-1"

    def __init__(self, url: str, clock: Clock, lifetime: float | None, prefix: str) -> None:
        self._url, self._clock, self._prefix = url, clock, prefix
        self._lifetime = lifetime or 12 * 3600
        self._keys: dict[str, _Key] = {}

    def place(self, project: str, table_id: str, file_id: int, file_name: str) -> Target:
        return Target("kbc-sandbox-files", export_key(self._prefix, project, table_id, file_name))

    def entry_url(self, target: Target) -> str:
        return f"s3://{target.bucket}/{target.key}"

    def path(self, target: Target) -> str:
        return f"/{target.bucket}/{quote(target.key)}"

    def file_fields(self, target: Target) -> dict[str, object]:
        return {"s3Path": {"bucket": target.bucket, "key": target.key}}

    def grant(self, target: Target) -> dict[str, object]:
        key_id = "ASIA" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(16))
        expires = self._clock() + self._lifetime
        grant = Grant(target.bucket, target.key, expires)
        key = self._keys[key_id] = _Key(secrets.token_urlsafe(30), secrets.token_urlsafe(200), grant)
        credentials = {
            "AccessKeyId": key_id,
            "SecretAccessKey": key.secret,
            "SessionToken": key.session,
            "Expiration": datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds"),
        }
        return {"credentials": credentials}

    def environment(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL_S3": self._url}

    def target(self, request: Request) -> Target | None:
        bucket, _, key = request.path[1:].partition("/")
        return Target(unquote(bucket), unquote(key)) if key else None

    def refusal(self, request: Request, target: Target) -> Response | None:
        problem = self._problem(request, target)
        return problem and self.refuse(*problem, request)

    def _problem(self, request: Request, target: Target) -> tuple[int, str, str] | None:
        match = _AUTHORIZATION.match(request.headers.get("authorization", ""))
        if not match:
            return 403, "AccessDenied", "Access Denied"
        key_id, day, region, signed, signature = match.groups()
        key, token = self._keys.get(key_id), request.headers.get("x-amz-security-token")
        if key is None or token is None:
            return 403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
        if not hmac.compare_digest(token, key.session):
            return 400, "InvalidToken", "The provided token is malformed or otherwise invalid."
        if key.grant.expires <= self._clock():
            return 400, "ExpiredToken", "The provided token has expired."
        if region != self.region or day != request.headers.get("x-amz-date", "")[:8]:
            return (
                400,
                "AuthorizationHeaderMalformed",
                f"The authorization header is malformed; expecting {self.region}",
            )
        if request.headers.get("x-amz-content-sha256") not in (_NO_BODY, "UNSIGNED-PAYLOAD"):
            return 400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match."
        needed = {"host"} | {name for name in request.headers if name.startswith("x-amz-")}
        if not needed <= set(signed.split(";")):
            return 403, "AccessDenied", "There were headers present in the request which were not signed"
        if not hmac.compare_digest(signature, expected_signature(request, key.secret, day, region, signed)):
            return 403, "SignatureDoesNotMatch", "The request signature we calculated does not match."
        return None if key.grant.covers(target) else (403, "AccessDenied", "Access Denied")

    def refuse(self, status: int, reason: str, message: str, request: Request) -> Response:
        return xml_error(status, _CODES.get(reason, reason), message)

    def object_headers(self, stored: StoredObject) -> dict[str, str]:
        return {"x-amz-request-id": f"SANDBOX{stored.generation}", "x-amz-server-side-encryption": "AES256"}

    def expire_all(self) -> None:
        expired = Grant("", "", 0.0)
        self._keys = {key_id: _Key(key.secret, key.session, expired) for key_id, key in self._keys.items()}


def expected_signature(request: Request, secret: str, day: str, region: str, signed: str) -> str:
    """Signature Version 4 of the request for the header names in `signed`, joined by semicolons."""
    pairs = [pair.partition("=") for pair in request.raw_query.split("&") if pair]
    query = "&".join(sorted(f"{_escaped(name)}={_escaped(value)}" for name, _, value in pairs))
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in signed.split(";"))
    path = quote(unquote(request.path), safe="/-_.~")
    payload = request.headers["x-amz-content-sha256"]
    canonical = "\n".join([request.method, path, query, headers, signed, payload])
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{request.headers['x-amz-date']}\n{day}/{region}/s3/aws4_request\n{digest}"
    key = ("AWS4" + secret).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


def _escaped(text: str) -> str:
    return quote(unquote(text), safe="-_.~")
