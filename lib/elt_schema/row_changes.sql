-- elt.row_changes: the rows that a run inserted, updated or deleted, for people; and how they are recorded.
--
--     SELECT operation, key, before, after FROM elt.row_changes WHERE run_id = 17 AND relation = 'silver.products';
--
-- elt.publish_rows, elt.publish_history and the load of bronze record what they change, in the same transaction.  They
-- do so only in a run: lib/postgres/transaction.py sets elt.run_id.  Under psql -f nothing is recorded.
-- elt.changes has the counts.  The rows are in a table of schema elt_changes, one per run and relation: its first
-- column is 'before' or 'after', the others are those of the relation.  An inserted row has no 'before', a deleted one
-- has no 'after'.  Nobody else may read these tables.  Each has a view (its name, and _rows) that looks on every use
-- whether the reader may read the relation itself.  In a view, current_user is the role that reads.  In a SECURITY
-- DEFINER function it is the owner, and session_user does not help: where autovacuum computes an index expression of
-- somebody, it is a superuser.
-- Needs schema elt and PostgreSQL 15 or newer.


-- Whether the role that reads may see old rows of a relation: it has the same name as then and is the same table, the
-- role may read all of it now, no policy hides rows, and it still has its key.
-- Its names are bound here.  With a search_path, a reader's own temporary table pg_class would be asked instead.
CREATE OR REPLACE FUNCTION elt._may_see_changes(relation_oid oid, relation text, key_columns text[])
RETURNS boolean
LANGUAGE sql
STABLE
RETURN EXISTS (
    SELECT
    FROM pg_catalog.pg_class
    INNER JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pg_class.relnamespace
    WHERE pg_class.oid = relation_oid
        AND pg_catalog.format('%I.%I', pg_namespace.nspname, pg_class.relname) = relation
        AND NOT pg_class.relrowsecurity
        AND pg_catalog.has_schema_privilege(pg_namespace.oid, 'USAGE')
        AND pg_catalog.has_table_privilege(pg_class.oid, 'SELECT')
        AND NOT EXISTS (
            SELECT
            FROM pg_catalog.unnest(key_columns) AS key_column (name)
            WHERE NOT EXISTS (
                SELECT
                FROM pg_catalog.pg_attribute
                WHERE pg_attribute.attrelid = relation_oid
                    AND pg_attribute.attname = key_column.name
                    AND NOT pg_attribute.attisdropped
            )
        )
);

COMMENT ON FUNCTION elt._may_see_changes(oid, text, text[]) IS
    'Internal to elt.row_changes: whether the current role may read a relation, which must still be the same table.';


-- The columns of a table as name, type, modifier and collation, in order.
CREATE OR REPLACE FUNCTION elt._columns_of(relation oid)
RETURNS text[]
LANGUAGE sql
STABLE
RETURN (
    SELECT pg_catalog.array_agg(pg_catalog.concat_ws(' ', attname, atttypid, atttypmod, attcollation) ORDER BY attnum)
    FROM pg_catalog.pg_attribute
    WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped
);

COMMENT ON FUNCTION elt._columns_of(oid) IS
    'Internal to elt.row_changes: the columns of a table, each with its type, modifier and collation.';


-- The name of a table with its schema, quoted where needed.
CREATE OR REPLACE FUNCTION elt._full_name(relation oid)
RETURNS text
LANGUAGE sql
STABLE
RETURN (
    SELECT pg_catalog.format('%I.%I', nspname, relname)
    FROM pg_catalog.pg_class
    INNER JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = relation
);

COMMENT ON FUNCTION elt._full_name(oid) IS 'Internal to elt.row_changes: the name of a table with its schema.';


-- Make the table that keeps changed rows of a relation in this run, and the view that shows them to readers.  Returns
-- the table's name.
CREATE OR REPLACE FUNCTION elt._make_kept_table(target regclass, relation text, key_columns text[])
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    kept    text := format('r%s_%s', current_setting('elt.run_id'), target::oid);
    side    text := '_elt_side';
    given   record;
BEGIN
    -- of an older schema elt that was dropped with its run numbers
    WHILE to_regclass(format('elt_changes.%I', kept)) IS NOT NULL
        OR to_regclass(format('elt_changes.%I', kept || '_rows')) IS NOT NULL
    LOOP
        kept := kept || '_';
    END LOOP;
    WHILE EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = target AND attname = side) LOOP
        side := side || '_';
    END LOOP;

    -- AS SELECT keeps types, modifiers and collations, but no constraint, default or generation
    EXECUTE format(
        'CREATE TABLE elt_changes.%I AS SELECT NULL::text AS %I, * FROM %s WITH NO DATA', kept, side, target
    );
    EXECUTE format(
        $view$
        CREATE VIEW elt_changes.%1$I WITH (security_barrier) AS
        SELECT
            kept.%2$I AS side,
            to_jsonb(kept.*) - ARRAY(
                -- the side, and columns that the relation has no longer
                SELECT attname::text FROM pg_catalog.pg_attribute
                WHERE attrelid = 'elt_changes.%3$I'::regclass AND attnum > 0
                EXCEPT
                SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = %4$L::oid AND NOT attisdropped
            ) AS content
        FROM elt_changes.%3$I AS kept
        WHERE elt._may_see_changes(%4$L::oid, %5$L, %6$L)
        $view$,
        kept || '_rows', side, kept, target::oid, relation, key_columns
    );

    -- default privileges may give rights on every new table and view
    FOR given IN
        SELECT DISTINCT
            pg_class.oid::regclass AS relation,
            CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS role
        FROM pg_catalog.pg_class
        CROSS JOIN aclexplode(relacl) AS acl
        WHERE relnamespace = to_regnamespace('elt_changes')
            AND relname IN (kept, kept || '_rows')
            AND acl.grantee <> relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', given.relation, given.role);
    END LOOP;
    EXECUTE format('GRANT SELECT ON elt_changes.%I TO PUBLIC', kept || '_rows');
    EXECUTE format('COMMENT ON TABLE elt_changes.%I IS %L', kept, format('Rows of %s that a run changed.', relation));
    RETURN kept;
END
$function$;

COMMENT ON FUNCTION elt._make_kept_table(regclass, text, text[]) IS
    'Internal to elt.row_changes: makes the table that keeps the changed rows of a relation in this run, and its view.';


-- Keep only counts of a relation in this run, and drop the rows that were kept up to now.
CREATE OR REPLACE FUNCTION elt._keep_only_counts(in_run bigint, of_relation text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    kept text := (SELECT kept_as FROM elt.changes WHERE run_id = in_run AND relation = of_relation);
BEGIN
    IF kept IS NOT NULL THEN
        EXECUTE format('DROP VIEW IF EXISTS elt_changes.%I', kept || '_rows');
        EXECUTE format('DROP TABLE elt_changes.%I', kept);
        UPDATE elt.changes SET kept_as = NULL WHERE run_id = in_run AND relation = of_relation;
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._keep_only_counts(bigint, text) IS
    'Internal to elt.row_changes: drops the rows that were kept of a relation in this run.';


-- Call it before rows of a table are changed.  It returns the table into which the rows before and after must be
-- written (elt._keep_rows); NULL: only counts are kept.  Then call elt._end_changes.
--     key_columns: the primary key; NULL: rows have none, as in bronze
--     changed: how many rows will be inserted, updated and deleted
--     is_first: the table is empty; if this run emptied it before, it is no first filling
--     is_kept: false keeps only the counts
CREATE OR REPLACE FUNCTION elt._begin_changes(
    target regclass, key_columns text[], changed bigint, is_first boolean, is_kept boolean DEFAULT true
)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    run     constant bigint := current_setting('elt.run_id');
    name    constant text := elt._full_name(target);
    again   constant text := format('pg_temp._elt_changes_%s', target::oid);
    found   elt.changes;
    so_far  bigint;
    present bigint;
BEGIN
    INSERT INTO elt.changes (run_id, relation) VALUES (run, name) ON CONFLICT (run_id, relation) DO NOTHING;
    SELECT * INTO found FROM elt.changes WHERE run_id = run AND relation = name;
    so_far := found.inserted + found.updated + found.deleted;
    is_first := is_first AND so_far = 0;
    IF is_first AND EXISTS (SELECT FROM elt.changes WHERE relation = name AND run_id < run) AND EXISTS (
        SELECT FROM pg_catalog.pg_class
        WHERE (oid = target OR oid IN (SELECT relid FROM pg_partition_tree(target)))
            AND age(xmin) <= age(pg_current_xact_id()::xid)
    ) THEN
        -- a script of this run made the table anew or truncated it, and nobody knows which rows it had
        is_first := false;
        is_kept := false;
    END IF;

    is_kept := is_kept AND NOT is_first AND current_setting('elt.keep_changes', true) = 'on'
        AND cardinality(elt._columns_of(target)) < 1600;
    IF found.kept_as IS NULL THEN
        is_kept := is_kept AND so_far = 0;  -- otherwise an earlier call of this run kept only its count
    ELSE
        -- the table was made anew or changed between two calls
        is_kept := is_kept AND found.relation_oid = target AND found.key_columns IS NOT DISTINCT FROM key_columns
            AND key_columns IS NOT NULL
            AND elt._columns_of(target) = (elt._columns_of(format('elt_changes.%I', found.kept_as)::regclass))[2:];
    END IF;
    IF is_kept AND so_far + changed > 50000 THEN
        EXECUTE format('SELECT count(*) FROM %s', target) INTO present;
        is_kept := present <= 100000 OR (so_far + changed) * 2 <= present;
    END IF;

    IF NOT is_kept THEN
        PERFORM elt._keep_only_counts(run, name);
        UPDATE elt.changes SET first_filling = first_filling OR is_first, relation_oid = target
        WHERE run_id = run AND relation = name;
        RETURN NULL;
    ELSIF found.kept_as IS NOT NULL THEN
        EXECUTE format('CREATE TEMP TABLE %s AS SELECT * FROM elt_changes.%I WITH NO DATA', again, found.kept_as);
        RETURN again;
    END IF;
    found.kept_as := elt._make_kept_table(target, name, key_columns);
    UPDATE elt.changes SET kept_as = found.kept_as, key_columns = _begin_changes.key_columns, relation_oid = target
    WHERE run_id = run AND relation = name;
    RETURN format('elt_changes.%I', found.kept_as);
END
$function$;

COMMENT ON FUNCTION elt._begin_changes(regclass, text[], bigint, boolean, boolean) IS
    'Internal to elt.row_changes: says into which table the changed rows of a relation must be written.';


-- Write rows into the table that elt._begin_changes returned; nothing if that is NULL.
--     side: before or after
--     columns: those that rows has, as in a SELECT; NULL: all, in the table's order
--     rows: a query
CREATE OR REPLACE FUNCTION elt._keep_rows(target regclass, into_table text, side text, columns text, rows text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    statement constant text := format(
        'INSERT INTO %s %s SELECT %L, kept.* FROM (%s) AS kept',
        into_table,
        (
            SELECT format('(%I, %s)', attname, columns)
            FROM pg_catalog.pg_attribute
            WHERE attrelid = to_regclass(into_table) AND attnum = 1 AND columns IS NOT NULL
        ),
        side, rows
    );
BEGIN
    IF to_regclass(into_table) IS NULL THEN
        RETURN;
    ELSIF (SELECT relnatts FROM pg_catalog.pg_class WHERE oid = to_regclass(into_table)) < 400 THEN
        EXECUTE statement;
    ELSE
        -- A row of so many columns can fill its page, and then the side does not fit.
        BEGIN
            EXECUTE statement;
        EXCEPTION WHEN program_limit_exceeded THEN
            PERFORM elt._keep_only_counts(current_setting('elt.run_id')::bigint, elt._full_name(target));
        END;
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._keep_rows(regclass, text, text, text, text) IS
    'Internal to elt.row_changes: keeps rows of a relation, as they were before or after a change.';


-- Call it after the rows were changed and written.  It counts them, and merges them with those of earlier calls.
CREATE OR REPLACE FUNCTION elt._end_changes(
    target regclass, into_table text, rows_inserted bigint, rows_updated bigint, rows_deleted bigint
)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    run   constant bigint := current_setting('elt.run_id');
    found elt.changes;
    kept  text;
    side  text;
    piece record;  -- parts of the statements below
BEGIN
    SELECT * INTO found FROM elt.changes WHERE run_id = run AND relation = elt._full_name(target);

    -- What these functions changed since the settings were last set.  What PostgreSQL counted beyond that was changed by
    -- other statements (lib/run/changes.py).
    PERFORM set_config(
        'elt.recorded_rows',
        coalesce(current_setting('elt.recorded_rows', true), '')
        || format('%s %s;', target::oid, rows_inserted + rows_updated + rows_deleted),
        true
    );

    IF found.kept_as IS NOT NULL AND found.key_columns IS NOT NULL AND (
        into_table LIKE 'pg_temp.%' OR (SELECT relhastriggers FROM pg_catalog.pg_class WHERE oid = target)
    ) THEN
        kept := format('elt_changes.%I', found.kept_as);
        side := (SELECT quote_ident(attname) FROM pg_catalog.pg_attribute WHERE attrelid = kept::regclass AND attnum = 1);
        SELECT
            -- a.k = b.k
            string_agg(format('a.%1$I %2$s b.%1$I', c.name, c.key_operator), ' AND ' ORDER BY c.key_place)
                FILTER (WHERE c.key_place > 0) AS same_key,
            string_agg(format('a.%I', c.name), ', ' ORDER BY c.place) AS a_columns,
            string_agg(format('b.%I', c.name), ', ' ORDER BY c.place) AS b_columns
        INTO piece
        FROM elt._publish_columns(target, target) AS c;

        -- first before, last after
        IF into_table LIKE 'pg_temp.%' THEN
            EXECUTE format(
                'INSERT INTO %1$s SELECT * FROM %2$s AS a'
                ' WHERE %3$s = ''before'' AND NOT EXISTS (SELECT FROM %1$s AS b WHERE %4$s)',
                kept, into_table, side, piece.same_key
            );
            EXECUTE format(
                'DELETE FROM %1$s AS a USING %2$s AS b WHERE a.%3$s = ''after'' AND %4$s',
                kept, into_table, side, piece.same_key
            );
            EXECUTE format('INSERT INTO %s SELECT * FROM %s WHERE %s = ''after''', kept, into_table, side);
        END IF;
        -- a row that is again what it was is no change
        EXECUTE format(
            'DELETE FROM %1$s AS a USING %1$s AS b WHERE a.%2$s <> b.%2$s AND %3$s'
            ' AND ROW(%4$s)::record OPERATOR(pg_catalog.*=) ROW(%5$s)::record',
            kept, side, piece.same_key, piece.a_columns, piece.b_columns
        );
        EXECUTE format(
            $count$
            SELECT
                count(*) FILTER (WHERE a.%2$s IS NULL),
                count(*) FILTER (WHERE a.%2$s IS NOT NULL AND b.%2$s IS NOT NULL),
                count(*) FILTER (WHERE b.%2$s IS NULL)
            FROM (SELECT * FROM %1$s WHERE %2$s = 'before') AS a
            FULL JOIN (SELECT * FROM %1$s WHERE %2$s = 'after') AS b ON %3$s
            $count$,
            kept, side, piece.same_key
        )
        INTO found.inserted, found.updated, found.deleted;
        UPDATE elt.changes SET inserted = found.inserted, updated = found.updated, deleted = found.deleted
        WHERE run_id = run AND relation = found.relation;
        IF found.inserted + found.updated + found.deleted = 0 THEN
            PERFORM elt._keep_only_counts(run, found.relation);
            DELETE FROM elt.changes WHERE run_id = run AND relation = found.relation AND by_other_statements = 0;
        END IF;
    ELSE
        UPDATE elt.changes
        SET inserted = inserted + rows_inserted, updated = updated + rows_updated, deleted = deleted + rows_deleted
        WHERE run_id = run AND relation = found.relation;
    END IF;
    IF into_table LIKE 'pg_temp.%' THEN
        EXECUTE format('DROP TABLE %s', into_table);
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._end_changes(regclass, text, bigint, bigint, bigint) IS
    'Internal to elt.row_changes: counts the changed rows of a relation in this run, and merges those of several calls.';


-- The number of a table's rows, and a sum of hashes of their values in these columns, named as elt._columns_of does.
-- It tells whether a table still holds what a run filled it with.  NULL: there is no such table.
CREATE OR REPLACE FUNCTION elt._filled_with(target oid, columns text[])
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    found text;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = target) THEN
        -- the text of a row, because not every type has a hash
        EXECUTE format(
            'SELECT concat(count(*), '' '', sum(hashtextextended(ROW(%s)::text COLLATE "C", 1))) FROM %s AS filled',
            (
                SELECT string_agg(format('filled.%I', regexp_replace(described, '( [^ ]+){3}$', '')), ', ' ORDER BY place)
                FROM unnest(columns) WITH ORDINALITY AS named (described, place)
            ),
            target::regclass
        ) INTO found;
    END IF;
    RETURN found;
END
$function$;

COMMENT ON FUNCTION elt._filled_with(oid, text[]) IS
    'Internal to undo: the number of a table''s rows, and a sum of hashes of these columns.';


-- The changed rows that a table of schema elt_changes keeps, as far as the current role may see them.
CREATE OR REPLACE FUNCTION elt._read_changes(kept_as text, key_columns text[])
RETURNS TABLE (operation text, key jsonb, before jsonb, after jsonb)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog
AS $function$
BEGIN
    IF NOT EXISTS (
        SELECT
        FROM pg_catalog.pg_class
        WHERE relname = kept_as || '_rows' AND relnamespace = to_regnamespace('elt_changes')
            AND has_schema_privilege(relnamespace, 'USAGE')
    ) THEN
        RETURN;  -- dropped since
    END IF;
    RETURN QUERY EXECUTE format(
        $query$
        WITH

        changed AS MATERIALIZED (
            SELECT side, content, (SELECT jsonb_object_agg(name, content -> name) FROM unnest($1) AS name) AS key
            FROM elt_changes.%I
        )

        SELECT
            CASE WHEN old.side IS NULL THEN 'inserted' WHEN new.side IS NULL THEN 'deleted' ELSE 'updated' END,
            coalesce(new.key, old.key),
            old.content,
            new.content
        FROM (SELECT * FROM changed WHERE side = 'before') AS old
        FULL JOIN (SELECT * FROM changed WHERE side = 'after') AS new ON new.key = old.key
        $query$,
        kept_as || '_rows'
    )
    USING key_columns;
END
$function$;

COMMENT ON FUNCTION elt._read_changes(text, text[]) IS
    'Internal to elt.row_changes: the changed rows that one table of schema elt_changes keeps.';


CREATE OR REPLACE VIEW elt.row_changes WITH (security_barrier) AS
SELECT changes.run_id, changes.relation, changed.operation, changed.key, changed.before, changed.after
FROM elt.changes AS changes
CROSS JOIN LATERAL elt._read_changes(changes.kept_as, changes.key_columns) AS changed
WHERE changes.kept_as IS NOT NULL;
COMMENT ON VIEW elt.row_changes IS
    'One row per row that a run changed, of the relations that you may read. Kept for as many runs as [run] keep_changes says.';
COMMENT ON COLUMN elt.row_changes.run_id IS 'Run, as in elt.runs.';
COMMENT ON COLUMN elt.row_changes.relation IS 'Table, with its schema.';
COMMENT ON COLUMN elt.row_changes.operation IS
    'inserted, updated or deleted. Bronze rows have no key, so a changed one is deleted and inserted.';
COMMENT ON COLUMN elt.row_changes.key IS 'Primary key of the row, as {"column": value}. NULL: a bronze row.';
COMMENT ON COLUMN elt.row_changes.before IS 'The row before the run. NULL: inserted.';
COMMENT ON COLUMN elt.row_changes.after IS 'The row after the run. NULL: deleted.';
