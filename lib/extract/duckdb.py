"""A query in sql_scripts/extract/ that DuckDB runs: CSV, JSON, Parquet and Excel files, and databases by ATTACH.

DuckDB writes the rows as CSV into a pipe and COPY reads them from there, so memory does not depend on their number.
Only this module imports duckdb, and only `run.plan` imports this module, when a job needs it: the package is optional.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import re
import select
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from uuid import uuid4

from lib.errors import ExtractError, JobConfigError, SettingsError
from lib.extract import Export, Slice, SourceTable
from lib.stop import start_thread

try:
    import duckdb
except ImportError:
    raise SettingsError(
        "a job with a duckdb source needs the package duckdb: python -m pip install -r requirements-duckdb.txt"
    ) from None

Result = TypeVar("Result")

#: bounds of one query; what needs more memory goes to a temporary folder. One thread keeps the rows in order: with
#: more, those of one wait in memory for those of another.
LIMITS: dict[str, Any] = {"memory_limit": "256MB", "threads": "1"}
#: nothing is downloaded while a job runs; a file that is read twice is read from the disk twice
OFFLINE: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_file_cache": "false",
}
#: no progress bar, which would go to stdout; no variable of this program is taken for a table
SETTINGS = "SET enable_progress_bar = false; SET python_enable_replacements = false; SET TimeZone = 'UTC'"
#: an extension is loaded if the query holds this word, one that is not named here always
WORDS = {
    "encodings": "encoding",
    "excel": "xlsx",
    "httpfs": "://",
    "mysql_scanner": "mysql",
    "postgres_scanner": "postgres",
    "sqlite_scanner": "sqlite",
}
#: by the beginning of a function's name, of a TYPE in ATTACH with _ added, or of a URL: the extension that it needs
EXTENSIONS = {
    "read_xlsx": "excel",
    "sqlite_": "sqlite_scanner",
    "postgres_": "postgres_scanner",
    "mysql_": "mysql_scanner",
    "http://": "httpfs",
    "https://": "httpfs",
}
#: encodings that need no extension
ENCODINGS = ("utf-8", "utf-16", "latin-1")
#: for each reader what DuckDB would else guess from a sample of the rows, or from the names of folders. What the query
#: names itself stays. `maximum_depth` 1 leaves each value of a JSON object as it stands in the file.
NO_FOLDERS = {"hive_partitioning": "false"}
CSV_OPTIONS = NO_FOLDERS | {
    "allow_quoted_nulls": "false",
    "comment": "''",
    "delim": "','",
    "escape": "'\"'",
    "header": "true",
    "quote": "'\"'",
    "skip": "0",
}
JSON_OPTIONS = NO_FOLDERS | {
    "map_inference_threshold": "-1",
    "maximum_depth": "1",
    "maximum_sample_files": "-1",
    "sample_size": "-1",
}
XLSX_OPTIONS = {"header": "true", "stop_at_empty": "false"}
#: what stands around read_json: each value as text, a text without its quotes, NULL for null
JSON_TEXTS = "SELECT to_json(COLUMNS('(?s)(.*)')) ->> '$' AS '\\1' FROM {}"
#: what stands around read_xlsx: no rows whose cells are all empty
XLSX_ROWS = "SELECT * FROM {} WHERE concat(*COLUMNS(*)) <> ''"
#: columns of PostgreSQL that DuckDB would read as DOUBLE, though they are exact
NUMBERS = """
    SELECT n.nspname::text, c.relname::text, a.attname::text
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE a.atttypid = 'numeric'::regtype AND (a.atttypmod = -1 OR (a.atttypmod - 4) >> 16 > 38)
"""
YES, NO = ("t", "true", "1"), ("f", "false", "0")
#: options that leave out rows or change values, and what each must be
LOSSY = {"ignore_errors": NO, "store_rejects": NO, "strict_mode": YES, "maximum_depth": ("1",)}
#: of an extension that is loaded: SQLite's values as they are stored, whatever type the column declares; numbers of
#: MySQL's tinyint(1), not true for each but 0; a web server that does not answer is asked twice, for 30 s each
EXTENSION_SETTINGS = {
    "sqlite_scanner": "SET sqlite_all_varchar = true",
    "mysql_scanner": "SET mysql_tinyint1_as_boolean = false",
    "httpfs": "SET http_retries = 1",
}
#: table functions that read the files which their first argument names
READERS = re.compile(r"read_(csv|json|ndjson)(_objects)?(_auto)?|read_(parquet|xlsx|text|blob)|parquet_scan")
#: those that read nothing
PURE = ("generate_series", "json_each", "json_tree", "range", "unnest")
#: seconds between two checks whether a stop was requested
STOP_EVERY = 0.2
#: seconds between two interrupts of a query, and after which one that does not end is left behind
END_EVERY = 0.05
END_WITHIN = 2.0

#: how a text begins: '..', $$..$$, E'..'
_QUOTES = ("'", "$", "e'", "E'", "x'", "X'", "b'", "B'")
_WORD = re.compile(
    rb"""\$(\w*)\$.*?\$\1\$|e'(?:[^'\\]|\\.)*'|[xb]?'(?:[^']|'')*'|[\w\x80-\xff]+|"(?:[^"]|"")*"|.""",
    re.DOTALL | re.IGNORECASE,
)
_SPACE = re.compile(r"(\s|--[^\n]*\n?|/\*.*?\*/)*", re.DOTALL)
#: in a text of the query, whatever quotes it has: a password, and what in a URL gives access
_SECRET = re.compile(
    r"\bpass(word|wd)?\s*=|://[^/\s'@]*:[^/\s'@]*@"
    r"|[?&](sig|x-(amz|goog)-signature|\w*token|\w*secret|pass(word|wd)|api_?key)=",
    re.IGNORECASE,
)
#: in a message: the name of a secret, and its value; and what stands before @ in a URL
_TO_MASK = re.compile(
    r"\b(\w*(?:pass(?:word|wd|phrase)?|pwd|token|secret\w*|api_?key|access_?key\w*)\s*=\s*)(?:'[^']*'?|[^\s'\"&;,)]+)"
    r"|(://)[^/\s'@]*:[^/\s'@]*(?=@)",
    re.IGNORECASE,
)
_SERVERS = re.compile("postgres|mysql|://", re.IGNORECASE)
_ATTACHED_FILE = re.compile(
    r"(attach\s+(?:or\s+replace\s+)?(?:database\s+)?(?:if\s+not\s+exists\s+)?'(?:sqlite:|duckdb:)?)([^/~:'][^:']*)'",
    re.IGNORECASE,
)
#: kinds of files, by the ends of their names
_KINDS = {
    "csv": re.compile(r".*\.(csv|tsv)(\.\w+)?", re.IGNORECASE),
    "json": re.compile(r".*\.(json|jsonl|ndjson)(\.\w+)?", re.IGNORECASE),
    "xlsx": re.compile(r".*\.xlsx", re.IGNORECASE),
    "xls": re.compile(r".*\.(xls|xlsb|xlsm|ods)", re.IGNORECASE),
}
#: the name of a file in a folder such as cost=9, or in one that a pattern finds
_IN_A_FOLDER_WITH_VALUES = re.compile(r".*[=*?[].*/.*", re.DOTALL)
_PACKED_FAR_AWAY = re.compile(r"\w+://.*\.(gz|zst)", re.IGNORECASE)
_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
_LACKS_EXTENSION = re.compile(
    r"requires the extension (\w+)|in the (\w+) extension|(\w+)\.duckdb_extension\" not found"
)
#: words with which a query may have other rows although its files are the same: they ask for the time or for chance
_CHANGING = re.compile(
    r"\b((get_)?current_(local)?(date|time|timestamp)|localtime(stamp)?|transaction_timestamp|now|today|age"
    r"|\w*random\w*|setseed|\w*uuid\w*|\w*sample|nextval|getenv|getvariable)\b",
    re.IGNORECASE,
)
#: the row of a CSV with a mistake, which may have several lines
_THE_ROW = re.compile(
    r"^Original Line:(.*?^(?=Expected Number|Value with|Invalid unicode|Error when|Maximum line|Possible )|.*)",
    re.MULTILINE | re.DOTALL,
)
#: What DuckDB's message holds; what to say instead (empty: its own words); what to do. Its own advice would lose rows.
_ADVICE = (
    (
        r"Error when sniffing file \"(?P<file>.*?)\"|^The CSV Parser state machine",
        "this is no CSV as the query describes it",
        "a row has too few or too many values, a quote is not closed, or lines end in different ways. Other signs than"
        " delim = ',' and quote = '\"' must be named",
    ),
    (r"not utf-8 encoded", "", "write encoding = 'CP1250', or what it has"),
    (r"Timeout was reached", "", "the server did not answer within 30 s, nor at the second try"),
    (
        r"detected in value construction",
        "",
        "a BLOB of SQLite must be read as sqlite_query('erp', 'SELECT hex(..) ..')",
    ),
)
_CSV_FILE = re.compile(r"^  file = (.*)$", re.MULTILINE)
_URL_QUERY = re.compile(r"\?[^\s'\"]+=[^\s'\"]*")


@dataclass(frozen=True)
class Query:
    """A script of sql_scripts/extract/ that may be run."""

    path: str
    text: str
    #: (line, statement) of each ATTACH
    attach: tuple[tuple[int, str], ...]
    #: after as many empty lines as the script has before it, so that DuckDB names the script's lines
    select: str
    #: the files that it reads from this machine, as patterns
    files: tuple[str, ...]
    #: those of them that must begin with a header
    headed: tuple[str, ...]
    #: names of the tables that it reads
    tables: tuple[str, ...]
    #: whether these files are all that it reads
    reads_only_files: bool


def read_query(path: str, text: str) -> Query:
    """Raises JobConfigError with every mistake that can be seen without reading data, one per line."""
    for place, word in _words_of(text):
        if word.startswith(_QUOTES) and (found := _SECRET.search(word)):
            line = _line_at(text, place) + word.count("\n", 0, found.start())
            raise JobConfigError(
                f"{path}:{line}: holds a secret: name a service of pg_service.conf"
                " (ATTACH 'service=erp' AS erp (TYPE postgres, READ_ONLY)), and let the driver find its password"
            )
    # before another statement, DuckDB cuts the query at its semicolon, so it can be put into parentheses
    script = f"{text}\n;SELECT 1"
    try:
        *parts, _ = duckdb.extract_statements(script)
    except duckdb.Error as error:
        raise JobConfigError(_words(path, error)) from None
    if not parts:
        raise JobConfigError(f"{path}:1: holds no query")
    mistakes: list[str] = []
    attach: list[tuple[int, str]] = []
    position = 0
    for part in parts:
        # a PIVOT becomes several statements of DuckDB's own, which are not in the script
        position = max(position, script.find(part.query, position))
        line = _line_at(script, position + _SPACE.match(part.query).end())  # type: ignore[union-attr]  # matches ''
        if part is parts[-1]:
            break
        attach.append((line, part.query))
        if part.type != duckdb.StatementType.ATTACH:
            mistakes.append(f"{path}:{line}: only ATTACH may stand before the query, which is one SELECT")
        else:
            mistakes += [f"{path}:{line}: {mistake}" for mistake in _mistakes_of_attach(part.query)]
        position += len(part.query)
    select = "\n" * script.count("\n", 0, position) + part.query
    tree = _SyntaxTree(path, select)
    if mistakes := mistakes + tree.mistakes:
        raise JobConfigError("\n".join(mistakes))
    return Query(
        path,
        text,
        tuple(attach),
        tree.select,
        tuple(tree.files),
        tuple(tree.headed),
        tuple(tree.tables),
        tree.reads_only_files and not attach,
    )


def _mistakes_of_attach(statement: str) -> Iterator[str]:
    words = [word.lower() for _, word in _words_of(statement)]
    after = [words[place + 1 : place + 2] for place, word in enumerate(words) if word in ("read_only", '"read_only"')]
    if not after or any(word not in ([","], [")"], ["true"]) for word in after):
        yield "a source is only read: write READ_ONLY, as in (TYPE sqlite, READ_ONLY)"
    for word, kind in itertools.pairwise(words):
        if word == "type" and (missing := _missing(f"{kind.removesuffix('_scanner')}_")):
            yield missing
    if any(word.startswith(_QUOTES) and not word.startswith("'") for word in words):
        yield "write what is attached in single quotes: '..'"


class _SyntaxTree:
    """What a SELECT reads, found in the tree into which DuckDB parses it."""

    def __init__(self, path: str, select: str) -> None:
        self._path, self._bytes = path, select.encode()
        self.mistakes: list[str] = []
        self.files: list[str] = []
        #: those that must begin with a header
        self.headed: list[str] = []
        self.tables: list[str] = []
        self.reads_only_files = True
        #: where each word and sign begins, in bytes
        self._tokens = [place for place, _ in duckdb.tokenize(select)]
        #: what is put into the text, and where, in bytes
        self._insertions: list[tuple[int, str]] = []
        with duckdb.connect(config=LIMITS | OFFLINE) as connection:
            row = connection.execute("SELECT json_serialize_sql(?)", [select]).fetchone()
        tree = json.loads(row[0]) if row else {}
        if tree.get("error", True):
            line = _line_at(select, _SPACE.match(select).end())  # type: ignore[union-attr]  # matches ''
            self.mistakes.append(f"{path}:{line}: must be one SELECT")
            return
        nodes = [*_nodes(tree)]
        named = {entry["key"].lower() for node in nodes for entry in node.get("cte_map", {}).get("map", ())}
        for node in nodes:
            if node.get("type") == "BASE_TABLE":
                self._read_table(node, named)
            elif node.get("type") == "TABLE_FUNCTION":
                self._read_function(node)
            elif node.get("type") == "SHOW_REF":
                self.reads_only_files = False

    @property
    def select(self) -> str:
        """The SELECT, with the options of each reader that it does not name."""
        data = self._bytes
        for at, added in sorted(self._insertions, reverse=True):
            data = data[:at] + added.encode() + data[at:]
        return data.decode()

    def _wrong(self, at: int, text: str) -> None:
        line = self._bytes.count(b"\n", 0, at) + 1
        self.mistakes.append(f"{self._path}:{line}: {text}")

    def _read_table(self, node: Mapping[str, Any], named: set[str]) -> None:
        name, at, is_qualified = node["table_name"], node["query_location"], node["schema_name"] or node["catalog_name"]
        if not is_qualified and name.lower() in named:
            return
        if is_qualified or "." not in name:
            self.tables.append(name)
            self.reads_only_files = False
            return
        kind = next((kind for kind, names in _KINDS.items() if names.fullmatch(name)), None)
        if kind == "xls":
            self._wrong(at, f"DuckDB cannot read {_quoted(name)}: save it as .xlsx, or as .csv")
        elif kind:
            self._wrong(at, _guesses(f"FROM {_quoted(name)}", kind, name))
        elif _IN_A_FOLDER_WITH_VALUES.fullmatch(name):
            written = f"read_parquet({_quoted(name)})"
            self._wrong(at, f"FROM {_quoted(name)} takes values from folders such as cost=9: write {written}")
        self._read_files([name], at)

    def _read_function(self, node: Mapping[str, Any]) -> None:
        function = node["function"]
        name, at = function["function_name"].lower(), function["query_location"]
        options = {_option(child): child for child in function["children"]}
        if missing := _missing(name):
            self._wrong(at, missing)
        if not READERS.fullmatch(name):
            self.reads_only_files &= name in PURE
            return
        first = function["children"][:1]
        named = first[0]["children"] if first and first[0].get("function_name") == "list_value" else first
        paths = [_text(child) for child in named]
        if not paths or not all(paths):
            self._wrong(at, f"{name} needs its files as text in quotes, or as a list of such texts")
            return
        for option in (option for option in LOSSY if option in options and _text(options[option]) not in LOSSY[option]):
            self._wrong(at, f"{name} with {option} may lose rows or change values: leave {option} out")
        if "csv" in name:
            self._read_csv(node, options, paths)
        elif "xlsx" in name:
            self._read_xlsx(node, options, paths)
        elif "json" in name and "objects" not in name and "columns" not in options:
            self._pin(node, options, JSON_OPTIONS, JSON_TEXTS)
        elif "text" not in name and "blob" not in name:
            self._pin(node, options, NO_FOLDERS)
        self._read_files(paths, at)

    def _read_csv(self, node: Mapping[str, Any], options: Mapping[str, Any], paths: Sequence[str]) -> None:
        name, at = node["function"]["function_name"], node["function"]["query_location"]
        if _text(options.get("all_varchar")) not in YES:
            self._wrong(at, _guesses(name, "csv", paths[0] if paths else ".."))
        self._check_header(node, options)
        if _text(options.get("encoding")).lower() not in ("", *ENCODINGS) and "encodings" not in dict(_extensions()):
            self._wrong(at, _needs("encodings"))
        pinned = dict(CSV_OPTIONS)
        if "sep" in options:
            del pinned["delim"]
        if "quote" in options:
            pinned["escape"] = _quoted(_text(options["quote"]))
        self._pin(node, options, pinned)
        if "skip" not in options and _text(options.get("header")) not in NO:
            self.headed += [path for path in paths if "://" not in path]

    def _read_xlsx(self, node: Mapping[str, Any], options: Mapping[str, Any], paths: Sequence[str]) -> None:
        name, at = node["function"]["function_name"], node["function"]["query_location"]
        if _text(options.get("all_varchar")) not in YES:
            self._wrong(at, _guesses(name, "xlsx", paths[0] if paths else ".."))
        self._check_header(node, options)
        if any(sign in path for path in paths for sign in "*?["):
            self._wrong(at, f"{name} reads one file of those that match: name each, and write UNION ALL between them")
        self._pin(node, options, XLSX_OPTIONS, XLSX_ROWS)

    def _check_header(self, node: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """With names of its own, a query would load a file without a header, and not miss its first row."""
        name, at = node["function"]["function_name"], node["function"]["query_location"]
        has_names = options.keys() & {"names", "column_names", "columns"} or node.get("column_name_alias")
        if has_names and "header" not in options:
            self._wrong(at, f"{name} with names of columns needs header = true if the file has such a line, else false")

    def _pin(
        self, node: Mapping[str, Any], options: Mapping[str, Any], pinned: Mapping[str, str], around: str = "{}"
    ) -> None:
        """Add what the call of a reader does not name before its last parenthesis, and a query around it."""
        at, depth, end = node["function"]["query_location"], 0, 0
        for place in self._tokens:
            sign = self._bytes[place : place + 1] if place > at else b""
            depth += (sign == b"(") - (sign == b")")
            if sign == b")" and not depth:
                end = place
                break
        self._insertions.append(
            (end, "".join(f", {key} = {value}" for key, value in pinned.items() if key not in options))
        )
        if around != "{}":
            before, after = around.split("{}")
            alias = "" if node["alias"] else f" AS {node['function']['function_name']}"
            self._insertions += [(at, f"({before}"), (end + 1, f"{after}){alias}")]

    def _read_files(self, paths: Sequence[str], at: int) -> None:
        for path in paths:
            if missing := _missing(path):
                self._wrong(at, missing)
            if _PACKED_FAR_AWAY.match(path):
                self._wrong(at, "a packed file must be on this machine: DuckDB does not notice if its end is missing")
            if "://" in path:
                self.reads_only_files = False
            else:
                self.files.append(path)


class DuckdbExtractor:
    """The results of queries. Implements `lib.extract.Extractor`; may be used from several threads.

    root: the project's folder, in which relative paths begin.
    queries: the text of each script by its path, such as extract/unit_costs.sql, which is the table's id.
    pause: waits for a number of seconds and raises to stop everything; every wait uses it.
    """

    def __init__(self, root: Path, queries: Mapping[str, str], *, pause: Callable[[float], None]) -> None:
        self._root, self._pause = root.resolve(), pause
        self._queries = {path: read_query(path, text) for path, text in queries.items()}
        #: part of each version that says nothing about the next run
        self._once = uuid4().hex
        #: by path: what was found last
        self._seen: dict[str, SourceTable] = {}

    def describe(self) -> str:
        return f"DuckDB {duckdb.__version__}"

    def warnings(self) -> Sequence[str]:
        return ()

    def table(self, table_id: str) -> SourceTable:
        """The columns of the query's result. Its version is made of the files that it reads: names, sizes and times."""
        query = self._queries[table_id]
        session = _Session(self, query, partial(self._look, query))
        try:
            while not wait([session.result], timeout=STOP_EVERY).done:
                self._pause(0.0)
        finally:
            session.end()
        return session.result.result()

    def _look(self, query: Query, connection: duckdb.DuckDBPyConnection) -> SourceTable:
        stats = [(file, os.stat(file)) for file in _files(connection, query.files)]
        stamps = [(file, stat.st_size, stat.st_mtime_ns, stat.st_ino) for file, stat in stats]
        version = hashlib.sha256(repr((query.text, stamps)).encode()).hexdigest()
        known = self._seen.get(query.path)
        if known is not None and known.version == version:
            return known
        for file in _files(connection, query.headed):
            _check_header(f"{query.path}: {file}", file)
        columns = connection.execute(f"DESCRIBE SELECT * FROM ({query.select}\n)").fetchall()
        _check_numbers(connection, query, {column[0] for column in columns if column[1] == "DOUBLE"})
        newest = max((stat.st_mtime for _, stat in stats), default=None)
        self._seen[query.path] = SourceTable(
            id=query.path,
            columns=tuple(column[0] for column in columns),
            rows=None,
            has_nulls=True,
            version=version if query.reads_only_files else f"{self._once} {version}",
            version_lasts=query.reads_only_files,
            version_is_exact=not _CHANGING.search(query.text),
            imported_at=datetime.fromtimestamp(newest, UTC) if newest and query.reads_only_files else None,
        )
        return self._seen[query.path]

    def start(self, table: SourceTable, columns: Sequence[str]) -> tuple[SourceTable, tuple[str, ...]]:
        """Nothing to request: the query runs when its only slice is opened."""
        return table, tuple(columns)

    def finish(self, started: tuple[SourceTable, tuple[str, ...]]) -> Export:
        table, columns = started
        name = table.id.rpartition("/")[2]
        return Export(table, (Slice(1, name, lambda: _Rows(self, self._queries[table.id], columns)),))

    def connect(self, query: Query, folder: str) -> duckdb.DuckDBPyConnection:
        """A DuckDB of its own for one use of a query. What needs more memory than it may have goes to `folder`."""
        paths = {"file_search_path": str(self._root), "temp_directory": folder}
        connection = duckdb.connect(config=LIMITS | OFFLINE | paths)
        connection.execute(SETTINGS)
        for name, file in _extensions():
            if WORDS.get(name, "") in query.text.lower():
                connection.execute(f"LOAD {_quoted(str(file))}")
                connection.execute(EXTENSION_SETTINGS.get(name, "SELECT 1"))
        return connection

    def attach(self, query: Query, connection: duckdb.DuckDBPyConnection) -> None:
        for line, statement in query.attach:
            try:
                connection.execute(self._in_project(statement))
            except duckdb.Error as error:
                raise ExtractError(_words(query.path, error, line)) from None

    def _in_project(self, statement: str) -> str:
        """An ATTACH with the whole path of its file: DuckDB's file_search_path does not hold for databases."""
        if _SERVERS.search(statement):
            return statement
        return _ATTACHED_FILE.sub(lambda found: found[1] + _quoted(str(self._root / found[2]))[1:], statement, count=1)

    def check_packed(self, query: Query, files: Sequence[str]) -> None:
        """Raises ExtractError for a gzip file that is cut or damaged: DuckDB would take the rows before the cut for
        all."""
        for file in files:
            subject = f"{query.path}: {file}"
            with open(file, "rb") as opened:
                start = opened.read(4)
            if start == b"\x28\xb5\x2f\xfd":
                raise ExtractError(
                    f"{subject}: nobody can tell whether a zstd file is complete; unpack it, or use gzip"
                )
            if start[:2] != b"\x1f\x8b":
                continue
            try:
                with gzip.open(file) as unpacked:
                    while unpacked.read(1 << 20):
                        self.pause()
            except EOFError:
                raise ExtractError(f"{subject}: the gzip data end early. The rows loaded before stay.") from None
            except (gzip.BadGzipFile, zlib.error):
                raise ExtractError(f"{subject}: the gzip data are damaged. The rows loaded before stay.") from None

    def pause(self) -> None:
        """Raises if a stop was requested."""
        self._pause(0.0)


class _Session(Generic[Result]):
    """Some work with a connection of its own, in a thread: a stop must not wait for DuckDB."""

    def __init__(
        self, extractor: DuckdbExtractor, query: Query, work: Callable[[duckdb.DuckDBPyConnection], Result]
    ) -> None:
        self._extractor, self._query = extractor, query
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.result: Future[Result] = start_thread(partial(self._run, work), f"DuckDB {query.path}")

    def _run(self, work: Callable[[duckdb.DuckDBPyConnection], Result]) -> Result:
        with tempfile.TemporaryDirectory(prefix="elt-duckdb-") as folder:
            try:
                with self._extractor.connect(self._query, folder) as self._connection:
                    self._extractor.attach(self._query, self._connection)
                    return work(self._connection)
            except duckdb.Error as error:
                raise ExtractError(_words(self._query.path, error)) from None
            except OSError as error:
                raise ExtractError(f"{self._query.path}: {error.filename}: {error.strerror}") from None

    def end(self) -> None:
        """Interrupt the work if it still runs: it must not outlive the run. Repeated, because an interrupt between two
        statements has no effect."""
        until = time.monotonic() + END_WITHIN
        while not self.result.done() and time.monotonic() < until:
            with suppress(duckdb.Error):
                if self._connection is not None:
                    self._connection.interrupt()
            wait([self.result], timeout=END_EVERY)


class _Rows:
    """The rows of a query as CSV: NULL is nothing, an empty text is "". Implements `ByteStream`."""

    def __init__(self, extractor: DuckdbExtractor, query: Query, columns: Sequence[str]) -> None:
        self._extractor, self._query, self._columns = extractor, query, columns
        self._end, self._begin = os.pipe()
        self._session = _Session(extractor, query, self._write)
        # the thread may fail before it writes: this end is closed in any case, which ends `read`
        self._session.result.add_done_callback(lambda done: os.close(self._begin))

    def _write(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._extractor.check_packed(self._query, _files(connection, self._query.files))
        texts = ", ".join(f"{_name(column)}::VARCHAR" for column in self._columns)
        connection.execute(
            f"COPY (SELECT {texts} FROM ({self._query.select}\n)) TO '/dev/fd/{self._begin}'"
            " (FORMAT csv, HEADER false, USE_TMP_FILE false)"
        )

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; b"" at the end. Raises ExtractError if the query failed, also after its last row."""
        self._extractor.pause()
        while not select.select([self._end], [], [], STOP_EVERY)[0]:
            self._extractor.pause()
        data = os.read(self._end, size)
        if not data:
            self._session.result.result()
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        os.close(self._end)  # DuckDB may be waiting for a reader
        self._session.end()


def _extensions() -> Iterator[tuple[str, Path]]:
    """Name and file of each extension that is installed as a package."""
    packages = Path(duckdb.__file__).parent.parent
    for file in packages.glob(f"duckdb_extension_*/extensions/v{duckdb.__version__}/*.duckdb_extension"):
        yield file.stem, file


def _files(connection: duckdb.DuckDBPyConnection, patterns: Sequence[str]) -> list[str]:
    found = {row[0] for path in patterns for row in connection.execute("FROM glob(?)", [path]).fetchall()}
    return sorted(found)


def _check_numbers(connection: duckdb.DuckDBPyConnection, query: Query, inexact: set[str]) -> None:
    """Raises ExtractError for a column of PostgreSQL that is numeric without a precision, or with more than 38 digits:
    DuckDB takes its values for inexact numbers, and NaN for 0."""
    if not (query.attach and inexact):
        return
    attached = connection.execute("SELECT database_name FROM duckdb_databases() WHERE type = 'postgres'").fetchall()
    for (name,) in attached:
        found = connection.execute("FROM postgres_query(?, ?)", [name, NUMBERS]).fetchall()
        for schema, table, column in found:
            if table in query.tables and column in inexact:
                written = f"SELECT {column}::text AS {column}, .. FROM {schema}.{table}"
                raise ExtractError(
                    f"{query.path}: {schema}.{table}.{column} is numeric without a precision, which DuckDB would round:"
                    f" write FROM postgres_query('{name}', '{written}')"
                )


def _check_header(subject: str, file: str) -> None:
    """Raises ExtractError if a CSV does not begin with its header. Below an empty line DuckDB would take it for a row,
    too."""
    with open(file, "rb") as opened:
        is_packed = opened.read(2) == b"\x1f\x8b"
    with (
        gzip.open(file) if is_packed else open(file, "rb") as unpacked,
        suppress(EOFError, gzip.BadGzipFile, zlib.error),
    ):
        start = unpacked.read(16).lstrip(b"\xef\xbb\xbf\xff\xfe")  # without byte order marks
        if not start:
            raise ExtractError(f"{subject}: is empty, without a header")
        if start[:1] in b"\r\n":
            raise ExtractError(f"{subject}:1: is an empty line: write skip = 1 if the header is line 2")


def _nodes(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(child)


def _option(child: Mapping[str, Any]) -> str:
    """The name of a function's named argument, `name = value` or `name => value`; empty for one without a name."""
    if child["type"] == "COMPARE_EQUAL" and child["left"]["type"] == "COLUMN_REF":
        return str(child["left"]["column_names"][-1]).lower()
    return str(child["alias"]).lower()


def _text(option: Mapping[str, Any] | None) -> str:
    """The constant that a named argument gives; true is t. Empty for anything else."""
    value = option.get("right", option) if option else {}
    value = value["child"] if value.get("type") == "OPERATOR_CAST" else value
    return str(value["value"].get("value")) if value.get("type") == "VALUE_CONSTANT" else ""


def _guesses(what: str, kind: str, file: str) -> str:
    example, option = {
        "csv": ("00123 becomes 123", ", all_varchar = true"),
        "json": ("5.5 becomes 6", ""),
        "xlsx": ("3 becomes 3.0, and a time may be cut", ", all_varchar = true"),
    }[kind]
    return f"{what} guesses types, {example}: write read_{kind}({_quoted(file)}{option})"


def _words(path: str, error: duckdb.Error, line: int | None = None) -> str:
    """DuckDB's message after file and line. What follows it repeats the query or tells to download something."""
    text = str(error)
    named = _LINE.search(text)
    place = f"{path}:{named[1]}" if named else f"{path}:{line}" if line else path
    lacking = _LACKS_EXTENSION.search(text)
    extension = next(filter(None, lacking.groups())) if lacking else ""
    if extension and extension not in dict(_extensions()):
        return f"{place}: {_needs(extension)}"
    advice = ""
    text = _THE_ROW.sub("", text)
    if of_file := _CSV_FILE.search(text):
        place = f"{place}: {of_file[1]}"
    said = re.split(r"\n\s*\n|\nPossible (?:fixes|Solution)", text)[0]
    for pattern, instead, what_to_do in _ADVICE:
        if found := re.search(pattern, text, re.MULTILINE):
            advice = f": {what_to_do}"
            place += f": {found['file']}" if found.groupdict().get("file") else ""
            said = instead or said
    said = _URL_QUERY.sub("?...", _TO_MASK.sub(r"\1\2...", " ".join(said.split())))
    return f"{place}: {said[:500]}{advice}"


def _missing(name: str) -> str:
    """What to install for this function, type or URL; empty if nothing."""
    needed = next((needed for start, needed in EXTENSIONS.items() if name.lower().startswith(start)), None)
    return _needs(needed) if needed and needed not in dict(_extensions()) else ""


def _needs(extension: str) -> str:
    name = extension.replace("_", "-")
    return f"needs DuckDB's extension {name}: pip install duckdb-extension-{name}=={duckdb.__version__}"


def _words_of(text: str) -> Iterator[tuple[int, str]]:
    """Place and text of each word, sign and text in quotes of a script; comments are left out."""
    data = text.encode()
    for place, _ in duckdb.tokenize(text):
        if found := _WORD.match(data, place):
            yield len(data[:place].decode()), found[0].decode()


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
