"""Finds out whether tables are still as an earlier run left them, without reading their rows.

The state of a table is its oid, file and definition, and how many rows were ever inserted, updated and deleted in it,
as PostgreSQL counts them ("The Cumulative Statistics System"). A view's state is its query, and the states of what it
reads. Equal states mean equal rows: a write moves a counter, TRUNCATE and VACUUM FULL replace the file. A write that
was rolled back moves the counters too, and a reset or a crash sets them to 0: then the states differ, and the run does
again what it might have left out. VACUUM, ANALYZE and reading change nothing.

A session that is idle may hold back its counts for ten seconds, and longer in its next transaction. What it wrote just
before a run began is noticed by a later run. Therefore a run never replaces the state of a table that it did not look
at.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from psycopg2.extras import execute_values

from lib.config.jobs import Job
from lib.postgres.connection import Connection, execute, query
from lib.run.history import WRITING

#: Whether a row of a catalog was written by the transaction that is open here, or a part of it
OURS = """
    pg_xact_status(
        greatest(now.id - age({0}.xmin) + now.age, 3)::text::xid8
    ) = 'in progress'
"""

#: For each relation that is named: each table or view of which it is made, with its counters, and apart from them those
#: of the transaction that is open here. Foreign tables, and all tables while nothing is counted, look different each
#: time. PostgreSQL's own objects, with OIDs below 16384, are left out. It asks catalogs only, and not for example
#: pg_get_viewdef, so it waits for no lock; and what it says depends on no setting of the session, which a script may
#: have changed.
PARTS = f"""
    WITH RECURSIVE

    -- A name that must be quoted is not looked for: it counts as named.
    schemas AS (
        SELECT
            oid AS schema_oid,
            nspname,
            lower(nspname) = ANY (%(words)s) OR nspname = ANY (%(path)s) OR nspname ~ '[^[:alnum:]_$]' AS is_named
        FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'elt', 'elt_staging', 'elt_changes')
    ),

    readable AS (
        SELECT pg_class.*, pg_class.xmin, nspname, is_named
        FROM pg_class JOIN schemas ON schema_oid = relnamespace
        WHERE pg_class.oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relpersistence <> 't'
    ),

    named AS (
        SELECT oid, concat(nspname, '.', relname) AS relation
        FROM readable
        WHERE concat(nspname, '.', relname) = ANY (%(tables)s)
            OR is_named AND (lower(relname) = ANY (%(words)s) OR relname ~ '[^[:alnum:]_$]')
    ),

    parts (relation, oid) AS (
        SELECT relation, oid FROM named
        UNION
        SELECT parts.relation, below.oid
        FROM parts
        CROSS JOIN LATERAL (
            SELECT inhrelid FROM pg_inherits WHERE inhparent = parts.oid
            UNION ALL
            SELECT refobjid
            FROM pg_rewrite
            JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
            WHERE ev_class = parts.oid AND refclassid = 'pg_class'::regclass
        ) AS below (oid)
        JOIN readable ON readable.oid = below.oid
    ),

    now AS (
        SELECT
            pg_current_xact_id_if_assigned()::text::bigint AS id,
            age(pg_current_xact_id_if_assigned()::xid) AS age
    ),

    counting AS (
        SELECT concat_ws(
            ' ',
            pg_database.oid,
            extract(EPOCH FROM pg_stat_get_db_stat_reset_time(pg_database.oid)),
            extract(EPOCH FROM pg_stat_get_bgwriter_stat_reset_time()),
            CASE WHEN NOT current_setting('track_counts')::boolean THEN clock_timestamp() END
        ) AS since
        FROM pg_database
        WHERE datname = current_database()
    )

    SELECT
        relation,
        oid,
        concat_ws(
            ' ',
            oid,
            pg_relation_filenode(oid),
            CASE WHEN relkind = 'f' THEN clock_timestamp() END,
            (
                SELECT md5(string_agg(
                    concat_ws(' ', attnum, attname, atttypid, atttypmod, attcollation, attnotnull,
                        attidentity, attgenerated, atthasmissing),
                    ',' ORDER BY attnum
                ))
                FROM pg_attribute WHERE attrelid = parts.oid AND attnum > 0 AND NOT attisdropped
            ),
            (SELECT md5(string_agg(pg_attrdef::text, '' ORDER BY adnum)) FROM pg_attrdef WHERE adrelid = parts.oid),
            (SELECT md5(string_agg(pg_rewrite::text, '' ORDER BY oid)) FROM pg_rewrite WHERE ev_class = parts.oid),
            (
                SELECT md5(string_agg(pg_trigger::text, '' ORDER BY oid))
                FROM pg_trigger WHERE tgrelid = parts.oid AND NOT tgisinternal
            ),
            since
        ),
        {OURS.format("readable")}
            OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = parts.oid AND {OURS.format("pg_attribute")})
            OR EXISTS (SELECT FROM pg_attrdef WHERE adrelid = parts.oid AND {OURS.format("pg_attrdef")})
            OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = parts.oid AND {OURS.format("pg_rewrite")})
            OR EXISTS (SELECT FROM pg_trigger WHERE tgrelid = parts.oid AND {OURS.format("pg_trigger")}),
        has_code,
        ARRAY[
            pg_stat_get_tuples_inserted(oid), pg_stat_get_tuples_updated(oid), pg_stat_get_tuples_deleted(oid)
        ],
        ARRAY[
            pg_stat_get_xact_tuples_inserted(oid),
            pg_stat_get_xact_tuples_updated(oid),
            pg_stat_get_xact_tuples_deleted(oid)
        ]
    FROM parts
    JOIN readable USING (oid)
    CROSS JOIN counting
    CROSS JOIN now
    CROSS JOIN LATERAL (
        SELECT relkind IN ('r', 'p') AND (
            EXISTS (SELECT FROM pg_trigger WHERE tgrelid = parts.oid AND NOT tgisinternal)
            OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = parts.oid)
        ) AS has_code
    ) AS code

    UNION ALL
    SELECT concat(nspname, '.', proname, '(', proargtypes, ')'), routines.oid, definition, is_ours, false, none, none
    FROM (
        SELECT
            pg_proc.oid, pronamespace, proname, proargtypes,
            md5(concat(pg_proc::text, (SELECT pg_aggregate::text FROM pg_aggregate WHERE aggfnoid = pg_proc.oid))),
            {OURS.format("pg_proc")}
        FROM pg_proc CROSS JOIN now
        WHERE pg_proc.oid >= 16384
    ) AS routines (oid, pronamespace, proname, proargtypes, definition, is_ours)
    JOIN schemas ON schema_oid = pronamespace
    CROSS JOIN (VALUES ('{{0,0,0}}'::bigint[])) AS zero (none)
    WHERE is_named AND lower(proname) = ANY (%(words)s)

    UNION ALL
    SELECT concat('type ', nspname, '.', typname), types.oid, definition, is_ours, false, none, none
    FROM (
        SELECT
            pg_type.oid, typnamespace, typname,
            md5(concat(
                pg_type::text,
                (SELECT string_agg(pg_enum::text, '' ORDER BY oid) FROM pg_enum WHERE enumtypid = pg_type.oid),
                (
                    SELECT string_agg(pg_constraint::text, '' ORDER BY oid)
                    FROM pg_constraint WHERE contypid = pg_type.oid
                )
            )),
            {OURS.format("pg_type")}
        FROM pg_type CROSS JOIN now
        WHERE pg_type.oid >= 16384 AND typtype IN ('d', 'e')
    ) AS types (oid, typnamespace, typname, definition, is_ours)
    JOIN schemas ON schema_oid = typnamespace
    CROSS JOIN (VALUES ('{{0,0,0}}'::bigint[])) AS zero (none)
    WHERE is_named AND lower(typname) = ANY (%(words)s)

    ORDER BY relation, oid
"""


#: What named functions and views use in turn: bodies of functions, and names of what PostgreSQL knows to be used.
USED = """
    WITH

    elt AS (
        SELECT oid FROM pg_namespace WHERE nspname IN ('elt', 'elt_staging', 'elt_changes')
    ),

    named AS (
        SELECT 'pg_proc'::regclass AS classid, oid AS objid
        FROM pg_proc
        WHERE oid >= 16384 AND pronamespace NOT IN (SELECT oid FROM elt) AND lower(proname) = ANY (%(words)s)
        UNION ALL
        SELECT 'pg_rewrite'::regclass, pg_rewrite.oid
        FROM pg_class JOIN pg_rewrite ON ev_class = pg_class.oid
        WHERE pg_class.oid >= 16384 AND relnamespace NOT IN (SELECT oid FROM elt)
            AND lower(relname) = ANY (%(words)s)
    )

    SELECT prosrc FROM named JOIN pg_proc ON pg_proc.oid = objid AND classid = 'pg_proc'::regclass
    UNION
    SELECT concat_ws(' ', nspname, relname, proname)
    FROM named
    JOIN pg_depend USING (classid, objid)
    LEFT JOIN pg_class ON pg_class.oid = refobjid AND refclassid = 'pg_class'::regclass
    LEFT JOIN pg_proc ON pg_proc.oid = refobjid AND refclassid = 'pg_proc'::regclass
    JOIN pg_namespace ON pg_namespace.oid = coalesce(relnamespace, pronamespace)
    WHERE refobjid >= 16384
"""


@dataclass(frozen=True)
class Named:
    """Which relations are looked at: these tables, and what a text may name."""

    #: such as bronze.products
    tables: frozenset[str]
    #: in lower case; a relation or function is named if its name and its schema are among them
    words: frozenset[str] = frozenset()
    #: schemas that a text need not name
    path: tuple[str, ...] = ()

    @classmethod
    def by_jobs(cls, jobs: Collection[Job], path: str) -> Named:
        """What jobs load, and what their scripts may name, in any schema. path: the search_path of the scripts.

        Words of comments count as well: a table too many costs at most a run that changes nothing.
        """
        text = " ".join(script.text for job in jobs for script in job.scripts)
        return cls(
            frozenset(job.load.table for job in jobs if job.load),
            words_of(text),
            tuple(part.strip() for part in path.split(",")),
        )


def words_of(text: str) -> frozenset[str]:
    """All words of a text that may be a name, in lower case, also in strings and in dollar quotes."""
    low = text.lower()
    words = {*re.findall(r"[\w$]+", low), *re.findall(r"\\.(\w+)", low)}  # also behind E'..\n'
    words |= {part for word in words if "$" in word for part in word.split("$")}
    if "u&" in low:  # such as U&"\0074"
        words.update(re.findall(r"\w+", re.sub(r"\\([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), low)))
    # PostgreSQL cuts longer names
    return frozenset(words | {word.encode()[:63].decode(errors="ignore") for word in words if len(word.encode()) > 63})


@dataclass(frozen=True)
class Part:
    """A table or view of which a named relation is made."""

    oid: int
    #: oid, file, columns, definitions, and since when PostgreSQL counts
    looks: str
    #: whether the transaction that is open on this connection made it look like that
    is_ours: bool
    #: whether it has triggers or rules, which do more than a load does
    has_code: bool
    #: rows inserted, updated and deleted, by all transactions that have ended
    counted: tuple[int, int, int]
    #: the same by the transaction that is open on this connection
    own: tuple[int, int, int]


def read_parts(connection: Connection, named: Named) -> dict[str, list[Part]]:
    """The parts of each relation, by its name."""
    parts: dict[str, list[Part]] = {}
    words: set[str] = set()
    new = {*named.words}
    while new:
        words |= new
        used = query(connection, USED, {"words": sorted(new)})
        new = {word for (text,) in used for word in words_of(text)} - words
    values: dict[str, object] = {"tables": sorted(named.tables), "words": sorted(words), "path": list(named.path)}
    for relation, oid, looks, is_ours, has_code, counted, own in query(connection, PARTS, values):
        parts.setdefault(relation, []).append(Part(oid, looks, bool(is_ours), has_code, (*counted,), (*own,)))
    return parts


def state_of(parts: Iterable[Part], before: Mapping[int, tuple[int, int, int]] | None = None) -> str:
    """The state of a relation as text. before: counters by oid, instead of those that were read with the parts."""
    lines = []
    for part in parts:
        counted = part.counted if before is None else before.get(part.oid, (0, 0, 0))
        inserted, updated, deleted = (old + own for old, own in zip(counted, part.own, strict=True))
        lines.append(f"{part.looks} +{inserted} ~{updated} -{deleted}")
    return "\n".join(lines)


def read_states(connection: Connection, named: Named) -> dict[str, str]:
    """The state of each relation now."""
    return {relation: state_of(parts) for relation, parts in read_parts(connection, named).items()}


def stored_states(connection: Connection) -> dict[str, str]:
    """The state in which the last run that changed or read it left each relation."""
    return dict(query(connection, "SELECT relation, state FROM elt.table_states"))


class StateRecorder:
    """Records in the publish transaction in which states this transaction will leave the relations.

    That is what the counters were before it, plus what it counts itself. So what another session does meanwhile is not
    taken for ours, whether it commits before or after us.
    """

    def __init__(self, connection: Connection, named: Named) -> None:
        """Call it before the transaction reads or writes one of the tables."""
        self._connection, self._named = connection, named
        self._parts = read_parts(connection, named)
        self._before = {part.oid: part.counted for parts in self._parts.values() for part in parts}
        self._looked = {part.oid: part.looks for parts in self._parts.values() for part in parts}

    def record(self, run_id: int, loaded: Mapping[str, str], kept: Collection[str], *, whole: bool) -> None:
        """Call it last in the transaction.

        loaded: the job of each table that was loaded. kept: tables whose recorded state stays, because their rows were
        neither loaded nor looked at. whole: record every relation, not only the loaded ones, and forget others.
        """
        # what another session defined anew meanwhile is recorded as it was, so that the next run notices it
        parts = {
            relation: [
                part if part.is_ours else replace(part, looks=self._looked.get(part.oid, part.looks)) for part in its
            ]
            for relation, its in read_parts(self._connection, self._named).items()
        }
        rows = [
            (relation, run_id, loaded.get(relation), state_of(of_it, self._before))
            for relation, of_it in parts.items()
            if relation in loaded or whole and relation not in kept
        ]
        if whole:
            execute(
                self._connection,
                WRITING + "DELETE FROM elt.table_states WHERE relation <> ALL (%s)",
                ([*parts],),
            )
        with self._connection.cursor() as cursor:
            if rows:
                execute_values(
                    cursor,
                    WRITING + "INSERT INTO elt.table_states (relation, run_id, job, state) VALUES %s"
                    " ON CONFLICT (relation) DO UPDATE"
                    " SET run_id = excluded.run_id, job = excluded.job, state = excluded.state",
                    rows,
                )
        # by itself a session reports its counts up to ten seconds later; the next run may begin before that
        query(self._connection, "SELECT pg_stat_force_next_flush()")

    def moved(self) -> list[tuple[str, str, str]]:
        """Name, state before, and state after it was rolled back, of each relation of which this transaction wrote a
        part. Call it last in a transaction that is rolled back on purpose, then `move_states`."""
        oids = [*self._before]
        own = {
            oid: (inserted, updated, deleted)
            for oid, inserted, updated, deleted in query(
                self._connection,
                "SELECT oid, pg_stat_get_xact_tuples_inserted(oid), pg_stat_get_xact_tuples_updated(oid),"
                " pg_stat_get_xact_tuples_deleted(oid) FROM unnest(%s::oid[]) AS oid",
                (oids,),
            )
        }
        query(self._connection, "SELECT pg_stat_force_next_flush()")
        states = [
            (
                relation,
                state_of(replace(part, own=(0, 0, 0)) for part in parts),
                state_of(replace(part, own=own[part.oid]) for part in parts),
            )
            for relation, parts in self._parts.items()
        ]
        return [each for each in states if each[1] != each[2]]


def move_states(connection: Connection, moved: Collection[tuple[str, str, str]]) -> None:
    """Keep the recorded states true after a rollback: the counters moved, but the rows are what they were."""
    for relation, before, after in moved:
        execute(
            connection,
            WRITING + "UPDATE elt.table_states SET state = %s WHERE relation = %s AND state = %s",
            (after, relation, before),
        )
