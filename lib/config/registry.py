"""Reads elt_jobs.json into frozen Job objects in dependency order, or reports every mistake in it with its line.

Nothing here connects to Keboola or PostgreSQL, so a mistake is reported before a run starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lib.config.dependencies import cycles, groups_of, in_order
from lib.config.jobs import LAYERS, RELATION_NAME, Check, Extract, Job, Load, Registry, Script, ScriptFolder
from lib.config.json_reader import JsonSyntaxError, Node, read_json
from lib.config.spelling import did_you_mean
from lib.errors import JobConfigError

JOB_KEYS = ("depends_on", "extract", "load", "transform", "checks")
#: each kind of source: its key in `extract`, with an example
SOURCES = {"keboola_table": "in.c-bucket.table", "duckdb": "extract/name.sql"}
#: each limit of `load`: the highest number, and what it must be
LIMITS: dict[str, tuple[int | None, str]] = {
    "min_rows": (None, "a whole number, 0 or more"),
    "max_shrink_percent": (100, "a number, 0 to 100"),
    "max_growth_percent": (None, "a number, 0 or more"),
    "max_age_hours": (None, "a number, 0 or more"),
}
#: a job's name becomes part of a staging table's name, and PostgreSQL cuts names at 63 bytes
JOB_NAME_BYTES = 50
JOB_NAME = re.compile(r"[a-z][a-z0-9_]*")
#: {stage}.{bucket}.{table}, no further dots; the bucket usually begins with c- (docs/keboola.md 2.1)
KEBOOLA_TABLE = re.compile(r"(in|out|sys)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def read_registry(path: Path, scripts: Path, *, may_be_empty: bool = False) -> Registry:
    """Read elt_jobs.json and every script that it names below `scripts`. may_be_empty: it need not hold a job.

    Raises JobConfigError: with line and column if the file is not JSON, otherwise with every mistake, one per line.
    """
    document = _document(path)
    reader = _RegistryReader(ScriptFolder(scripts))
    jobs = reader.jobs(document)
    if not jobs and not may_be_empty:
        reader.wrong(document.line, "holds no job: to add one, type `python main.py add`")
    if reader.mistakes:
        lines = sorted(dict.fromkeys(reader.mistakes), key=lambda mistake: mistake[0])
        raise JobConfigError("\n".join(f"{path.name}:{line}: {text}" for line, text in lines))
    ordered = in_order(jobs)
    used = {script.path for job in jobs.values() for script in job.scripts}
    used |= {job.load.extract.table for job in jobs.values() if job.load}
    unused = tuple(name for name in reader.folder.all if name not in used)
    return Registry(MappingProxyType({name: jobs[name] for name in ordered}), groups_of(ordered, jobs), unused)


def _document(path: Path) -> Node:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise JobConfigError(f"{path} does not exist: it is the list of jobs") from None
    except OSError as error:
        raise JobConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise JobConfigError(f"{path.name}: is not UTF-8 text: save it as UTF-8") from None
    try:
        document = read_json(text)
    except JsonSyntaxError as error:
        raise JobConfigError(f"{path.name}:{error.line}:{error.column}: not valid JSON: {error}") from None
    if not isinstance(document.value, dict):
        raise JobConfigError(f"{path.name}:{document.line}: must be an object of jobs, {{...}}, not {_kind(document)}")
    return document


class _RegistryReader:
    """Turns nodes into jobs and collects each mistake as (line, text). A part with a mistake is left out."""

    def __init__(self, folder: ScriptFolder) -> None:
        self.folder = folder
        self.mistakes: list[tuple[int, str]] = []
        self.job_name = ""
        #: what only one job may do, such as loading a table -> the job that does it, and its line
        self.taken: dict[str, tuple[str, int]] = {}

    def wrong(self, line: int, text: str) -> None:
        self.mistakes.append((line, f"job {self.job_name}: {text}" if self.job_name else text))

    def jobs(self, document: Node) -> dict[str, Job]:
        self.duplicates(document, "job")
        jobs: dict[str, Job] = {}
        nodes = {name: node for name, node in document.members.items() if not self.is_schema(name, node)}
        for name, node in nodes.items():
            self.job_name = _shown(name, quotes="")
            if not JOB_NAME.fullmatch(name) or len(name) > JOB_NAME_BYTES:
                self.wrong(node.line, f"a job's name must be [a-z][a-z0-9_]* and at most {JOB_NAME_BYTES} bytes")
            jobs[name] = self.job(name, node, nodes)
        self.job_name = ""
        for cycle in cycles(jobs):
            self.wrong(nodes[cycle[0]].line, f"depends_on has a cycle: {' -> '.join(cycle)}")
        return jobs

    def is_schema(self, name: str, node: Node) -> bool:
        """Whether this member is "$schema", which editors read, or a misspelling of it, which is reported."""
        if isinstance(node.value, dict) or not (name.startswith("$") or "schema" in name):
            return False
        if name != "$schema":
            self.wrong(node.line, f"unknown key {_shown(name)}; did you mean '$schema'?")
        elif not isinstance(node.value, str):
            self.wrong(node.line, f"$schema must be text, not {_kind(node)}")
        return True

    def job(self, name: str, node: Node, known: Collection[str]) -> Job:
        parts = self.object(node, "a job", JOB_KEYS)
        if parts is None:
            return Job(name)
        extract = self.extract(parts["extract"]) if "extract" in parts else None
        load = self.load(name, extract, parts["load"]) if "load" in parts else None
        if ("extract" in parts) != ("load" in parts):
            there, missing = ("extract", "load") if "extract" in parts else ("load", "extract")
            self.wrong(parts[there].line, f'"{there}" without "{missing}": they go together')
        transform = tuple(script for script, _ in self.scripts(parts.get("transform"), "transform", LAYERS))
        checks = tuple(Check(*found) for found in self.scripts(parts.get("checks"), "checks", ("checks",)))
        if not parts.keys() & {"extract", "load"} and not any(
            parts[key].value for key in ("transform", "checks") if key in parts
        ):
            self.wrong(node.line, "does nothing: it neither loads nor transforms nor checks")
        self.bronze_scripts(parts, load)
        return Job(name, self.depends_on(parts.get("depends_on"), known), load, transform, checks)

    def extract(self, node: Node) -> Extract | None:
        parts = self.object(node, "extract", tuple(SOURCES))
        if parts is None:
            return None
        if len(parts) > 1:
            self.wrong(node.line, f"extract names {len(parts)} sources, {' and '.join(parts)}: keep one")
            return None
        for source, value in parts.items():
            return self.query(value) if source == "duckdb" else self.keboola_table(value)
        examples = " or ".join(f'"{source}": "{example}"' for source, example in SOURCES.items())
        self.wrong(node.line, f"extract needs {examples}")
        return None

    def keboola_table(self, node: Node) -> Extract | None:
        if not isinstance(node.value, str) or not KEBOOLA_TABLE.fullmatch(node.value):
            self.wrong(node.line, f"keboola_table must be like in.c-bucket.table, not {_shown(node.value)}")
            return None
        return Extract("keboola_table", node.value)

    def query(self, node: Node) -> Extract | None:
        if not isinstance(node.value, str):
            self.wrong(node.line, f"duckdb must be a query's path, like extract/name.sql, not {_shown(node.value)}")
            return None
        try:
            script = self.folder.script(node.value, ("extract",))
        except ValueError as error:
            self.wrong(node.line, f"{_shown(node.value)} {error}")
            return None
        return Extract("duckdb", script.path, script.text)

    def load(self, job: str, extract: Extract | None, node: Node) -> Load | None:
        parts = self.object(node, "load", ("table", *LIMITS, "optional_columns"))
        if parts is None:
            return None
        limits: dict[str, Any] = {key: self.number(parts[key], key, *LIMITS[key]) for key in LIMITS if key in parts}
        table = parts.get("table")
        if table is None:
            self.wrong(node.line, 'load needs "table": "bronze.<name>"')
            return None
        relation = table.value if isinstance(table.value, str) else ""
        schema, _, name = relation.partition(".")
        if schema != "bronze" or not RELATION_NAME.fullmatch(name):
            self.wrong(table.line, f"load table must be bronze.<name>, [a-z_][a-z0-9_]*, not {_shown(table.value)}")
            return None
        self.only_once(table.line, f"{relation} is loaded")
        optional = self.columns(parts.get("optional_columns"))
        # without extract the registry is refused, so nobody reads the empty one
        return Load(job, extract or Extract("", ""), relation, **limits, optional_columns=optional)

    def columns(self, node: Node | None) -> tuple[str, ...]:
        """Names of bronze columns. Whether the table has them is checked later, with a database."""
        names: list[str] = []
        for item in self.items(node, "optional_columns"):
            if not isinstance(item.value, str) or not item.value:
                self.wrong(item.line, f"optional_columns must list bronze columns, not {_shown(item.value)}")
            elif item.value in names:
                self.wrong(item.line, f"optional_columns names {_shown(item.value)} twice")
            else:
                names.append(item.value)
        return tuple(names)

    def scripts(self, node: Node | None, key: str, allowed: Collection[str]) -> list[tuple[Script, str]]:
        """The scripts of a list, each with its on_failure ("error" for scripts that are not checks)."""
        found: list[tuple[Script, str]] = []
        seen: set[str] = set()
        for item in self.items(node, key):
            on_failure = "error"
            if key == "checks" and isinstance(item.value, dict):
                parts = self.object(item, "a check", ("script", "on_failure")) or {}
                on_failure = self.on_failure(parts.get("on_failure", Node("error", item.line)))
                item = parts.get("script", Node(None, item.line))
            path = item.value
            if not isinstance(path, str):
                example = f"{list(allowed)[-1]}/name.sql"
                self.wrong(item.line, f"{key} must list paths of scripts, such as {example}, not {_shown(path)}")
                continue
            try:
                found.append((self.folder.script(path, allowed), on_failure))
            except ValueError as error:
                self.wrong(item.line, f"{_shown(path)} {error}")
            if path in seen:
                self.wrong(item.line, f"{_shown(path)} is named twice")
            elif key == "transform":
                self.only_once(item.line, f"{_shown(path)} is run")
            seen.add(path)
        return found

    def on_failure(self, node: Node) -> str:
        if node.value not in ("error", "warn"):
            hint = did_you_mean(node.value, ("error", "warn")) if isinstance(node.value, str) else ""
            self.wrong(node.line, f'on_failure must be "error" or "warn", not {_shown(node.value)}{hint}')
        return str(node.value)

    def bronze_scripts(self, parts: dict[str, Node], load: Load | None) -> None:
        """Check that bronze/<table>.sql, which defines the landing table, is listed by the job that loads the table."""
        items = self.items(parts.get("transform"), "transform", quiet=True)
        paths = {item.value: item.line for item in items if isinstance(item.value, str)}
        bronze = {path: line for path, line in paths.items() if path.startswith("bronze/")}
        if load is None:
            if "load" not in parts and "extract" not in parts:
                for path, line in bronze.items():
                    self.wrong(line, f"{_shown(path)} defines a table that this job does not load")
            return
        expected = f"bronze/{load.name}.sql"
        for path, line in bronze.items():
            if path != expected:
                self.wrong(line, f"{_shown(path)}: the job loads {load.table}, so its bronze script is {expected}")
        if not bronze:
            self.wrong(parts["load"].line, f"{load.table} needs its definition: add {_shown(expected)} to transform")

    def depends_on(self, node: Node | None, known: Collection[str]) -> tuple[str, ...]:
        names: list[str] = []
        for item in self.items(node, "depends_on"):
            if not isinstance(item.value, str):
                self.wrong(item.line, f"depends_on must list names of jobs, not {_shown(item.value)}")
            elif item.value not in known:
                hint = self.folder.suggestions.did_you_mean(item.value, known)
                self.wrong(item.line, f"depends_on names an unknown job: {_shown(item.value)}{hint}")
            elif item.value in names:
                self.wrong(item.line, f"depends_on names {_shown(item.value)} twice")
            else:
                names.append(item.value)
        return tuple(names)

    def object(self, node: Node, subject: str, known: Collection[str]) -> dict[str, Node] | None:
        """The members that have known keys. If the node is not an object, records a mistake and returns None."""
        if not isinstance(node.value, dict):
            self.wrong(node.line, f"{subject} must be an object, {{...}}, not {_kind(node)}")
            return None
        self.duplicates(node, "key")
        for key, child in node.value.items():
            if key not in known:
                hint = did_you_mean(key, known) or f"; known: {', '.join(known)}"
                self.wrong(child.line, f"unknown key {_shown(key)} in {subject}{hint}")
        return {key: child for key, child in node.value.items() if key in known}

    def items(self, node: Node | None, key: str, quiet: bool = False) -> list[Node]:
        if node is None:
            return []
        if isinstance(node.value, list):
            return node.value
        if not quiet:
            self.wrong(node.line, f"{key} must be a list, [...], not {_kind(node)}")
        return []

    def number(self, node: Node, key: str, high: int | None, wanted: str) -> int | float:
        """A number from 0 to `high`. `wanted` says so in a message; it begins with "a whole number" for an integer."""
        value = node.value
        kinds = int if wanted.startswith("a whole") else (int, float)
        is_right_kind = isinstance(value, kinds) and not isinstance(value, bool)
        if is_right_kind and isinstance(value, (int, float)) and value >= 0 and (high is None or value <= high):
            return value
        self.wrong(node.line, f"{key} must be {wanted}, not {_shown(value)}")
        return 0

    def duplicates(self, node: Node, kind: str) -> None:
        for name, line in node.duplicates:
            self.wrong(line, f"{kind} {_shown(name)} appears twice (first on line {node.members[name].line})")

    def only_once(self, line: int, claim: str) -> None:
        if claim in self.taken:
            job, other = self.taken[claim]
            self.wrong(line, f"{claim} by job {job} already (line {other})")
        else:
            self.taken[claim] = (self.job_name, line)


def _shown(value: object, quotes: str = "'") -> str:
    """A value of the file for a message: shortened, on one line, with unprintable characters escaped."""
    if isinstance(value, str):
        text = value if value.isprintable() else value.encode("unicode_escape").decode()
        return f"{quotes}{text[:80]}{'...' if len(text) > 80 else ''}{quotes}"
    if isinstance(value, (dict, list)):
        return _kind(Node(value, 0))
    return json.dumps(value)


def _kind(node: Node) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(node.value), "a number")
