"""The objects that describe jobs. `registry` makes them from elt_jobs.json; every other module reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.config.spelling import Suggestions, did_you_mean
from lib.errors import SettingsError

LAYERS = ("bronze", "silver", "gold")
#: the other folders of scripts, called like the key of a job that names them, and what a script there is
NOUNS = {"checks": "check", "extract": "query of a source"}
RELATION_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Extract:
    """Where rows come from: the kind of source, which is its key in the registry, and the table's id there."""

    source: str
    table: str
    #: the query, if the source is one: `table` is then its path
    query: str = field(default="", repr=False)


@dataclass(frozen=True)
class Load:
    """`extract` and `load` of a job: the source of its rows, the bronze table, and the limits that an export must meet
    before it may replace the table's rows."""

    #: the job's name
    job: str
    extract: Extract
    #: schema and name, such as bronze.products
    table: str
    #: an export with fewer rows is refused
    min_rows: int = 1
    #: an export that is smaller than the present table by more than this is refused
    max_shrink_percent: float = 50
    #: an export that is larger than the present table by more than this is refused; None: reported from 100 on
    max_growth_percent: float | None = None
    #: a source table that was last imported longer ago than this many hours is refused; None: any is loaded
    max_age_hours: float | None = None
    #: bronze columns that the source may lack; they are then NULL
    optional_columns: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        """The script that defines the table, for messages."""
        return f"sql_scripts/bronze/{self.name}.sql"

    @property
    def schema(self) -> str:
        return self.table.partition(".")[0]

    @property
    def name(self) -> str:
        return self.table.partition(".")[2]


@dataclass(frozen=True)
class Script:
    """One file below sql_scripts/, as it was when the registry was read."""

    #: relative to sql_scripts/, such as silver/products.sql
    path: str
    #: bronze, silver, gold, checks or extract: the folder
    layer: str
    file: Path
    text: str

    @property
    def relation(self) -> str:
        """The table or view that a bronze or gold script defines: gold/x.sql makes gold.x."""
        return self.path.removesuffix(".sql").replace("/", ".")


@dataclass(frozen=True)
class Check:
    """SQL that must return no rows."""

    script: Script
    #: "error": a row holds the group back; "warn": it is only reported
    on_failure: str = "error"


@dataclass(frozen=True)
class Job:
    """One entry of the registry."""

    name: str
    depends_on: tuple[str, ...] = ()
    #: None: the job loads nothing, it only runs scripts
    load: Load | None = None
    transform: tuple[Script, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def scripts(self) -> tuple[Script, ...]:
        """Every script of the job, including its checks."""
        return (*self.transform, *(check.script for check in self.checks))

    def of_layer(self, layer: str) -> tuple[Script, ...]:
        """The job's scripts of one layer, in the order listed."""
        return tuple(script for script in self.transform if script.layer == layer)


@dataclass(frozen=True)
class Registry:
    """All jobs, in dependency order; jobs that do not depend on each other keep the order of the file."""

    jobs: Mapping[str, Job]
    #: groups of jobs joined by depends_on, which publish together; each in dependency order
    groups: tuple[tuple[str, ...], ...]
    #: files below sql_scripts/ that no job runs
    unused_scripts: tuple[str, ...] = ()

    def downstream(self, names: Iterable[str]) -> tuple[str, ...]:
        """The jobs that depend on any of these, directly or indirectly, in dependency order; without `names`."""
        given = set(names)
        reached = set(given)
        for job in self.jobs.values():
            if reached.intersection(job.depends_on):
                reached.add(job.name)
        return tuple(name for name in self.jobs if name in reached - given)

    def group_of(self, name: str) -> tuple[str, ...]:
        """The jobs that publish together with this one, itself included."""
        return next(group for group in self.groups if name in group)

    def check_names(self, names: Iterable[str]) -> None:
        """Raises SettingsError that lists each unknown job with the nearest known name."""
        unknown = [name for name in dict.fromkeys(names) if name not in self.jobs]
        if unknown:
            lines = [f"no job is named {name!r}{did_you_mean(name, self.jobs)}" for name in unknown]
            raise SettingsError("\n".join([*lines, f"jobs: {', '.join(self.jobs)}"]))


class ScriptFolder:
    """The scripts below sql_scripts/, listed once. Names are case-sensitive, also on a file system that is not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suggestions = Suggestions()
        self.all = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.sql") if file.is_file())
        self._known = {*self.all}

    def script(self, path: str, allowed: Collection[str]) -> Script:
        """The script with this path, which must be in an allowed layer. Raises ValueError that says what is wrong."""
        layer, slash, name = path.partition("/")
        if path.startswith(("/", "~")) or "\\" in path or ".." in path.split("/"):
            raise ValueError("leaves sql_scripts/: write <layer>/<name>.sql")
        if layer == self.folder.name:
            raise ValueError(f"is relative to {layer}/: write {name!r}")
        if not slash or "/" in name or not name.isprintable():
            raise ValueError("must be <layer>/<name>.sql, such as silver/products.sql")
        if layer not in (*LAYERS, *NOUNS):
            raise ValueError(f"is in no known layer{did_you_mean(layer, (*LAYERS, *NOUNS))}")
        if layer not in allowed:
            other = f"no {NOUNS[next(iter(allowed))]}" if layer in LAYERS else f"a {NOUNS[layer]}"
            key = "transform" if layer in LAYERS else layer
            raise ValueError(f'is {other}: name it under "{key}", or move the file')
        if not name.endswith(".sql"):
            raise ValueError("must end in .sql")
        if layer in ("bronze", "gold") and not RELATION_NAME.fullmatch(name.removesuffix(".sql")):
            raise ValueError(f"makes {layer}.<name>, so its name must be [a-z_][a-z0-9_]* and at most 63 bytes")
        if path not in self._known:
            raise ValueError(f"does not exist in {self.folder.name}/{self.suggestions.did_you_mean(path, self.all)}")
        return Script(path, layer, self.folder / path, self.text(path))

    def text(self, path: str) -> str:
        file = self.folder / path
        if not file.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError("is a link that leaves sql_scripts/")
        try:
            content = file.read_bytes()
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ValueError(f"is not UTF-8 text (line {line} of the script): save it as UTF-8") from None
        if "\0" in text:
            raise ValueError(f"holds a NUL byte (line {text.count(chr(10), 0, text.index(chr(0))) + 1} of the script)")
        if not text.strip():
            raise ValueError("is empty")
        return text
