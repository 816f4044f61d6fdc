"""Collects what the page shows, fills its template, and writes the file.

Source of the order of the page: docs/operations.md, "The page".
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from lib.config.jobs import Registry
from lib.config.settings import Settings
from lib.elt_schema.strangers import Name
from lib.errors import SettingsError
from lib.postgres.connection import Connection, query
from lib.report.answers import DRAWN, SHOWN, Answer, Column, ask, reading
from lib.report.charts import Drawing, draw
from lib.report.lineage import BOX_HEIGHT, BOX_WIDTH, Graph, Node, lay_out, read_by, read_lineage
from lib.report.questions import Question, read_questions
from lib.run.targets import named_in
from lib.transform.references import references

TEMPLATES = Path("report")
#: runs that the page lists, and runs whose changes it lists
RUNS, CHANGED_RUNS = 30, 7
#: hours after which a source counts as stale, unless max_age_hours of its job says otherwise
STALE_HOURS = 48.0

RUN_LIST = f"""
    SELECT run_id, status, to_char(started_at, 'YYYY-MM-DD HH24:MI') AS started, seconds, jobs_published,
        jobs_not_published, rows_loaded, error
    FROM elt.recent_runs LIMIT {RUNS}
"""
CHANGES = f"""
    SELECT script, run_id,
        concat_ws(' ',
            '+' || nullif(sum(inserted), 0), '~' || nullif(sum(updated), 0), '−' || nullif(sum(deleted), 0)) AS changed
    FROM elt.script_runs
    WHERE run_id IN (
        SELECT run_id FROM elt.script_runs GROUP BY run_id ORDER BY run_id DESC LIMIT {CHANGED_RUNS}
    )
    GROUP BY script, run_id
    HAVING sum(inserted + updated + deleted) > 0
    ORDER BY run_id DESC, script
"""
JOBS = """
    SELECT job, status, to_char(published_at, 'YYYY-MM-DD HH24:MI') AS published, rows_loaded,
        to_char(source_imported_at, 'YYYY-MM-DD HH24:MI') AS source_imported
    FROM elt.job_status
"""
#: each job that is not published since it last failed: since when, and why
FAILURES = """
    SELECT status.job, status.status, to_char(min(runs.recorded_at), 'YYYY-MM-DD HH24:MI'), status.error
    FROM elt.job_status AS status
    JOIN elt.job_runs AS runs
        ON runs.job = status.job
        AND runs.status <> 'published'
        AND runs.run_id > coalesce(
            (SELECT max(run_id) FROM elt.job_runs WHERE job = status.job AND status = 'published'), 0
        )
    WHERE status.status <> 'published'
    GROUP BY status.job, status.status, status.error
    ORDER BY status.status, status.job
"""
#: checks that warn in the latest run of their job, and since when
WARNINGS = """
    SELECT script, broken_by, (
        SELECT to_char(min(started_at), 'YYYY-MM-DD HH24:MI')
        FROM elt.script_runs AS earlier
        JOIN elt.runs USING (run_id)
        WHERE earlier.script = newest.script AND run_id > coalesce(
            (SELECT max(run_id) FROM elt.script_runs WHERE script = newest.script AND broken_by = 0), 0
        )
    )
    FROM elt.script_runs AS newest
    WHERE broken_by > 0 AND run_id = (SELECT max(run_id) FROM elt.script_runs WHERE job = newest.job)
    ORDER BY script
"""
STALE = """
    SELECT job, extract(EPOCH FROM now() - source_imported_at) / 3600
    FROM elt.job_status
    WHERE source_imported_at IS NOT NULL
    ORDER BY job
"""
RELATIONS = """
    SELECT
        format('%s.%s', nspname, relname),
        CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'table' END,
        coalesce(obj_description(pg_class.oid, 'pg_class'), ''),
        CASE WHEN relkind IN ('r', 'p', 'm') AND reltuples >= 0 THEN reltuples::bigint END,
        coalesce(
            (
                SELECT string_agg(attname, ', ' ORDER BY array_position(indkey::int2[], attnum))
                FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
                WHERE indrelid = pg_class.oid AND indisprimary
            ),
            ''
        ),
        ARRAY(
            SELECT ARRAY[attname, format_type(atttypid, atttypmod), coalesce(col_description(attrelid, attnum), '')]
            FROM pg_attribute
            WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
            ORDER BY attnum
        )
    FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname IN ('bronze', 'silver', 'gold') AND relkind IN ('r', 'p', 'v', 'm', 'f')
    ORDER BY 1
"""


@dataclass(frozen=True)
class Relation:
    """A table or view in the database."""

    name: str
    kind: str
    comment: str
    #: an estimate; None: not known, or a view
    rows: int | None
    #: columns of the primary key; empty: none
    key: str
    #: name, type and comment of each column
    columns: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Answered:
    """A question with its answer and drawing."""

    question: Question
    answer: Answer
    drawing: Drawing | None = None
    #: why there is no drawing
    mistake: str = ""


@dataclass(frozen=True)
class Health:
    """Whether the warehouse is sound."""

    #: good, warning or bad
    level: str
    sentence: str
    #: job, status, since when, error
    failures: Sequence[tuple[str, str, str, str]] = ()
    warnings: Sequence[str] = ()


@dataclass
class Page:
    """Everything that the template shows."""

    made_at: datetime
    database: str
    time_zone: str
    health: Health
    jobs: Answer
    questions: Sequence[Answered]
    changes: Answer
    runs: Answer
    graph: Graph
    nodes: Mapping[str, Node]
    readers: Mapping[str, Sequence[str]]
    relations: Mapping[str, Relation]
    #: by path
    scripts: Mapping[str, str]
    #: by job
    published: Mapping[str, str] = field(default_factory=dict)


def write_page(settings: Settings, registry: Registry, output: Path) -> None:
    """Ask the database, and replace the file in one step. If anything fails, an old page stays.

    Raises EltError if the database cannot be asked or the file cannot be written.
    """
    text = _render(settings.root, collect(settings, registry))
    try:
        if output.exists() and not output.is_file():  # a pipe or a device, which must not be replaced
            output.write_text(text, encoding="utf-8")
            return
        output = output.resolve()  # a link stays one
        handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(temporary, 0o644)
            os.replace(temporary, output)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise SettingsError(f"the page cannot be written to {output}: {error.strerror}") from None


def collect(settings: Settings, registry: Registry) -> Page:
    """Everything that the page shows, as of one moment."""
    questions = read_questions(settings.root)
    with reading(settings, _named(registry, questions)) as connection:
        relations = {
            name: Relation(name, kind, comment, rows, key, tuple((*column,) for column in columns))
            for name, kind, comment, rows, key, columns in query(connection, RELATIONS)
        }
        nodes = read_lineage(registry, relations)
        jobs = ask(connection, f"{JOBS} ORDER BY job", rows=1000)
        published = dict(zip(jobs.values("job"), jobs.values("published"), strict=True)) if jobs.columns else {}
        return Page(
            datetime.now(UTC),
            _place(connection),
            settings.time_zone,
            _health(connection, registry, relations),
            jobs,
            [_answered(connection, question) for question in questions],
            _changes(connection),
            ask(connection, RUN_LIST, cut=2_000),
            lay_out(nodes),
            nodes,
            read_by(nodes),
            relations,
            {script.path: script.text for job in registry.jobs.values() for script in job.transform},
            {job or "": at or "" for job, at in published.items()},
        )


def _place(connection: Connection) -> str:
    """The database for the page's header. A folder with a socket means nothing to its readers."""
    info = connection.info
    host = "" if not info.host or info.host.startswith("/") else f" on {info.host}"
    major, minor = divmod(info.server_version, 10000)
    return f"PostgreSQL {major}.{minor}, database {info.dbname}{host}"


def _named(registry: Registry, questions: Sequence[Question]) -> list[Name]:
    named = set(named_in(registry.jobs.values()))
    for question in questions:
        named |= references(question.sql).all
    return sorted(named)


def _answered(connection: Connection, question: Question) -> Answered:
    if question.mistake and not question.sql:
        return Answered(question, Answer(error=question.mistake))
    if question.mistake and question.chart is None and "chart" not in question.mistake:
        return Answered(question, Answer(error=question.mistake))
    answer = ask(connection, question.sql, rows=DRAWN if question.chart else SHOWN)
    if question.chart is None or answer.error:
        return Answered(question, answer, mistake=question.mistake)
    try:
        return Answered(question, answer, draw(question.chart, answer, question.title))
    except ValueError as error:
        return Answered(question, answer, mistake=str(error))


def _changes(connection: Connection) -> Answer:
    """What each script changed: a row per script, and a column per run."""
    found = ask(connection, CHANGES, rows=CHANGED_RUNS * 1000)
    runs = list(dict.fromkeys(row[1] for row in found.rows))
    cells = {(row[0], row[1]): row[2] for row in found.rows}
    scripts = sorted({row[0] or "" for row in found.rows})
    columns = (Column("script"), *(Column(f"run {run}") for run in runs))
    rows = tuple((script, *(cells.get((script, run), "") for run in runs)) for script in scripts)
    return Answer(columns, rows, len(rows), found.error)


def _health(connection: Connection, registry: Registry, relations: Mapping[str, Relation]) -> Health:
    if query(connection, "SELECT to_regclass('elt.recent_runs')") == [(None,)]:
        return Health("warning", "nothing was loaded yet")
    last = query(connection, "SELECT run_id, status, error FROM elt.recent_runs WHERE status <> 'running' LIMIT 1")
    sentence = f"run {last[0][0]} {last[0][1]}" if last else "no run has ended yet"
    if "gold.load_status" in relations:
        found = ask(connection, "SELECT sentence FROM gold.load_status", cut=2_000)
        sentence = found.rows[0][0] or sentence if found.rows else sentence
    failures = query(connection, FAILURES)
    warnings = [
        f"{script} warns of {rows:,} row{'s' if rows > 1 else ''}, since {since}"
        for script, rows, since in query(connection, WARNINGS)
    ]
    for job, hours in query(connection, STALE):
        load = registry.jobs[job].load if job in registry.jobs else None
        limit = (load and load.max_age_hours) or STALE_HOURS
        if load and hours > limit:
            warnings.append(f"the source of {job} was last imported {hours:,.0f} h ago, {limit:g} h is the limit")
    if failures or not last or last[0][1] != "done":
        return Health("bad" if last else "warning", sentence, failures, warnings)
    return Health("warning" if warnings else "good", sentence, failures, warnings)


def _render(root: Path, page: Page) -> str:
    folder = root / TEMPLATES
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        return environment.get_template("page.html.j2").render(
            page=page, style=style, script=script, shown=SHOWN, box_width=BOX_WIDTH, box_height=BOX_HEIGHT
        )
    except (OSError, jinja2.TemplateError) as error:
        raise SettingsError(f"the page's template in {folder} cannot be used: {error}") from None
