"""One object as a stream, from a store on loopback with scripted responses."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator

import pytest

from lib.errors import Cancelled, ExtractError
from lib.extract import http
from lib.extract.http import Http
from lib.extract.object_stores import Location
from lib.extract.object_stream import open_object
from tests.support.scripted_server import ScriptedServer

CSV = "".join(f'"{number}","note ""{number}"" 🦊"\n' for number in range(60_000)).encode()
GZIP = gzip.compress(CSV, 1)


class Access:
    """Credentials as a header; counts how often they are renewed."""

    def __init__(self, url: str) -> None:
        self._url, self.renewed = url, 0

    def location(self) -> Location:
        renewed = str(self.renewed)
        return Location("bucket", "key", re.compile(""), 0.0, lambda key, generation: self._url, {"X-Key": renewed})

    def renew(self, refused: Location) -> None:
        self.renewed += 1


class Reader:
    """Reads an object, and records what happened meanwhile."""

    def __init__(self, store: ScriptedServer, silence: float = 0.25) -> None:
        self.store, self.access = store, Access(store.url)
        self.waits: list[float] = []
        self.lines: list[str] = []
        self.at = 0.0
        self.http = Http(
            pause=self.pause,
            clock=lambda: self.at,
            now=lambda: self.at,
            report=self.lines.append,
            connections=2,
            secret="hunter2",
            timeout=(5.0, silence),
        )

    def pause(self, seconds: float) -> None:
        if seconds:  # seconds of 0 only ask whether to stop
            self.waits.append(seconds)
        self.at += seconds

    def tick(self) -> None:
        self.at += 1.0

    def open(self, header: tuple[str, ...] | None = None, is_gzip: bool = False) -> io.RawIOBase:
        return open_object(self.http, self.access, "key", "slice 1 (object.csv.gz)", is_gzip=is_gzip, header=header)

    def read(self, size: int = 50_000, header: tuple[str, ...] | None = None, is_gzip: bool = False) -> bytes:
        with self.open(header, is_gzip) as stream:
            return b"".join(iter(lambda: stream.read(size), b""))


@pytest.fixture
def store() -> Iterator[ScriptedServer]:
    store = ScriptedServer(GZIP)
    yield store
    store.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit is noticed sooner: its clock is the test's, but how often it is looked at is real."""
    monkeypatch.setattr(http, "STOP_EVERY", 0.02)


@pytest.fixture
def reader(store: ScriptedServer) -> Reader:
    return Reader(store)


@pytest.mark.parametrize("size", [1, 8192, 10_000_000])
def test_pieces_of_any_size_make_up_the_object(store: ScriptedServer, reader: Reader, size: int) -> None:
    store.body = gzip.compress(CSV[:5000])
    assert reader.read(size) == CSV[:5000]
    assert len(store.requests) == 1


@pytest.mark.parametrize(
    "body, csv",
    [
        (b"", b""),
        (gzip.compress(b""), b""),
        (CSV, CSV),
        (b"1", b"1"),
        (GZIP, CSV),
        (gzip.compress(CSV[:1000]) + gzip.compress(b"") + gzip.compress(CSV[1000:]), CSV),
        (b"".join(gzip.compress(CSV[at : at + 40]) for at in range(0, 40_000, 40)), CSV[:40_000]),
        (GZIP + b"\0" * 512, CSV),
    ],
    ids=["empty", "gzip of nothing", "plain", "one byte", "gzip", "three members", "1000 members", "padded"],
)
def test_gzip_is_known_by_its_content(store: ScriptedServer, reader: Reader, body: bytes, csv: bytes) -> None:
    store.body = body
    assert reader.read() == csv


@pytest.mark.parametrize("chunked", [False, True])
def test_an_empty_object_where_gzip_was_announced_is_a_failed_download(
    store: ScriptedServer, reader: Reader, chunked: bool
) -> None:
    """Even an empty gzip stream has 20 bytes."""
    empty = {"body": b"", "chunked": True, "cut": 0} if chunked else {"body": b""}
    store.script = [empty, empty]
    store.body = GZIP
    assert reader.read(is_gzip=True) == CSV
    assert len(reader.waits) >= 2
    store.body = b""
    with pytest.raises(
        ExtractError, match=r"^slice 1 \(object.csv.gz\): the object has 0 bytes.* gave up after 6 tries"
    ):
        reader.read(is_gzip=True)
    store.body = gzip.compress(b"")
    assert reader.read(is_gzip=True) == b""


@pytest.mark.parametrize(
    "body, message",
    [
        (GZIP[:-1], "the gzip data end early"),
        (GZIP[:-8], "the gzip data end early"),
        (GZIP[: len(GZIP) // 2], "the gzip data end early"),
        (b"\x1f\x8b", "the gzip data end early"),
        (GZIP[:-8] + zlib.crc32(b"other").to_bytes(4, "little") + GZIP[-4:], "the gzip data are damaged"),
        (GZIP[:-4] + b"\1\2\3\4", "the gzip data are damaged"),
        (GZIP + b"rubbish", "the gzip data are damaged"),
        (b"PAR1" + CSV, "Parquet"),
    ],
    ids=["a byte short", "no trailer", "half", "magic only", "other checksum", "other length", "rubbish", "parquet"],
)
def test_damaged_data_never_pass_for_the_whole(
    store: ScriptedServer, reader: Reader, body: bytes, message: str
) -> None:
    store.body = body
    with pytest.raises(ExtractError, match=rf"^slice 1 \(object.csv.gz\).*{message}"):
        reader.read()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("cut", [0, 1, 1000, len(GZIP) // 2, len(GZIP) - 1])
def test_a_cut_connection_goes_on_from_the_byte_reached(
    store: ScriptedServer, reader: Reader, cut: int, reset: bool
) -> None:
    store.script = [{"cut": cut, "reset": reset}]
    assert reader.read() == CSV
    assert len(store.requests) == 2
    if cut and not reset:
        assert store.requests[1]["range"] == f"bytes={cut}-"
        assert store.requests[1]["if-match"] == '"v1"'


def test_a_store_that_ignores_ranges_is_read_from_the_start(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"cut": 100_000}, {"ignore_range": True, "cut": 50_000}, {"ignore_range": True}]
    assert reader.read() == CSV


def test_a_store_that_answers_a_range_in_part_is_asked_for_the_rest(store: ScriptedServer, reader: Reader) -> None:
    part = {"Content-Range": f"bytes 1000-1999/{len(GZIP)}"}
    store.script = [{"cut": 1000}, {"status": 206, "body": GZIP[1000:2000], "headers": part}]
    assert reader.read() == CSV
    assert store.requests[2]["range"] == "bytes=2000-"


def test_a_stalled_connection_goes_on_after_the_timeout(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"cut": 1000, "stall": True}]
    assert reader.read() == CSV


HEAD = f'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: {len(GZIP)}\r\n\r\n'.encode()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "plan, again",
    [
        ({"raw": HEAD[:20]}, None),
        ({"raw": HEAD}, None),
        ({"raw": HEAD + GZIP[:300_000]}, "bytes=262144-"),
        ({"chunked": True, "cut": 300_000}, "bytes=262144-"),
        ({"status": 403, "length": 100}, None),
        ({"status": 503, "length": 100}, None),
    ],
    ids=["headers", "from the start", "in the middle", "chunk", "refusal", "busy"],
)
def test_a_slice_that_trickles_goes_on_with_another_connection(
    store: ScriptedServer, plan: dict, again: str | None
) -> None:
    reader = Reader(store, silence=30.0)
    store.script = [{**plan, "trickle": reader.tick}]
    assert reader.read() == CSV
    assert [request.get("range") for request in store.requests] == [None, again]
    assert len(reader.waits) == 1
    assert "raw" in plan and len(plan["raw"]) == 20 or store.hung_up.wait(10)


@pytest.mark.usefixtures("quick")
def test_a_trickle_after_an_ignored_range_is_noticed(store: ScriptedServer) -> None:
    reader = Reader(store, silence=30.0)
    store.script = [{"cut": 300_000}, {"raw": HEAD, "trickle": reader.tick}]
    assert reader.read() == CSV
    assert store.hung_up.wait(10)


@pytest.mark.usefixtures("quick")
def test_a_slice_that_always_trickles_is_given_up(store: ScriptedServer) -> None:
    reader = Reader(store, silence=30.0)
    store.script = [{"raw": HEAD, "trickle": reader.tick}] * 6
    words = (
        rf"^slice 1 \(object.csv.gz\): less than 1,024 bytes a second for 256 s after 0 of {len(GZIP)} bytes; gave up"
    )
    with pytest.raises(ExtractError, match=words):
        reader.read()


def test_a_reader_that_takes_its_time_is_no_slow_store(store: ScriptedServer, reader: Reader) -> None:
    with reader.open() as stream:
        pieces = []
        while piece := stream.read(50_000):
            pieces.append(piece)
            reader.at += 3600.0
    assert b"".join(pieces) == CSV and len(store.requests) == 1


def test_a_stop_does_not_wait_for_a_store_that_trickles(store: ScriptedServer) -> None:
    reader = Reader(store, silence=30.0)
    store.script = [{"raw": HEAD + GZIP[:262_144], "trickle": reader.tick}]
    asked: list[float] = []

    def stop(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) > 1:  # the first one is before the read
            raise Cancelled()

    with pytest.raises(Cancelled), reader.open() as stream:
        stream.read(1)
        reader.http.pause = stop
        stream.read()
    assert store.hung_up.wait(10)


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"cut": 1000}]
    with reader.open() as stream:
        stream.read(1)
        store.etag = '"v2"'
        with pytest.raises(ExtractError, match="replaced while it was read.*PreconditionFailed"):
            stream.read()


def test_a_replaced_object_is_noticed_where_the_store_ignores_if_match(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"cut": 1000}, {"status": 206, "headers": {"ETag": '"v2"'}}]
    with pytest.raises(ExtractError, match="replaced"):
        reader.read()


@pytest.mark.parametrize(
    "content_range, message",
    [
        (f"bytes 1000-{len(GZIP) + 4}/{len(GZIP) + 5}", "replaced while it was read"),
        (f"bytes 0-{len(GZIP) - 1}/{len(GZIP)}", "another byte range than was requested"),
        ("", "another byte range than was requested"),
    ],
    ids=["other size", "other start", "none"],
)
def test_a_range_that_does_not_fit_what_was_read_is_refused(
    store: ScriptedServer, reader: Reader, content_range: str, message: str
) -> None:
    store.script = [{"cut": 1000}, {"status": 206, "headers": {"Content-Range": content_range}}]
    with pytest.raises(ExtractError, match=message):
        reader.read()


def test_an_object_shorter_than_announced_is_no_success(store: ScriptedServer, reader: Reader) -> None:
    store.body = CSV
    store.script = [{"length": len(CSV) + 10}]
    with pytest.raises(ExtractError, match=f"ends before byte {len(CSV)}, it had {len(CSV) + 10}"):
        reader.read()


@pytest.mark.parametrize("cut", [None, 1000, len(GZIP) - 1])
def test_a_body_in_chunks_ends_with_its_last_chunk(store: ScriptedServer, reader: Reader, cut: int | None) -> None:
    store.script = [{"chunked": True, "cut": cut}]
    assert reader.read() == CSV
    assert len(store.requests) == (1 if cut is None else 2)


def test_a_body_in_chunks_that_is_always_cut_is_no_success(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"chunked": True, "cut": 1000, "ignore_range": True}] * 20
    with pytest.raises(ExtractError, match=r"after \d+ of . bytes; gave up after 6"):
        reader.read()


def test_a_body_without_any_length_is_refused(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"length": None}]
    with pytest.raises(ExtractError, match="does not say how long"):
        reader.read()


def test_a_connection_that_is_always_cut_is_given_up(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"cut": 10}] + [{"cut": 0}] * 20
    with pytest.raises(ExtractError, match=rf"the connection was cut after 10 of {len(GZIP)} bytes; gave up after 6"):
        reader.read()
    assert len(store.requests) == 6
    assert reader.waits == pytest.approx([1, 2, 4, 8, 16], rel=0.26)


def test_progress_makes_up_for_cuts(store: ScriptedServer, reader: Reader) -> None:
    store.body = CSV * 2
    store.script = [{"cut": 300_000}] * 50
    assert reader.read() == CSV * 2
    assert len(store.requests) > 10


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_transient_status_is_tried_again(store: ScriptedServer, reader: Reader, status: int) -> None:
    store.script = [{"status": status, "body": b"busy"}, {"cut": 500}, {"status": status, "body": b"busy"}]
    assert reader.read() == CSV
    assert len(reader.waits) == 3


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_credential_is_renewed_once(store: ScriptedServer, reader: Reader, status: int) -> None:
    store.script = [{"cut": 1000}, {"status": status, "body": b"<Error><Code>ExpiredToken</Code></Error>"}]
    assert reader.read() == CSV
    assert reader.access.renewed == 1
    assert [request["x-key"] for request in store.requests] == ["0", "0", "1"]
    assert store.requests[2]["range"] == "bytes=1000-"


def test_a_credential_refused_twice_is_an_error(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"status": 403, "body": b"<Error><Code>AccessDenied</Code><Sig>hunter2</Sig></Error>"}] * 9
    with pytest.raises(ExtractError, match=r"refuses the object \(HTTP 403 AccessDenied\)$"):
        reader.read()
    assert reader.access.renewed == 1


def test_a_missing_object_says_how_long_files_live(store: ScriptedServer, reader: Reader) -> None:
    store.script = [{"status": 404, "body": b"<Error><Code>NoSuchKey</Code></Error>"}]
    with pytest.raises(ExtractError, match=r"is gone \(exported files live 2 days\) \(HTTP 404 NoSuchKey\)"):
        reader.read()


def test_a_redirect_is_not_followed(store: ScriptedServer, reader: Reader) -> None:
    elsewhere = ScriptedServer(GZIP)
    store.script = [{"status": 307, "headers": {"Location": elsewhere.url}}]
    with pytest.raises(ExtractError, match="HTTP 307"):
        reader.read()
    elsewhere.close()
    assert elsewhere.requests == []


def test_a_stop_ends_any_wait_at_once(store: ScriptedServer, reader: Reader) -> None:
    def stop(seconds: float) -> None:
        raise Cancelled()

    reader.http.pause = stop
    store.script = [{"cut": 10}]
    with pytest.raises(Cancelled):
        reader.read()


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "head, columns",
    [
        (b'"id","note"\n', ("id", "note")),
        (b"id,note\n", ("id", "note")),
        (b"\xef\xbb\xbfid,note\r\n", ("id", "note")),
        (b'"i""d\n","a\nb"\n', ('i"d\n', "a\nb")),
        (
            ",".join(f"column_{number}" for number in range(1000)).encode() + b"\n",
            tuple(f"column_{n}" for n in range(1000)),
        ),
    ],
    ids=["quoted", "bare", "BOM and CRLF", "newline in a name", "1000 columns"],
)
def test_a_header_line_is_left_out(
    store: ScriptedServer, reader: Reader, head: bytes, columns: tuple[str, ...], compress: Callable[[bytes], bytes]
) -> None:
    store.body = compress(head + CSV)
    assert reader.read(header=columns) == CSV


@pytest.mark.parametrize("body", [b"id,note", b"id,note\n"])
def test_a_header_alone_means_no_rows(store: ScriptedServer, reader: Reader, body: bytes) -> None:
    store.body = body
    assert reader.read(header=("id", "note")) == b""


@pytest.mark.parametrize("body", [b"", CSV, b"note,id\n" + CSV, b"id\n" + CSV, b'"' + b"x" * 3_000_000, b"\n" + CSV])
def test_another_first_line_than_the_header_is_refused(store: ScriptedServer, reader: Reader, body: bytes) -> None:
    store.body = body
    with pytest.raises(ExtractError, match="where its header line was expected"):
        reader.read(header=("id", "note"))


def test_each_opening_begins_anew(reader: Reader) -> None:
    with reader.open() as stream:
        assert stream.read(10) == CSV[:10]
    assert reader.read() == CSV


def test_no_error_shows_the_query_of_a_url(store: ScriptedServer, reader: Reader) -> None:
    store.close()
    with pytest.raises(ExtractError) as caught:
        reader.read()
    chain = repr([caught.value, caught.value.__cause__, caught.value.__context__])
    assert "hunter2" not in chain and "connection refused" in chain
