"""Where files are stored and how they are requested, tested with moto's S3 and an independent GCS emulator."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import boto3
import gcp_storage_emulator.server
import pytest
import requests
from botocore.config import Config
from moto.server import ThreadedMotoServer

from lib.errors import ExtractError
from lib.extract.http import Http
from lib.extract.object_stores import Location, locate
from lib.extract.object_stream import open_object

NOW = 1_800_000_000.0
BODY = b'"1","one"\n' * 100_000
KEYS = ["exp-2/815/in/c-shop/orders/99.csv.gz_0_0_0.csv.gz", "a b/c+d/ž=1/e&f/(g)~h'!*.csv.gz", "100%/%41.csv.gz"]
REGION = "eu-central-1"


def detail(provider: str, key: str = "exp-2/99.csv", **changed: object) -> dict[str, object]:
    """A file detail as Keboola gives it with federationToken (docs/keboola.md 6.1, 6.3)."""
    sas = "sv=2017-11-09&sr=c&st=2027-01-01T00:00:00Z&se=2027-01-02T00:00:00Z&sp=rl&sig=abc%2Bdef%3D"
    place = {
        "aws": {
            "region": REGION,
            "s3Path": {"bucket": "demo-files", "key": key},
            "credentials": {
                "AccessKeyId": "ASIAEXAMPLE",
                "SecretAccessKey": "hunter2",
                "SessionToken": "session",
                "Expiration": "2027-01-15T20:00:00+00:00",
            },
        },
        "azure": {
            "absPath": {"container": "exp-2-files", "name": key},
            "absCredentials": {
                "SASConnectionString": f"BlobEndpoint=https://demo.blob.core.windows.net;SharedAccessSignature={sas}",
                "expiration": "2027-01-15T21:00:00+0100",
            },
        },
        "gcp": {
            "gcsPath": {"bucket": "demo-files", "key": key},
            "gcsCredentials": {"access_token": "ya29.hunter2", "expires_in": 3599, "token_type": "Bearer"},
        },
    }[provider]
    return {"provider": provider, "isSliced": True} | place | changed


def location(provider: str, environ: dict[str, str] | None = None, **changed: object) -> Location:
    return locate(detail(provider, **changed), NOW, environ or {}, "export of x")


@pytest.mark.parametrize(
    "provider, environ, url",
    [
        ("aws", {}, "https://demo-files.s3.eu-central-1.amazonaws.com/exp-2/99.csv"),
        ("aws", {"AWS_ENDPOINT_URL": "http://a/"}, "http://a/demo-files/exp-2/99.csv"),
        (
            "aws",
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"},
            "http://b/demo-files/exp-2/99.csv",
        ),
        (
            "azure",
            {},
            "https://demo.blob.core.windows.net/exp-2-files/exp-2/99.csv"
            "?sv=2017-11-09&sr=c&st=2027-01-01T00:00:00Z&se=2027-01-02T00:00:00Z&sp=rl&sig=abc%2Bdef%3D",
        ),
        (
            "gcp",
            {},
            "https://storage.googleapis.com/download/storage/v1/b/demo-files/o/exp-2%2F99.csv?alt=media",
        ),
        (
            "gcp",
            {"STORAGE_EMULATOR_HOST": "localhost:9023"},
            "http://localhost:9023/download/storage/v1/b/demo-files/o/exp-2%2F99.csv?alt=media",
        ),
    ],
)
def test_an_object_has_the_url_of_its_cloud(provider: str, environ: dict[str, str], url: str) -> None:
    assert location(provider, environ).call("slice 1", "exp-2/99.csv", None, {}).url == url


def test_google_is_asked_for_the_generation_that_was_begun() -> None:
    assert location("gcp").call("slice 1", "k", "17", {}).url.endswith("/o/k?alt=media&ifGenerationMatch=17")


def test_a_bucket_with_a_dot_is_no_host_name() -> None:
    place = location("aws", s3Path={"bucket": "demo.files", "key": "k"})
    assert place.call("slice 1", "k", None, {}).url == "https://s3.eu-central-1.amazonaws.com/demo.files/k"


@pytest.mark.parametrize("provider, seconds", [("gcp", 2699), ("aws", 0.75 * 43200), ("azure", 0.75 * 43200)])
def test_credentials_are_renewed_after_three_quarters_of_their_life(provider: str, seconds: float) -> None:
    assert location(provider).renew_at == pytest.approx(NOW + seconds, abs=1)


@pytest.mark.parametrize(
    "provider, url",
    [
        ("aws", "s3://demo-files/exp-2/99.csv_0_0_0.csv"),
        ("gcp", "gs://demo-files/exp-2/99.csv_0_0_0.csv"),
        ("azure", "azure://demo.blob.core.windows.net/exp-2-files/exp-2/99.csv_0_0_0.csv"),
        ("azure", "https://demo.blob.core.windows.net/exp-2-files/exp-2/99.csv_0_0_0.csv"),
    ],
)
def test_a_manifest_entry_names_a_key(provider: str, url: str) -> None:
    assert location(provider).key_of(url, "export of x") == "exp-2/99.csv_0_0_0.csv"


def test_an_emulators_address_leaves_the_account_open() -> None:
    sas = {"SASConnectionString": "BlobEndpoint=http://127.0.0.1:1/;SharedAccessSignature=?sig=a", "expiration": None}
    place = location("azure", absCredentials=sas)
    entry = "azure://any.blob.core.windows.net/exp-2-files/exp-2/99.csv0"
    assert (
        place.call("slice 1", place.key_of(entry, "x"), None, {}).url
        == "http://127.0.0.1:1/exp-2-files/exp-2/99.csv0?sig=a"
    )


@pytest.mark.parametrize(
    "provider, url",
    [
        ("aws", "s3://other-files/exp-2/99.csv_0"),
        ("aws", "gs://demo-files/exp-2/99.csv_0"),
        ("aws", "s3://demo-files/exp-2/98.csv_0"),
        ("aws", "s3://demo-files/exp-2/99.csv/../../98.csv"),
        ("aws", "http://169.254.169.254/demo-files/exp-2/99.csv_0"),
        ("aws", "file:///etc/passwd"),
        ("aws", ""),
        ("gcp", "gs://demo-files.evil.com/exp-2/99.csv_0"),
        ("azure", "azure://evil.blob.core.windows.net/exp-2-files/exp-2/99.csv0"),
        ("azure", "azure://demo.blob.core.windows.net/other/exp-2/99.csv0"),
        ("azure", "azure://demo.blob.core.windows.net.evil.com/exp-2-files/exp-2/99.csv0"),
        ("azure", "http://demo.blob.core.windows.net/exp-2-files/exp-2/99.csv0"),
    ],
)
def test_a_manifest_entry_of_another_file_is_refused(provider: str, url: str) -> None:
    with pytest.raises(ExtractError, match="^export of x: the manifest names .* not part of exp-2/99.csv"):
        location(provider).key_of(url + "?sig=hunter2", "export of x")
    with pytest.raises(ExtractError) as caught:
        location(provider).key_of(url + "?sig=hunter2", "export of x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("provider", ["aws", "azure", "gcp"])
def test_a_detail_that_lacks_something_is_refused_by_provider(provider: str) -> None:
    whole = detail(provider)
    for name in set(whole) - {"provider", "isSliced"}:
        with pytest.raises(ExtractError, match=f"^export of x: the file's detail lacks .* {provider}"):
            locate({**whole, name: []}, NOW, {}, "export of x")


def test_an_unknown_provider_is_named() -> None:
    with pytest.raises(ExtractError, match="is stored at 'ftp'; only aws, azure, gcp are known"):
        locate({"provider": "ftp"}, NOW, {}, "export of x")


def test_no_credential_is_in_a_repr() -> None:
    for provider in ("aws", "azure", "gcp"):
        place = location(provider)
        assert "hunter2" not in repr([place, place.call("slice 1", "k", None, {})])
        assert "sig=" not in repr([place, place.call("slice 1", "k", None, {})])


class CuttingRelay:
    """A TCP relay that hangs up after `cut` bytes of the answer on its first connections."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._port, self.cuts = port, cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                cut = self.cuts.pop(0) if self.cuts else None
                for pair in ((client, server, None), (server, client, cut)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, cut: int | None) -> None:
        left = cut if cut is not None else float("inf")
        with contextlib.suppress(OSError):
            while left > 0 and (data := source.recv(int(min(65536, left)))):
                target.sendall(data)
                left -= len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Held:
    """A location whose credentials are never renewed."""

    def __init__(self, place: Location) -> None:
        self._place = place

    def location(self) -> Location:
        return self._place

    def renew(self, refused: Location) -> None:
        pass


def read(place: Location, key: str) -> bytes:
    http = Http(
        pause=lambda seconds: None, clock=lambda: NOW, now=lambda: NOW, report=print, connections=1, secret="hunter2"
    )
    with open_object(http, Held(place), key, f"slice 1 ({key})", is_gzip=key.endswith(".gz")) as stream:
        return stream.read()


@pytest.fixture(scope="module")
def moto() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server
    server.stop()


def url_of(moto: ThreadedMotoServer) -> str:
    return f"http://127.0.0.1:{moto.get_host_and_port()[1]}"


def check_signatures_after(moto: ThreadedMotoServer, actions: int | str) -> None:
    assert requests.post(f"{url_of(moto)}/moto-api/reset-auth", data=str(actions), timeout=10).ok


@pytest.fixture(scope="module")
def s3_detail(moto: ThreadedMotoServer) -> Iterator[dict[str, object]]:
    """Objects in moto, and temporary credentials of a role that may read them and nothing else."""
    check_signatures_after(moto, "inf")
    keys = dict(aws_access_key_id="admin", aws_secret_access_key="admin", region_name=REGION, endpoint_url=url_of(moto))
    s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}), **keys)
    s3.create_bucket(Bucket="demo-files", CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in KEYS:
        s3.put_object(Bucket="demo-files", Key=key, Body=gzip.compress(BODY, 1))
    iam = boto3.client("iam", **keys)
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::demo-files/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=policy)
    sts = boto3.client("sts", **keys)
    credentials = sts.assume_role(RoleArn=role, RoleSessionName="export")["Credentials"]
    credentials["Expiration"] = credentials["Expiration"].isoformat()
    for client in (s3, iam, sts):
        client.close()
    check_signatures_after(moto, 0)
    yield detail("aws", credentials=credentials)


@pytest.mark.parametrize("key", KEYS)
def test_moto_accepts_our_signature_for_any_key(
    moto: ThreadedMotoServer, s3_detail: dict[str, object], key: str
) -> None:
    assert read(locate(s3_detail, NOW, {"AWS_ENDPOINT_URL_S3": url_of(moto)}, "x"), key) == BODY


@pytest.mark.parametrize(
    "name, value, code",
    [
        ("SecretAccessKey", "another", "SignatureDoesNotMatch"),
        ("SessionToken", "another", "InvalidToken"),
        ("AccessKeyId", "ASIAANOTHER", "InvalidAccessKeyId"),
    ],
)
def test_moto_refuses_other_credentials(
    moto: ThreadedMotoServer, s3_detail: dict, name: str, value: str, code: str
) -> None:
    wrong = s3_detail | {"credentials": s3_detail["credentials"] | {name: value}}
    with pytest.raises(ExtractError, match=f"refuses the object .HTTP 40[03] {code}.$"):
        read(locate(wrong, NOW, {"AWS_ENDPOINT_URL_S3": url_of(moto)}, "x"), KEYS[0])


def test_moto_refuses_an_anonymous_call(moto: ThreadedMotoServer, s3_detail: dict) -> None:
    assert requests.get(f"{url_of(moto)}/demo-files/{KEYS[0]}", timeout=10).status_code in (401, 403)


def test_a_cut_download_from_moto_goes_on_by_range(moto: ThreadedMotoServer, s3_detail: dict) -> None:
    relay = CuttingRelay(urlsplit(url_of(moto)).port, [1000, 2000, 0])
    assert read(locate(s3_detail, NOW, {"AWS_ENDPOINT_URL_S3": relay.url}, "x"), KEYS[0]) == BODY
    assert relay.cuts == []
    relay.close()


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    server = gcp_storage_emulator.server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="demo-files")
    server.start()
    url = f"http://127.0.0.1:{server._api._httpd.server_address[1]}"
    for key in KEYS:
        path = f"{url}/upload/storage/v1/b/demo-files/o"
        query = {"uploadType": "media", "name": key}
        headers = {"Content-Type": "application/octet-stream"}
        requests.post(path, params=query, data=gzip.compress(BODY, 1), headers=headers, timeout=10).raise_for_status()
    yield url
    server.stop()


@pytest.mark.parametrize("key", KEYS)
def test_the_gcs_emulator_finds_every_key(gcs: str, key: str) -> None:
    assert read(location("gcp", {"STORAGE_EMULATOR_HOST": gcs}), key) == BODY


def test_a_cut_download_from_the_gcs_emulator_goes_on_by_range(gcs: str) -> None:
    relay = CuttingRelay(urlsplit(gcs).port, [1000, 2000, 0])
    assert read(location("gcp", {"STORAGE_EMULATOR_HOST": relay.url}), KEYS[0]) == BODY
    assert relay.cuts == []
    relay.close()


def test_an_object_that_the_gcs_emulator_does_not_have_is_gone(gcs: str) -> None:
    with pytest.raises(ExtractError, match="the object is gone"):
        read(location("gcp", {"STORAGE_EMULATOR_HOST": gcs}), "exp-2/nothing")
