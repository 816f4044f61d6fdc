"""Records in elt.definitions which bronze and gold scripts are applied in this database."""

from __future__ import annotations

from collections.abc import Sequence

from lib.config.jobs import Script
from lib.postgres.connection import Connection, execute, query

VIEW_MD5 = "(SELECT md5(pg_get_viewdef(oid)) FROM pg_class WHERE oid = to_regclass({}) AND relkind IN ('v', 'm'))"


def not_applied(connection: Connection, scripts: Sequence[Script]) -> list[Script]:
    """The scripts whose present text was not applied here, or whose table or view was dropped or replaced since."""
    if query(connection, "SELECT to_regclass('elt.definitions')") == [(None,)]:
        return list(scripts)
    applied = query(
        connection,
        f"""
        SELECT script
        FROM elt.definitions
        JOIN unnest(%s::text[], %s::text[], %s::text[]) AS wanted (script, text, relation) USING (script)
        WHERE script_md5 = md5(text)
          AND to_regclass(relation) IS NOT NULL
          AND view_md5 IS NOT DISTINCT FROM {VIEW_MD5.format("relation")}
        """,
        (
            [script.path for script in scripts],
            [script.text for script in scripts],
            [script.relation for script in scripts],
        ),
    )
    return [script for script in scripts if (script.path,) not in applied]


def record_definition(connection: Connection, run_id: int, script: Script) -> list[str]:
    """Record a script that has just been applied. Call it in the same savepoint.

    Returns a note if the script had not changed: then somebody else changed or dropped what it makes.
    """
    values = {"script": script.path, "text": script.text, "relation": script.relation, "run_id": run_id}
    unchanged = query(
        connection, "SELECT FROM elt.definitions WHERE script = %(script)s AND script_md5 = md5(%(text)s)", values
    )
    execute(
        connection,
        f"""
        INSERT INTO elt.definitions (script, script_md5, view_md5, run_id, applied_at)
        VALUES (%(script)s, md5(%(text)s), {VIEW_MD5.format("%(relation)s")}, %(run_id)s, clock_timestamp())
        ON CONFLICT (script) DO UPDATE
        SET script_md5 = excluded.script_md5, view_md5 = excluded.view_md5,
            run_id = excluded.run_id, applied_at = excluded.applied_at
        """,
        values,
    )
    if not unchanged:
        return []
    if script.layer == "bronze":  # a table that is there is left as it is
        return [f"{script.relation} was dropped since {script.path} made it, so it was made again."]
    return [
        f"{script.relation} was dropped or changed since {script.path} made it, so it was made again."
        " If somebody changed it by hand, write the change into the script."
    ]
