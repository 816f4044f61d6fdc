"""Where a Keboola file is stored and how to request its objects: S3, Azure Blob Storage or Google Cloud Storage.

Contains what differs between the clouds: locations, credentials, URLs, and which manifest entries belong to a file
(docs/keboola.md 6). Reading the bytes is the same for all clouds and is in `object_stream`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from requests_aws4auth import AWS4Auth  # type: ignore[import-untyped]  # the package has no types

from lib.errors import ExtractError
from lib.extract.http import Auth, Call, no_auth, parse_time

#: credentials are replaced after this part of their lifetime: 45 minutes of Google's hour (docs/keboola.md 6.1)
RENEW_AT = 0.75
AZURE = ".blob.core.windows.net"
#: by provider: the environment variables that name another endpoint
ENDPOINTS = {"aws": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gcp": ("STORAGE_EMULATOR_HOST",)}


@dataclass(frozen=True)
class Location:
    """Where a file is stored, with credentials to read it. Made from one file detail of Keboola's API."""

    #: bucket or container
    bucket: str
    #: the object's key; for a sliced file, the common prefix of its objects' keys
    key: str
    #: matches the beginning of a manifest entry in this bucket, up to the key
    entry: re.Pattern[str]
    #: epoch seconds after which new credentials should be fetched
    renew_at: float
    #: (key, generation) -> URL; generation is None in the first request, later the one that its answer named
    url: Callable[[str, str | None], str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: Callable[[], Auth] = field(default=lambda: no_auth, repr=False)

    def call(self, subject: str, key: str, generation: str | None, headers: Mapping[str, str]) -> Call:
        """The request for one object's bytes."""
        url, headers = self.url(key, generation), {**self.headers, **headers}
        return Call(subject, url, headers=headers, auth=self.auth(), stream=True)

    def key_of(self, entry_url: str, subject: str) -> str:
        """The key that a manifest entry names. Raises ExtractError, about `subject`, if it is not part of this file."""
        match = self.entry.match(entry_url)
        key = entry_url[match.end() :] if match else ""
        # "." and ".." in a URL path would lead to another object
        if not match or not key.startswith(self.key) or {".", ".."} & set(key.split("/")):
            shown = entry_url.partition("?")[0]
            raise ExtractError(
                f"{subject}: the manifest names {shown}, which is not part of {self.key} in {self.bucket}"
            )
        return key


def locate(
    detail: Mapping[str, object], now: float, environ: Mapping[str, str], subject: str, *, is_local: bool = False
) -> Location:
    """The location in a file detail that was requested with federationToken.

    `now` is the time of the request, in epoch seconds. `environ` may set another endpoint with the clouds' usual
    variables, ENDPOINTS. Azure's endpoint is in the SAS string. is_local: Keboola is on this machine, and so are its
    files: without such a variable, the real cloud would be asked for them.
    Raises ExtractError, about `subject`, for that, an unknown provider or an incomplete detail.
    """
    providers = {"aws": _amazon, "azure": _azure, "gcp": _google}
    provider = str(detail.get("provider"))
    if provider not in providers:
        raise ExtractError(f"{subject}: the file is stored at {provider!r}; only {', '.join(providers)} are known")
    if is_local and provider in ENDPOINTS and not _endpoint(provider, environ):
        raise ExtractError(
            f"{subject}: this Keboola is on this machine, but {ENDPOINTS[provider][0]} does not say where its files"
            " are. In each shell, type the `export` lines that the local Keboola printed"
        )
    try:
        return providers[provider](detail, now, environ)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        reason = f"{subject}: the file's detail lacks what a download from {provider} needs (place or credentials)"
    raise ExtractError(reason)


def _endpoint(provider: str, environ: Mapping[str, str]) -> str | None:
    return next((environ[name] for name in ENDPOINTS[provider] if environ.get(name)), None)


def _google(detail: Mapping[str, Any], now: float, environ: Mapping[str, str]) -> Location:
    bucket, prefix = _texts(detail["gcsPath"], "bucket", "key")
    credentials = detail["gcsCredentials"]
    (token,) = _texts(credentials, "access_token")
    endpoint = _endpoint("gcp", environ) or "https://storage.googleapis.com"
    endpoint = (endpoint if "://" in endpoint else f"http://{endpoint}").rstrip("/")

    def url(key: str, generation: str | None) -> str:
        condition = f"&ifGenerationMatch={generation}" if generation else ""
        return f"{endpoint}/download/storage/v1/b/{quote(bucket)}/o/{quote(key, safe='')}?alt=media{condition}"

    return Location(
        bucket,
        prefix,
        re.compile(re.escape(f"gs://{bucket}/")),
        now + RENEW_AT * float(credentials["expires_in"]),
        url,
        headers={"Authorization": f"Bearer {token}"},
    )


def _amazon(detail: Mapping[str, Any], now: float, environ: Mapping[str, str]) -> Location:
    bucket, prefix = _texts(detail["s3Path"], "bucket", "key")
    credentials = detail["credentials"]
    key_id, secret, session = _texts(credentials, "AccessKeyId", "SecretAccessKey", "SessionToken")
    (region,) = _texts(detail, "region")
    endpoint = _endpoint("aws", environ)
    if endpoint:
        base = f"{endpoint.rstrip('/')}/{bucket}"
    elif "." in bucket:
        # the TLS certificate for *.s3.REGION.amazonaws.com does not cover a bucket name with a dot
        base = f"https://s3.{region}.amazonaws.com/{bucket}"
    else:
        base = f"https://{bucket}.s3.{region}.amazonaws.com"

    def auth() -> Auth:
        signed: Auth = AWS4Auth(key_id, secret, region, "s3", session_token=session)
        return signed

    return Location(
        bucket,
        prefix,
        re.compile(re.escape(f"s3://{bucket}/")),
        _renew_at(credentials["Expiration"], now),
        # quoted exactly as AWS4Auth quotes it, because the signature covers these bytes
        lambda key, _generation: f"{base}/{quote(key, safe='/~')}",
        auth=auth,
    )


def _azure(detail: Mapping[str, Any], now: float, environ: Mapping[str, str]) -> Location:
    container, prefix = _texts(detail["absPath"], "container", "name")
    credentials = detail["absCredentials"]
    (connection,) = _texts(credentials, "SASConnectionString")
    # the SAS contains "=" itself, so split at the first one only
    parts = dict(part.split("=", 1) for part in connection.split(";") if part)
    endpoint, sas = parts["BlobEndpoint"].rstrip("/"), parts["SharedAccessSignature"].lstrip("?")
    host = urlsplit(endpoint).hostname or ""
    # the address of an emulator does not contain the account's name
    account = re.escape(host) if host.endswith(AZURE) else rf"[^/]+{re.escape(AZURE)}"
    return Location(
        container,
        prefix,
        re.compile(rf"(?:azure|https)://{account}/{re.escape(container)}/"),
        _renew_at(credentials["expiration"], now),
        lambda key, _generation: f"{endpoint}/{quote(container)}/{quote(key)}?{sas}",
    )


def _texts(section: Mapping[str, Any], *names: str) -> list[str]:
    """These values of a section of the detail. Raises KeyError or TypeError if one is missing, empty, or no text."""
    found = [section[name] for name in names]
    if not all(isinstance(value, str) and value for value in found):
        raise TypeError
    return found


def _renew_at(expiration: object, now: float) -> float:
    return now + RENEW_AT * ((parse_time(expiration) or now + 3600.0) - now)
