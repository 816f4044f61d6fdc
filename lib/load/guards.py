"""Guards: conditions that refuse a load until the registry is changed, or until the user accepts it once.

The user accepts a guard by its name: --accept JOB:GUARD. Each message says what to do.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lib.config.jobs import Load
from lib.config.spelling import did_you_mean
from lib.errors import LoadError, SettingsError
from lib.extract import SourceTable
from lib.load.contract import Match, landing_name, may_be_column
from lib.load.slice_limits import RowLimit

GUARDS = {
    "missing": "the source lacks a column that the bronze table has",
    "shrink": "the export is much smaller than the table",
    "empty": "the export has fewer rows than min_rows",
    "growth": "the export is much larger than the table",
    "age": "the source was last imported too long ago",
    "count": "the export's number of rows differs from the source's own count",
    "undone": "the source has not changed since a load that was taken back",
}
#: how many columns a message lists, and how many characters of each name
SHOWN = 10
SHOWN_CHARACTERS = 70


@dataclass(frozen=True)
class Accepted:
    """What the user accepts in this run, and the command for messages that suggest accepting more."""

    #: (job, guard)
    given: frozenset[tuple[str, str]] = frozenset()
    command: str = "python main.py run"

    @classmethod
    def parse(cls, texts: Iterable[str], shrinking: Iterable[str], command: str) -> Accepted:
        """From the JOB:GUARD values of --accept and the jobs of --accept-shrink (which means shrink and empty).

        Raises SettingsError for an unknown guard.
        """
        given = {(job, guard) for job in shrinking for guard in ("shrink", "empty")}
        for text in texts:
            job, colon, guard = text.rpartition(":")
            if not colon or not job or guard not in GUARDS:
                hint = did_you_mean(guard, GUARDS) if job and guard not in GUARDS else ""
                known = "".join(f"\n    {name:<8} {meaning}" for name, meaning in GUARDS.items())
                raise SettingsError(f"--accept needs JOB:GUARD, not {text!r}{hint}; guards:{known}")
            given.add((job, guard))
        return cls(frozenset(given), command)

    @property
    def jobs(self) -> tuple[str, ...]:
        return tuple(sorted({job for job, _ in self.given}))

    def check_jobs(self, loaded: Sequence[str]) -> None:
        """Raises SettingsError for a job that this run does not load."""
        if idle := [job for job in self.jobs if job not in loaded]:
            raise SettingsError(
                f"--accept names {idle[0]}, which this run does not load; it loads {', '.join(loaded) or 'nothing'}"
            )

    def has(self, job: str, guard: str) -> bool:
        return (job, guard) in self.given

    def of(self, job: str) -> tuple[str, ...]:
        """The guards that are accepted for this job."""
        return tuple(sorted(guard for name, guard in self.given if name == job))

    def once(self, job: str, guard: str, *others: str) -> str:
        """The command that accepts this guard, also for other jobs, in addition to what is accepted already."""
        given = sorted(self.given | {(name, guard) for name in (job, *others)})
        return f"{self.command} {' '.join(f'--accept {name}:{accepted}' for name, accepted in given)}"


def named(columns: Sequence[str]) -> str:
    """Column names for a message: the first SHOWN in quotes, and how many more there are."""
    more = f" and {len(columns) - SHOWN:,} more" if len(columns) > SHOWN else ""
    shown = [name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "..." for name in columns[:SHOWN]]
    return ", ".join(map(repr, shown)) + more


def nearest_column(missing: str, candidates: Sequence[str]) -> str:
    """The candidate that is most likely the missing column's new name, or an empty text.

    A rename often adds or removes a word, so a name that contains the other one counts as near.
    """
    by_name = {name.lower(): name for name in candidates}
    near = difflib.get_close_matches(missing, by_name, n=1, cutoff=0.5)
    near = near or [name for name in by_name if missing in name or (len(name) > 2 and name in missing)]
    return by_name[near[0]] if near else ""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def missing_columns(load: Load, source: SourceTable, found: Match) -> str:
    """The message about missing columns that are not optional, with the nearest names and what to do.

    Empty if no such column is missing. The caller adds the advice about --accept.
    """
    missing = [name for name in found.missing if name not in load.optional_columns]
    if not missing:
        return ""
    candidates = [column for column in found.unused if may_be_column(landing_name(column))]
    near: dict[str, str] = {}
    for name in missing[:SHOWN]:
        near[name] = nearest_column(name, [column for column in candidates if column not in near.values()])
    lacks = [f"no column {name!r}{f'; did you mean {new!r}?' if new else ''}" for name, new in near.items()]
    if len(missing) > SHOWN:
        lacks.append(f"and {len(missing) - SHOWN:,} more are missing")
    elif found.unused and not any(near.values()):
        lacks.append(f"but {named(found.unused)}")
    renamed = [
        # quoted, because a column may be called like an SQL keyword, such as order
        f"ALTER TABLE {load.table} RENAME COLUMN {_quoted(name)} TO {_quoted(landing_name(new))};"
        for name, new in near.items()
        if new and name not in found.not_yet_made
    ]
    if found.not_yet_made.issuperset(near):
        way_out = f"Only {load.script} names {named([*near])} so far: correct it there, and run again."
    elif renamed:
        way_out = (
            f"If it was renamed, rename it in {load.script}, in the scripts that read it,"
            f" and in psql: {' '.join(renamed)}"
        )
    else:
        way_out = f"Correct it in {load.script}, in the scripts that read it, and in {load.table}."
    optional = json.dumps([*near])
    return (
        f"{source.id} has {', '.join(lacks)}\n    The rows loaded before stay. {way_out}"
        f'\n    If it may be missing, add to "load" of job {load.job} in elt_jobs.json:'
        f' "optional_columns": {optional}'
    )


def check_columns(load: Load, source: SourceTable, found: Match, accepted: Accepted) -> None:
    """Guard `missing`: the source must have every column of the contract. Raises LoadError."""
    if not found.found:
        raise LoadError(f"{load.table} and {source.id} have no column in common: is it the right table?")
    if (text := missing_columns(load, source, found)) and not accepted.has(load.job, "missing"):
        raise LoadError(
            f"{text}\n    To load without it once (each number calculated from it is 0 or unknown):"
            f" {accepted.once(load.job, 'missing')}"
        )


def row_limit(load: Load, source: SourceTable, rows: int, accepted: Accepted) -> RowLimit | None:
    """How many rows may follow the `rows` that are staged: a source whose own count is far lower will not stop.

    None if the source has no count, or if guard `count` is accepted.
    """
    if source.rows is None or accepted.has(load.job, "count"):
        return None
    most = 2 * source.rows + 100_000
    return RowLimit(
        most - rows,
        f"the source counts {source.rows:,} rows, its export has more than {most:,}"
        "\n    The rows loaded before stay. Run again; if it happens again, tell Keboola's support."
        f"\n    If the export is right, accept it once: {accepted.once(load.job, 'count')}",
    )


def check_count(load: Load, source: SourceTable, rows: int, accepted: Accepted) -> None:
    """Guard `count`: the number of staged rows must equal the source's own count, if it has one. Raises LoadError."""
    if source.rows in (None, rows) or accepted.has(load.job, "count"):
        return
    raise LoadError(
        f"{source.id}: the source counts {source.rows:,} rows, its export held {rows:,}"
        "\n    The rows loaded before stay. Run again; if it happens again, tell Keboola's support."
        f"\n    If the export is right, accept it once: {accepted.once(load.job, 'count')}"
    )


def check_age(load: Load, source: SourceTable, now: datetime, accepted: Accepted) -> None:
    """Guard `age`: the source's last import must not be longer ago than max_age_hours. Raises LoadError."""
    if load.max_age_hours is None or accepted.has(load.job, "age"):
        return
    at = source.imported_at
    hours = 0.0 if at is None else (now - at).total_seconds() / 3600
    if at is not None and hours <= load.max_age_hours:
        return
    age = f"was last imported {hours:.0f} h ago, {at:%Y-%m-%d %H:%M} UTC" if at else "does not say when it was imported"
    raise LoadError(
        f"{source.id} {age}; max_age_hours is {load.max_age_hours:g}"
        "\n    The rows loaded before stay. Look in the source why nothing was imported."
        f"\n    To load it as it is, once: {accepted.once(load.job, 'age')}"
    )


@dataclass(frozen=True)
class UndoneLoad:
    """The loads of a job that were taken back: all since the last one that still counts."""

    #: the last run that an undo named
    run_id: int
    #: of the source
    versions: frozenset[str]
    #: of the source, in the last load that still counts; None: there is none
    version_before: str | None


def brought_back(
    group: Sequence[tuple[Load, SourceTable]], undone: Mapping[str, UndoneLoad], accepted: Accepted
) -> list[Load]:
    """The loads of a group that would bring back what was taken back (guard `undone`).

    Those whose source changed in what was taken back, and not since. If none did, so that only a script or the day had
    changed: all of them, if no source has changed since.
    """
    # whether a source changed that has no version, nobody can tell
    same = [
        (load, source)
        for load, source in group
        if load.job in undone and (source.version in undone[load.job].versions or not source.version_lasts)
    ]
    brought = [load for load, source in same if source.version != undone[load.job].version_before]
    if not brought and len(same) == len(group):
        brought = [load for load, _ in same]
    return [load for load in brought if not accepted.has(load.job, "undone")]


def refuse_undone(source: SourceTable, undone: UndoneLoad, brought: Sequence[Load], accepted: Accepted) -> None:
    """Raises LoadError for the source of one of the loads that `brought_back` returned."""
    since = "was not imported since" if source.version_lasts else "does not say whether it changed since"
    jobs = [load.job for load in brought]
    raise LoadError(
        f"the load of {source.id} by run {undone.run_id} was taken back, and the source {since}"
        "\n    The rows stay as they are, until it is imported anew."
        f"\n    To load it all the same: {accepted.once(jobs[0], 'undone', *jobs[1:])}"
    )


def check_size(load: Load, rows_before: int, rows: int, accepted: Accepted) -> str:
    """Guards `empty`, `shrink` and `growth`: the export must not be much smaller or larger than the table.

    `empty` applies below min_rows. Accepting it also accepts that the table shrinks.
    Returns a warning, or an empty text. Raises LoadError.
    """
    if rows < load.min_rows:
        if not accepted.has(load.job, "empty"):
            raise LoadError(
                f"{load.table}: the export has {rows:,} rows, min_rows is {load.min_rows:,}"
                f"\n    The {rows_before:,} rows loaded before stay. Is the table complete in the source?"
                f"\n    If so, accept it once: {accepted.once(load.job, 'empty')}"
            )
        return ""
    # rounded, because a float cannot hold a percentage such as 33.3 exactly
    shrunk = 100 * (rows_before - rows) > round(rows_before * load.max_shrink_percent, 6)
    if shrunk and not accepted.has(load.job, "shrink"):
        raise LoadError(
            f"{load.table}: the export has {rows:,} rows, {rows_before:,} were loaded before:"
            f" {100 - 100 * rows / rows_before:.0f} % fewer, max_shrink_percent is {load.max_shrink_percent:g}"
            "\n    The rows loaded before stay. If the new number is right, accept it once:"
            f" {accepted.once(load.job, 'shrink')}"
        )
    return _check_growth(load, rows_before, rows, accepted)


def _check_growth(load: Load, rows_before: int, rows: int, accepted: Accepted) -> str:
    limit = 100 if load.max_growth_percent is None else load.max_growth_percent
    grown = rows_before and 100 * (rows - rows_before) > round(rows_before * limit, 6)
    if not grown or accepted.has(load.job, "growth"):
        return ""
    text = (
        f"{load.table}: the export has {rows:,} rows, {rows_before:,} were loaded before:"
        f" {100 * rows / rows_before - 100:,.0f} % more"
    )
    if load.max_growth_percent is None:
        return f'{text}. It is loaded; to refuse such growth, add "max_growth_percent" to "load" in elt_jobs.json'
    raise LoadError(
        f"{text}, max_growth_percent is {limit:g}"
        "\n    The rows loaded before stay. Does the export hold rows twice?"
        f"\n    If the new number is right, accept it once: {accepted.once(load.job, 'growth')}"
    )
