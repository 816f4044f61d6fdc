"""Retries, waits, and what is sent, with a real server on loopback."""

from __future__ import annotations

import datetime
import gzip
import logging
import os
import re
import resource
import socket
import ssl
import tracemalloc
from collections.abc import Iterator
from email.utils import format_datetime
from pathlib import Path
from time import monotonic

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lib.errors import Cancelled, ExtractError, LimitReached
from lib.extract import http
from lib.extract.http import Call, Http, Limits, parse_time, parsed, retry_after
from lib.stop import start_thread
from tests.support.scripted_server import ScriptedServer

NOON = datetime.datetime(2026, 3, 4, 12, tzinfo=datetime.UTC).timestamp()


class Sender:
    """An Http that records its waits; they only move its clock."""

    def __init__(self, timeout: tuple[float, float] = (1.0, 0.25), limits: Limits | None = None) -> None:
        self.waits: list[float] = []
        self.lines: list[str] = []
        self.at = NOON
        self.http = Http(
            pause=self.pause,
            clock=self.clock,
            now=self.clock,
            report=self.lines.append,
            connections=2,
            secret="815-4711-hunter2",
            timeout=timeout,
            limits=limits or Limits(),
        )

    def clock(self) -> float:
        return self.at

    def pause(self, seconds: float) -> None:
        if seconds:  # seconds of 0 only ask whether to stop
            self.waits.append(seconds)
        self.at += seconds

    def tick(self) -> None:
        self.at += 1.0


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer(b"{}")
    yield server
    server.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit is noticed sooner: its clock is the test's, but how often it is looked at is real."""
    monkeypatch.setattr(http, "STOP_EVERY", 0.02)


@pytest.fixture
def sender() -> Sender:
    return Sender()


def test_a_dead_server_is_asked_six_times(sender: Sender, server: ScriptedServer) -> None:
    server.close()
    words = (
        r"^table x: no answer from 127.0.0.1:\d+: connection refused; gave up after 6 tries in \d+ s"
        r"\n    This machine must be allowed to reach that host. The rows loaded before stay.$"
    )
    with pytest.raises(ExtractError, match=words):
        sender.http.send(Call("table x", server.url))
    assert sender.waits == pytest.approx([1, 2, 4, 8, 16], rel=0.26)
    assert sender.lines == [] or "trying again" in sender.lines[0]


def test_without_a_free_file_handle_nothing_is_tried_again(sender: Sender, server: ScriptedServer) -> None:
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]  # the lowest numbers that are free
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files[-1] + 1, most))
        with pytest.raises(LimitReached, match="can open no further file or connection"):
            sender.http.send(Call("table x", server.url))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))
        for file in files:
            os.close(file)
    assert sender.waits == []


def test_two_runs_that_fail_together_do_not_come_back_together(server: ScriptedServer) -> None:
    server.script = [{"status": 503}, {"status": 503}, {}, {"status": 503}, {"status": 503}]
    one, other = Sender(), Sender()
    for sender in (one, other):
        sender.http.send(Call("table x", server.url))
    assert one.waits != other.waits


def test_a_stop_does_not_wait_for_a_silent_server(server: ScriptedServer) -> None:
    def stop(seconds: float) -> None:
        raise Cancelled()

    sender = Sender(timeout=(1.0, 30.0))
    sender.http.pause = stop
    server.script = [{"length": 10, "body": b"", "stall": True}]
    began = monotonic()
    with pytest.raises(Cancelled):
        sender.http.send(Call("table x", server.url))
    assert monotonic() - began < 5


def test_fewer_tries_can_be_asked_for(sender: Sender, server: ScriptedServer) -> None:
    server.script = [{"status": 502}] * 9
    with pytest.raises(ExtractError, match="HTTP 502; gave up after 4 tries"):
        sender.http.send(Call("export of x", server.url, tries=4))
    assert len(server.requests) == 4


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def failure(sender: Sender, url: str) -> str:
    """The message of a request that gets no answer. It has no secret and no word of Python."""
    with pytest.raises(ExtractError) as caught:
        sender.http.send(Call("table x", url, tries=2))
    text = str(caught.value)
    assert not re.search(r"hunter2|Error|Exception|urllib3|requests\.|Pool|_ssl|\(\d+\)", text), text
    return text


@pytest.mark.usefixtures("no_proxy")
def test_a_host_that_does_not_exist_is_named_with_its_cause(sender: Sender) -> None:
    text = failure(sender, "https://keboola.invalid/?sig=hunter2")
    assert text.startswith("table x: no answer from keboola.invalid: DNS gives no address for this name (")
    assert "Requests to it use no proxy: if one is needed, HTTPS_PROXY must name it. The rows loaded before" in text


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    "proxy, words",
    [
        (
            "http://me:hunter2@127.0.0.1:1",
            "the proxy that HTTPS_PROXY names did not forward the request: connection ref",
        ),
        ("http://me:hunter2@proxy.invalid:1", "the proxy that HTTPS_PROXY names did not forward the request: "),
        ("socks5://hunter2:1", "HTTPS_PROXY must look like http://host:port"),
        ("ftp://hunter2:1", "HTTPS_PROXY must look like http://host:port"),
        ("http://", "HTTPS_PROXY must look like http://host:port"),
    ],
)
def test_a_proxy_that_does_not_work_is_told_from_a_dead_host(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    text = failure(sender, "https://keboola.invalid/")
    assert f"no answer from keboola.invalid: {words}" in text and "go through the proxy that HTTPS_PROXY names" in text


@pytest.mark.usefixtures("no_proxy")
def test_a_proxy_that_asks_for_a_user_says_where_to_write_him(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        for _ in range(2):
            client, _address = listening.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    refusing = start_thread(refuse, "proxy")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listening.getsockname()[1]}")
    text = failure(sender, "https://keboola.invalid/")
    assert "the proxy that https_proxy names did not forward the request: HTTP 407; it asks for a user" in text
    refusing.result(10)
    listening.close()


def test_a_server_that_speaks_no_tls_is_told_from_a_dead_one(sender: Sender, server: ScriptedServer) -> None:
    text = failure(sender, server.url.replace("http:", "https:"))
    assert re.search(r"no answer from 127.0.0.1:\d+: no TLS connection: \w+", text)


def test_a_missing_file_of_certificates_is_told_from_a_dead_server(
    sender: Sender, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    text = failure(sender, server.url.replace("http:", "https:"))
    assert "the file that REQUESTS_CA_BUNDLE names is not there" in text


def test_a_silent_server_is_given_up_after_the_timeout(sender: Sender, server: ScriptedServer) -> None:
    server.script = [{"length": 10, "body": b"", "stall": True}] * 2
    with pytest.raises(ExtractError, match="no data came for 0.25 s; gave up after 2 tries"):
        sender.http.send(Call("table x", server.url, tries=2))


SLOW = "less than 1,024 bytes a second for 64 s"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "raw, stream, words",
    [
        (b"", False, "not complete after 300 s"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", False, "not complete after 300 s"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", True, "not complete after 300 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", False, SLOW),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9;", False, SLOW),
        (b"HTTP/1.1 404 No\r\nContent-Length: 100000\r\n\r\n", False, SLOW),
        (b"HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\n", True, SLOW),
    ],
    ids=["first line", "headers", "headers of a stream", "body", "chunk", "error", "error of a stream"],
)
def test_an_answer_that_trickles_is_asked_for_again_and_then_given_up(
    server: ScriptedServer, raw: bytes, stream: bool, words: str
) -> None:
    sender = Sender(timeout=(1.0, 30.0))
    server.script = [{"raw": raw, "trickle": sender.tick}] * 2
    with pytest.raises(ExtractError, match=rf"stopped reading the answer of 127.0.0.1:\d+: {words}; gave up after 2 t"):
        sender.http.send(Call("table x", server.url, tries=2, stream=stream))
    assert words != SLOW or server.hung_up.wait(10)


@pytest.mark.usefixtures("quick")
def test_an_answer_as_a_whole_has_a_limit_too(server: ScriptedServer) -> None:
    sender = Sender(timeout=(1.0, 30.0), limits=Limits(least_speed=0.001))
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    server.script = [{"raw": raw, "drops": b" " * 9000, "trickle": sender.tick}]
    with pytest.raises(ExtractError, match="not complete after 300 s; gave up after 1 tries"):
        sender.http.send(Call("table x", server.url, tries=1))
    assert server.hung_up.wait(10)


def bomb(megabytes: int) -> dict:
    body = gzip.compress(b'{"a": "' + b" " * megabytes * 2**20, 1)
    return {"body": body, "headers": {"Content-Encoding": "gzip"}}


@pytest.mark.parametrize("plan", [bomb(50), {"body": b" " * (3 * 2**20)}], ids=["gzip", "plain"])
def test_an_answer_that_unpacks_to_too_much_is_refused_at_once(server: ScriptedServer, plan: dict) -> None:
    sender = Sender(timeout=(1.0, 30.0), limits=Limits(size=2**20))
    server.script = [plan]
    tracemalloc.start()
    try:
        with pytest.raises(ExtractError, match=r"stopped reading the answer of \S+: it has more than 1 MB after unp"):
            sender.http.send(Call("table x", server.url))
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert sender.waits == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [404, 503])
def test_of_a_huge_error_only_the_beginning_is_read(server: ScriptedServer, status: int, stream: bool) -> None:
    sender = Sender(timeout=(1.0, 30.0))
    server.script = [{"status": status, **bomb(50)}]
    tracemalloc.start()
    try:
        answer = sender.http.send(Call("table x", server.url, stream=stream))
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert answer.status_code == (404 if status == 404 else 200)
    assert len(sender.waits) == (status == 503)
    assert status == 503 or sender.http.words_of(answer) == "HTTP 404"


def test_a_long_text_of_an_error_is_cut(sender: Sender, server: ScriptedServer) -> None:
    server.script = [{"status": 400, "body": b'{"error": "' + b"?" * 900_000 + b'"}'}]
    words = sender.http.words_of(sender.http.send(Call("table x", server.url)))
    assert words == "HTTP 400 " + "?" * 1991


def test_an_answer_read_whole_gives_its_connection_back(sender: Sender, server: ScriptedServer) -> None:
    server.script = [{}, {"status": 404}, {"status": 500}]
    for _ in range(4):
        sender.http.send(Call("table x", server.url))
    assert server.connections == 1


@pytest.mark.parametrize(
    "header, waited",
    [
        ("7", 7),
        (format_datetime(datetime.datetime.fromtimestamp(NOON + 45, datetime.UTC), usegmt=True), 45),
        ("99999", 300),
        ("0", 1),
        ("soon", 1),
        ("Wed, 04 Mar 2020 12:00:00 GMT", 1),
    ],
)
def test_retry_after_is_obeyed_up_to_five_minutes(
    sender: Sender, server: ScriptedServer, header: str, waited: float
) -> None:
    server.script = [{"status": 429, "headers": {"Retry-After": header}}]
    assert sender.http.send(Call("table x", server.url)).status_code == 200
    assert sender.waits == pytest.approx([waited], rel=0.26)
    assert len(sender.lines) == (waited >= 10)


def test_retries_end_after_fifteen_minutes(sender: Sender, server: ScriptedServer) -> None:
    server.script = [{"status": 429, "headers": {"Retry-After": "290"}}] * 9
    with pytest.raises(ExtractError, match="HTTP 429; gave up after 4 tries in 870 s"):
        sender.http.send(Call("table x", server.url))


def maintenance(end: str | None) -> dict:
    ending = f', "estimatedEndTime": "{end}"' if end else ""
    body = '{"status": "maintenance", "reason": "Migration"' + ending + "}"
    return {"status": 503, "body": body.encode(), "headers": {"Retry-After": "60"}}


def test_maintenance_is_waited_out_with_a_line_a_minute(sender: Sender, server: ScriptedServer) -> None:
    server.script = [maintenance("2026-03-04T13:09:30+01:00")] * 10
    assert sender.http.send(Call("table x", server.url, tries=2)).status_code == 200
    assert sender.waits == pytest.approx([60] * 9 + [30])
    assert sender.lines == ["table x: maintenance: Migration, until 2026-03-04 12:09 UTC; waiting"] * 10


def test_maintenance_that_outlasts_its_announcement_is_tried_as_any_failure(
    sender: Sender, server: ScriptedServer
) -> None:
    server.script = [maintenance("2026-03-04T12:00:30+0000")] * 99
    with pytest.raises(ExtractError, match="maintenance: Migration; gave up after 6 tries"):
        sender.http.send(Call("table x", server.url))


def test_maintenance_of_a_day_is_not_waited_for(sender: Sender, server: ScriptedServer) -> None:
    server.script = [maintenance("2026-03-05T12:00:00+0000")]
    with pytest.raises(ExtractError, match="until 2026-03-05 12:00 UTC; run again after that"):
        sender.http.send(Call("table x", server.url))
    assert sender.waits == []


def test_maintenance_without_an_end_is_waited_for_four_hours(sender: Sender, server: ScriptedServer) -> None:
    server.script = [maintenance(None)] * 999
    with pytest.raises(ExtractError, match="run again after that"):
        sender.http.send(Call("table x", server.url))
    assert sum(sender.waits) == pytest.approx(4 * 3600, abs=60)


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 422, 501])
def test_a_lasting_answer_comes_back_at_once(sender: Sender, server: ScriptedServer, status: int) -> None:
    server.script = [{"status": status}]
    assert sender.http.send(Call("table x", server.url)).status_code == status
    assert sender.waits == []


@pytest.mark.parametrize("status", [408, 409, 423, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_for_again(sender: Sender, server: ScriptedServer, status: int) -> None:
    server.script = [{"status": status}]
    assert sender.http.send(Call("table x", server.url)).status_code == 200
    assert len(sender.waits) == 1


def test_no_netrc_entry_and_no_cookie_adds_itself(
    sender: Sender, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server.script = [{"headers": {"Set-Cookie": "session=hunter2"}}]
    for _ in range(2):
        sender.http.send(Call("table x", server.url))
    assert not any({"authorization", "cookie"} & set(request) for request in server.requests)


def test_a_proxy_is_used_for_the_world_but_not_for_this_machine(
    sender: Sender, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url.partition("/object")[0])
    assert sender.http.send(Call("table x", "http://connection.keboola.invalid/x")).status_code == 200
    assert server.requests[0]["host"] == "connection.keboola.invalid"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert sender.http.send(Call("table x", server.url)).status_code == 200


def test_an_impossible_header_is_no_reason_to_try_again_and_is_not_shown(
    sender: Sender, server: ScriptedServer
) -> None:
    with pytest.raises(ExtractError) as caught:
        sender.http.send(Call("table x", server.url, headers={"X-StorageApi-Token": "hunter2\n"}))
    assert "Invalid" not in str(caught.value) and "hunter2" not in repr([caught.value, caught.value.__context__])
    assert sender.waits == []


def test_an_error_that_repeats_the_token_is_shown_without_it(sender: Sender, server: ScriptedServer) -> None:
    body = b'{"error": "815-4711-hunter2 may not see https://x.y/z?sig=hunter3", "code": "a.b", "exceptionId": "e-1"}'
    server.script = [{"status": 500, "body": body}] * 2
    with pytest.raises(ExtractError, match=r"HTTP 500 \*\*\* may not see https://x.y/z\?... \(a.b, exceptionId e-1\);"):
        sender.http.send(Call("table x", server.url, tries=2))


def test_urllib3_logs_no_url(sender: Sender, server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sender.http.send(Call("table x", server.url))
    assert "sig=" not in caplog.text


def test_a_certificate_that_nobody_signed_is_refused_at_once(
    sender: Sender, server: ScriptedServer, tmp_path: Path
) -> None:
    server.use_tls(self_signed(tmp_path))
    with pytest.raises(ExtractError, match="TLS certificate is refused: self.signed certificate"):
        sender.http.send(Call("table x", server.url.replace("http:", "https:")))
    assert sender.waits == []


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "server.pem").write_bytes(private + certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


@pytest.mark.parametrize(
    "text, epoch",
    [
        ("2026-03-04T13:00:00+0100", NOON),
        ("2026-03-04T12:00:00+00:00", NOON),
        ("2026-03-04T12:00:00Z", NOON),
        ("2026-03-04 12:00:00", NOON),
        ("tomorrow", None),
        (None, None),
        (5, None),
    ],
)
def test_times_are_read_in_all_of_keboolas_spellings(text: object, epoch: float | None) -> None:
    assert parse_time(text) == epoch


def test_a_retry_after_that_makes_no_sense_is_ignored() -> None:
    assert retry_after("-5", NOON) is None
    assert retry_after(None, NOON) is None


def test_half_a_character_in_an_answer_can_be_printed_and_stored(sender: Sender, server: ScriptedServer) -> None:
    server.script = [{"body": rb'{"\ud800name": ["\ud83d\ude00 \udfff", "\\ud800", 1.50, null]}'}]
    assert parsed(sender.http.send(Call("it", server.url))) == {"?name": ["😀 ?", "\\ud800", 1.5, None]}
