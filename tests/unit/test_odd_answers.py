"""Answers of Keboola in which something, at any depth, is not what is documented: one clear message, or no harm."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lib.errors import ExtractError
from lib.extract.keboola import ExportedFile, KeboolaExtractor
from lib.extract.keboola_catalog import KeboolaCatalog
from lib.extract.keboola_queue import KeboolaQueue
from sandbox.keboola_server import KeboolaServer
from tests.support.clouds import CLOUDS
from tests.support.extraction import COLUMNS, ROWS, TABLE, Plain, Time, real_answer
from tests.support.scripted_server import ScriptedServer

#: what a value of an answer may have become; text of a time or URL that looks right and is not among it
ODD = [None, [], {}, [None], ["x"], {"a": 1}, "x", "", 5, 10**400, True, float("inf"), "http://[", "žluť", "\ud83d"]
ODD += ["0001-01-01T00:00:00+0100", "9999-12-31T23:59:59.999999-0100"]
#: how many variants of an answer are tried each time; the long test tries all
SOME = 40
METADATA = [{"id": "1", "key": "KBC.description", "value": "words", "provider": "user", "timestamp": "2026-01-01"}]


def variants(value: Any) -> Iterator[Any]:
    """Copies of a JSON value in which one value, at any depth, is odd or missing."""
    yield from ODD
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        rest = dict(value) if isinstance(value, dict) else list(value)
        del rest[key]
        yield rest
        for odd in variants(value[key]):
            changed = dict(value) if isinstance(value, dict) else list(value)
            changed[key] = odd
            yield changed


def table_answer() -> dict[str, Any]:
    """A typed alias with metadata everywhere."""
    with KeboolaServer() as keboola:
        hints = {"id": {"KBC.datatype.basetype": "INTEGER", "KBC.description": "Number"}}
        keboola.put_table(
            TABLE, columns=COLUMNS, rows=ROWS[:1], typed=True, primary_key=["id"], description="Words", hints=hints
        )
        answer = real_answer(keboola, "table")
    origin = {"id": "in.c-a.b", "metadata": METADATA, "columnMetadata": {"note": METADATA}}
    return {**answer, "sourceTable": origin}


def file_answer(provider: str) -> dict[str, Any]:
    with KeboolaServer(store=CLOUDS[provider]) as keboola:
        keboola.put_table(TABLE, columns=COLUMNS, rows=ROWS[:1])
        return real_answer(keboola, "file")


ANSWERS: dict[str, Callable[[], Any]] = {
    "table": table_answer,
    "detail": table_answer,
    "tables": lambda: [table_answer()],
    "near": lambda: [{"id": TABLE}],
    "index": lambda: {"services": [{"id": "queue", "url": "http://127.0.0.1:1"}]},
    "jobs": lambda: [{"id": "9", "status": "error", "startTime": "2026-01-01", "result": {"message": "m"}}],
    "verify": lambda: {"id": "1", "description": "d", "expires": "2026-01-01", "owner": {"id": 5, "name": "n"}},
    "job": lambda: {"id": 7, "status": "success", "error": {"message": "m"}, "results": {"file": {"id": 5}}},
    **{f"file-{provider}": lambda provider=provider: file_answer(provider) for provider in CLOUDS},
}


def read(kind: str, extractor: KeboolaExtractor, server: ScriptedServer, body: bytes) -> None:
    """Read the answer as the pipeline does."""
    name = kind.partition("-")[0]
    if name == "table":
        server.script = [{"body": body}]
        extractor.table(TABLE)
    elif name == "detail":
        server.script = [{"body": body}]
        KeboolaCatalog(extractor).detail(TABLE)
    elif name == "tables":
        server.script = [{"body": body}]
        KeboolaCatalog(extractor).tables()
    elif name == "near":
        server.script = [{"status": 404}, {"body": body}, {"body": body}]
        extractor.table("in.c-shop.order")
    elif name == "index":
        server.script = [{"body": body}]
        extractor.service("queue", "flow x")
    elif name == "jobs":
        index = json.dumps(ANSWERS["index"]()).replace("http://127.0.0.1:1", server.url.partition("/object")[0])
        server.script = [{"body": b'{"id": 1}'}, {"body": index.encode()}, {"body": body}]
        KeboolaQueue(extractor, "keboola.flow/1").newest()
    elif name == "verify":
        server.script = [{"body": body}] * 2
        extractor.describe()
        extractor.warnings()
    elif name == "job":
        server.script = [{"body": table}, {"body": body}, {"body": b'{"id": 7, "status": "error"}'}]
        source = extractor.table(TABLE)
        extractor.finish(extractor.start(source, source.columns))
    else:
        server.script = [{"body": body}, {"status": 404}, {"status": 404}, {"status": 404}]
        ExportedFile(extractor, 5, "export of x").slices(COLUMNS)


table = json.dumps({"columns": list(COLUMNS)}).encode()


def check(kind: str, choose: Callable[[list[Any]], list[Any]]) -> None:
    server, time = ScriptedServer(b""), Time()
    extractor = KeboolaExtractor(
        server.url.partition("/object")[0],
        Plain("815-4711-secret"),
        run_id="run-17",
        parallel=1,
        pause=time.pause,
        clock=time.now,
        now=time.now,
        environ={"AWS_ENDPOINT_URL_S3": server.url, "STORAGE_EMULATOR_HOST": server.url},
        timeout=(0.5, 0.5),
        deadline=5.0,
    )
    try:
        for odd in choose(list(variants(ANSWERS[kind]()))):
            try:
                read(kind, extractor, server, json.dumps(odd).encode())
            except ExtractError as error:
                assert len(str(error)) < 1000 and "secret" not in str(error)
    finally:
        server.close()


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_odd_value_at_any_depth_is_a_message_or_no_harm(kind: str) -> None:
    seed = random.randrange(1_000_000)
    print(f"seed {seed}")
    check(kind, lambda all_of_them: random.Random(seed).sample(all_of_them, min(SOME, len(all_of_them))))


@pytest.mark.long
@pytest.mark.parametrize("kind", ANSWERS)
def test_every_odd_value_is_a_message_or_no_harm(kind: str) -> None:
    check(kind, lambda all_of_them: all_of_them)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"definition": ["x"]}, "'definition' must be an object"),
        ({"definition": {"columns": [None]}}, "'columns' must be a list of objects"),
        ({"definition": {"columns": {"id": 1}}}, "'columns' must be a list of objects"),
        ({"metadata": ["x"]}, "'metadata' must be a list of objects"),
        ({"metadata": [None]}, "'metadata' must be a list of objects"),
        ({"columnMetadata": {"id": [None]}}, "'id' must be a list of objects"),
        ({"columnMetadata": ["x"]}, "'columnMetadata' must be an object"),
        ({"sourceTable": {"columnMetadata": {"note": "x"}}}, "'note' must be a list of objects"),
        ({"sourceTable": "x"}, "'sourceTable' must be an object"),
        ({"columns": [["id"]]}, "'columns' must be a list of texts"),
        ({"primaryKey": [None]}, "'primaryKey' must be a list of texts"),
    ],
    ids=str,
)
def test_what_add_cannot_read_is_named(changed: dict[str, Any], said: str) -> None:
    server, time = ScriptedServer(json.dumps(table_answer() | changed).encode()), Time()
    url = server.url.partition("/object")[0]
    extractor = KeboolaExtractor(url, Plain("815-4711-secret"), run_id="r", parallel=1, pause=time.pause)
    try:
        with pytest.raises(ExtractError, match=f"^table {TABLE}: Keboola's answer cannot be read: {said}"):
            KeboolaCatalog(extractor).detail(TABLE)
    finally:
        server.close()
