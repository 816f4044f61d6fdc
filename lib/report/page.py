"""Collects what the page shows, fills its template, and writes the file.

Source of the order of the page: docs/operations.md, "The page".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import psycopg2

from lib.config.files import replace_file
from lib.config.jobs import Registry
from lib.elt_schema.strangers import Name
from lib.errors import DatabaseError, SettingsError
from lib.postgres.connection import Connection, Database, query
from lib.postgres.driver_errors import message_of
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
    SELECT run_id,
        concat(
            recent.status,
            CASE WHEN to_jsonb(runs) ->> 'is_unchanged' = 'true' THEN ', unchanged' END,
            ', took back run ' || (to_jsonb(runs) ->> 'undone_run_id')
        ) AS status,
        to_char(recent.started_at, 'YYYY-MM-DD HH24:MI') AS started, run_date AS day, seconds,
        jobs_published, jobs_not_published, rows_loaded, recent.error
    FROM elt.recent_runs AS recent JOIN elt.runs USING (run_id)
    ORDER BY run_id DESC
    LIMIT {RUNS}
"""
CHANGES = f"""
    SELECT script, format('run %s, %s', run_id, to_char(run_date, 'MM-DD')) AS run,
        concat_ws(' ',
            '+' || nullif(sum(inserted), 0), '~' || nullif(sum(updated), 0), '−' || nullif(sum(deleted), 0)) AS changed
    FROM elt.script_runs JOIN elt.runs USING (run_id)
    WHERE run_id IN (
        SELECT run_id FROM elt.script_runs JOIN elt.job_runs USING (run_id, job)
        WHERE job_runs.status = 'published'
        GROUP BY run_id ORDER BY run_id DESC LIMIT {CHANGED_RUNS}
    )
    GROUP BY script, run_id, run_date
    HAVING sum(inserted + updated + deleted) > 0
    ORDER BY run_id DESC, script
"""
#: The numbers in silver that the last run changed most: the first ones of each column, because columns have different
#: units. A number that was NULL has no difference.
LARGEST = """
    SELECT relation AS table, name AS column, rows, key, before, after FROM (
        SELECT relation, changed.name,
            (SELECT string_agg(each.value, ', ') FROM jsonb_each_text(changes.key) AS each) AS key,
            changed.value::numeric AS before,
            (changes.after -> changed.name)::numeric AS after,
            count(*) OVER (PARTITION BY relation, changed.name) AS rows,
            row_number() OVER (
                PARTITION BY relation, changed.name
                ORDER BY abs((changes.after -> changed.name)::numeric - changed.value::numeric) DESC, key
            ) AS place
        FROM elt.row_changes AS changes
        CROSS JOIN jsonb_each(changes.before) AS changed (name, value)
        WHERE run_id = (SELECT max(run_id) FROM elt.recent_runs WHERE jobs_published > 0)
            AND relation LIKE 'silver.%' AND operation = 'updated'
            AND jsonb_typeof(changed.value) = 'number' AND jsonb_typeof(changes.after -> changed.name) = 'number'
            AND changed.value <> changes.after -> changed.name
    ) AS numbers
    WHERE place <= 3
    ORDER BY relation, name, place
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
        AND runs.status = status.status
        AND runs.run_id > coalesce(
            (SELECT max(run_id) FROM elt.job_runs WHERE job = status.job AND status = 'published'), 0
        )
    WHERE status.status NOT IN ('published', 'undone')
    GROUP BY status.job, status.status, status.error
    ORDER BY status.status, status.job
"""
#: checks that warn in the latest run of their job, and since when
WARNINGS = """
    SELECT job, script, broken_by, (
        SELECT to_char(min(started_at), 'YYYY-MM-DD HH24:MI')
        FROM elt.script_runs AS earlier
        JOIN elt.runs USING (run_id)
        WHERE earlier.script = newest.script AND run_id > coalesce(
            (SELECT max(run_id) FROM elt.script_runs WHERE script = newest.script AND broken_by = 0), 0
        )
    )
    FROM elt.script_runs AS newest
    WHERE broken_by > 0 AND run_id = (
        SELECT max(run_id)
        FROM elt.script_runs JOIN elt.job_runs USING (run_id, job)
        WHERE job = newest.job AND status = 'published'
    )
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
            -- without ::text all three would be of type name, which cuts after 63 bytes
            SELECT ARRAY[
                attname::text, format_type(atttypid, atttypmod), coalesce(col_description(attrelid, attnum), '')
            ]
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

    @property
    def problems(self) -> list[str]:
        return [text for text in (self.answer.error, self.mistake) if text]


@dataclass(frozen=True)
class Health:
    """Whether the warehouse is sound."""

    #: good, warning or bad
    level: str
    sentence: str
    #: job, status, since when, error
    failures: Sequence[tuple[str | None, ...]] = ()
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
    #: numbers in silver that the last run changed most
    largest: Answer
    runs: Answer
    graph: Graph
    nodes: Mapping[str, Node]
    readers: Mapping[str, Sequence[str]]
    relations: Mapping[str, Relation]
    #: by path
    scripts: Mapping[str, str]
    #: by job
    published: Mapping[str, str] = field(default_factory=dict)
    #: questions without an answer or a chart, each with the reason
    unanswered: list[str] = field(default_factory=list)


def write_page(database: Database, registry: Registry, output: Path) -> list[str]:
    """Ask the database, and replace the file in one step. If anything fails, an old page stays.

    Returns what could not be answered. Raises EltError if the database cannot be asked or the file cannot be written.
    """
    page = collect(database, registry)
    text = _render(database.settings.root, page)
    try:
        if output.exists() and not output.is_file():  # a pipe or a device, which must not be replaced
            output.write_text(text, encoding="utf-8")
        else:
            replace_file(output.resolve(), text)  # a link stays one
    except OSError as error:
        raise SettingsError(f"the page cannot be written to {output}: {error.strerror}") from None
    return page.unanswered


def collect(database: Database, registry: Registry) -> Page:
    """Everything that the page shows, as of one moment."""
    questions = read_questions(database.settings.root)
    with reading(database, _named(registry, questions)) as connection:
        relations = {
            name: Relation(name, kind, comment, rows, key, tuple((*column,) for column in columns))
            for name, kind, comment, rows, key, columns in query(connection, RELATIONS)
        }
        nodes = read_lineage(registry, relations)
        is_new = query(connection, "SELECT to_regclass('elt.recent_runs')") == [(None,)]
        jobs, changes, runs = (
            (Answer(), Answer(), Answer())
            if is_new
            else (_jobs(connection, registry), _changes(connection), ask(connection, RUN_LIST, cut=2_000))
        )
        # an older version lacks the view until the next run
        keeps_rows = query(connection, "SELECT to_regclass('elt.row_changes')") != [(None,)]
        largest = ask(connection, LARGEST) if keeps_rows else Answer()
        answered = [_answered(connection, question) for question in questions]
        unanswered = [text for each in answered for text in each.problems]
        others = [answer.error for answer in (jobs, changes, largest, runs) if answer.error]
        health = (
            Health("warning", "nothing was loaded yet; type: python elt_daily_load.py")
            if is_new
            else _health(connection, registry, relations, [*others, *unanswered])
        )
        return Page(
            datetime.now(UTC),
            _place(connection),
            database.settings.time_zone,
            health,
            jobs,
            answered,
            changes,
            largest,
            runs,
            lay_out(nodes),
            nodes,
            read_by(nodes),
            relations,
            {script.path: script.text for job in registry.jobs.values() for script in job.transform},
            {row[0] or "": row[2] or "" for row in jobs.rows},
            unanswered,
        )


def _jobs(connection: Connection, registry: Registry) -> Answer:
    """The state of each job; one that left the registry is marked."""
    found = ask(connection, f"{JOBS} ORDER BY job", rows=1_000)
    rows = tuple((row[0], row[1] if row[0] in registry.jobs else "removed", *row[2:]) for row in found.rows)
    return replace(found, rows=rows)


def _place(connection: Connection) -> str:
    """The database for the page's header. A folder with a socket means nothing to its readers."""
    info = connection.info
    host = "" if not info.host or info.host.startswith("/") else f" on {info.host}"
    major, minor = divmod(info.server_version, 10000)
    return f"PostgreSQL {major}.{minor}, database {info.dbname}{host}"


def _named(registry: Registry, questions: Sequence[Question]) -> list[Name]:
    named = set(named_in(registry.jobs.values()))
    for question in questions:
        named |= references(question.sql).qualified
    return sorted(named)


def _answered(connection: Connection, question: Question) -> Answered:
    if not question.sql:
        return Answered(question, Answer(error=question.mistake))
    try:
        answer = ask(connection, question.sql, rows=DRAWN if question.chart else SHOWN)
    except psycopg2.Error as error:
        raise DatabaseError(f"{question.file}: it ended the connection to PostgreSQL: {message_of(error)}") from None
    if answer.error:
        return Answered(
            question, replace(answer, error=f"{question.file}:{question.line + answer.line}: {answer.error}")
        )
    if question.chart is None or question.chart_mistake or not answer.rows:
        return Answered(question, answer, mistake=question.chart_mistake)
    try:
        return Answered(question, answer, draw(question.chart, answer, question.title))
    except ValueError as error:
        return Answered(question, answer, mistake=f"{question.file}: {error}")


def _changes(connection: Connection) -> Answer:
    """What each script changed: a row per script, and a column per run."""
    found = ask(connection, CHANGES, rows=CHANGED_RUNS * 1000)
    runs = list(dict.fromkeys(row[1] for row in found.rows))
    cells = {(row[0], row[1]): row[2] for row in found.rows}
    scripts = sorted({row[0] or "" for row in found.rows})
    columns = (Column("script"), *(Column(run or "") for run in runs))
    rows = tuple((script, *(cells.get((script, run), "") for run in runs)) for script in scripts)
    return Answer(columns, rows, len(rows), found.error)


def _health(
    connection: Connection, registry: Registry, relations: Mapping[str, Relation], unanswered: Sequence[str]
) -> Health:
    """Good only if nothing is wrong and everything could be read. Jobs that left the registry do not count."""
    last = ask(
        connection, "SELECT run_id, status FROM elt.recent_runs WHERE status <> 'running' ORDER BY run_id DESC LIMIT 1"
    )
    sentence = "run {} {}".format(*last.rows[0]) if last.rows else "no run has ended yet"
    if "gold.load_status" in relations:
        found = ask(connection, "SELECT sentence FROM gold.load_status", cut=2_000)
        sentence = found.rows[0][0] or sentence if found.rows else sentence
    failed, warned, imported = (ask(connection, text, rows=1_000, cut=5_000) for text in (FAILURES, WARNINGS, STALE))
    failures = [row for row in failed.rows if row[0] in registry.jobs]
    warnings = [
        f"{script} warns of {int(rows or 0):,} row{'s' if rows != '1' else ''}, since {since}"
        for job, script, rows, since in warned.rows
        if job in registry.jobs
    ]
    for job, hours in imported.rows:
        load = registry.jobs[job].load if job and job in registry.jobs else None
        limit = (load and load.max_age_hours) or STALE_HOURS
        if load and float(hours or 0) > limit:
            warnings.append(
                f"the source of {job} was last imported {float(hours or 0):,.0f} h ago, {limit:g} h is the limit"
            )
    unread = [answer.error for answer in (last, failed, warned, imported) if answer.error]
    warnings += [f"part of this page could not be read: {error}" for error in dict.fromkeys([*unread, *unanswered])]
    if failures or not last.rows or last.rows[0][1] != "done":
        return Health("bad" if last.rows else "warning", sentence, failures, warnings)
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
