-- elt.publish_rows: make a keyed table's rows equal to those of another relation, touching only what differs.
--
--     SELECT * FROM elt.publish_rows('silver.products', 'products_now');
--     SELECT * FROM elt.publish_rows('silver.sales', 'sales_now', $$ sold_on = DATE '2026-01-01' $$);
--
-- Readers of the target never wait: they see the old rows until COMMIT and the new ones after it.
-- No search_path is set on these functions, so that triggers of the target find what they name.
-- Needs schema elt and PostgreSQL 15 or newer.


-- One row per column of the target or the source, with all that decides what becomes of it.
CREATE OR REPLACE FUNCTION elt._publish_columns(target regclass, source regclass)
RETURNS TABLE (
    name         name,
    place        integer,  -- in the target; columns that only the source has come last
    target_type  text,     -- NULL: the target lacks it
    source_type  text,     -- NULL: the source lacks it
    is_same_type boolean,  -- modifier and collation included
    is_published boolean,  -- both have it and the target can be given values
    is_kept      boolean,  -- only the target has it, and rows that are replaced must be given it back
    is_exact     boolean,  -- values that are equal are the same bytes
    is_compared  boolean,  -- rows that meet by key may differ in it
    is_identity  boolean,  -- GENERATED ALWAYS AS IDENTITY: INSERT may set it, UPDATE may not
    key_place    bigint,   -- in the primary key
    key_operator text      -- the primary key's own "equals": the type's schema need not be in search_path
)
LANGUAGE sql
STABLE
AS $function$
WITH

target_columns AS (
    SELECT * FROM pg_catalog.pg_attribute WHERE attrelid = target AND attnum > 0 AND NOT attisdropped
),

source_columns AS (
    SELECT * FROM pg_catalog.pg_attribute WHERE attrelid = source AND attnum > 0 AND NOT attisdropped
),

-- INCLUDE columns are no key.  A primary key has its types' default operators and its columns' own collations.
key_columns AS (
    SELECT
        indexed.attnum,
        indexed.place,
        format('OPERATOR(%I.%s)', pg_namespace.nspname, pg_operator.oprname) AS operator
    FROM pg_catalog.pg_index
    CROSS JOIN unnest(pg_index.indkey::int2[], pg_index.indclass::oid[])
        WITH ORDINALITY AS indexed (attnum, opclass, place)
    JOIN pg_catalog.pg_opclass ON pg_opclass.oid = indexed.opclass
    JOIN pg_catalog.pg_amop
        ON pg_amop.amopfamily = pg_opclass.opcfamily
        AND pg_amop.amoplefttype = pg_opclass.opcintype
        AND pg_amop.amoprighttype = pg_opclass.opcintype
        AND pg_amop.amopstrategy = 3  -- "equals" of a btree
    JOIN pg_catalog.pg_operator ON pg_operator.oid = pg_amop.amopopr
    JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pg_operator.oprnamespace
    WHERE pg_index.indrelid = target
        AND pg_index.indisprimary
        AND indexed.place <= pg_index.indnkeyatts
),

columns AS (
    SELECT
        attname,
        coalesce(t.attnum, 10000 + s.attnum) AS place,
        format_type(t.atttypid, t.atttypmod) AS target_type,
        format_type(s.atttypid, s.atttypmod) AS source_type,
        (t.atttypid, t.atttypmod, t.attcollation) = (s.atttypid, s.atttypmod, s.attcollation) AS is_same_type,
        t.attgenerated = '' AND s.attnum IS NOT NULL AS is_published,
        t.attgenerated = '' AND s.attnum IS NULL AS is_kept,
        t.atttypid IN (
            'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'date'::regtype,
            'timestamp'::regtype, 'timestamptz'::regtype, 'uuid'::regtype, 'bytea'::regtype
        ) OR (
            t.atttypid IN ('text'::regtype, 'varchar'::regtype) AND pg_collation.collisdeterministic
        ) AS is_exact,
        t.attidentity = 'a' AS is_identity,
        key_columns.place AS key_place,
        key_columns.operator AS key_operator
    FROM target_columns AS t
    FULL JOIN source_columns AS s USING (attname)
    LEFT JOIN key_columns ON key_columns.attnum = t.attnum
    LEFT JOIN pg_catalog.pg_collation ON pg_collation.oid = t.attcollation
)

SELECT
    attname,
    place,
    target_type,
    source_type,
    is_same_type,
    is_published,
    is_kept,
    is_exact,
    is_published AND NOT (is_exact AND key_place IS NOT NULL),
    is_identity,
    key_place,
    key_operator
FROM columns
$function$;

COMMENT ON FUNCTION elt._publish_columns(regclass, regclass) IS
    'Internal to elt.publish_rows: one row per column of the target or the source.';


-- Raise where a query has rows; the first three go into the message.
CREATE OR REPLACE FUNCTION elt._refuse_rows(query text, message text, error_code text)
RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    examples text;
BEGIN
    EXECUTE format('SELECT string_agg(left(found::text, 200), '', '') FROM (%s LIMIT 3) AS found', query)
    INTO examples;
    IF examples IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = error_code, MESSAGE = message, DETAIL = 'For example ' || examples;
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._refuse_rows(text, text, text) IS
    'Internal to elt.publish_rows: raises where a query has rows and shows the first three.';


-- NULL equals nothing, so it meets no row; a key that is there twice meets one row twice.
CREATE OR REPLACE FUNCTION elt._refuse_bad_keys(rows text, keys text, cannot text)
RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM elt._refuse_rows(
        format('SELECT * FROM %s WHERE num_nulls(%s) > 0', rows, keys),
        format('%s: the source has NULL in the primary key (%s)', cannot, keys),
        'not_null_violation'
    );
    PERFORM elt._refuse_rows(
        format('SELECT %1$s FROM %2$s GROUP BY %1$s HAVING count(*) > 1 ORDER BY %1$s', keys, rows),
        format('%s: the primary key (%s) is not unique in the source', cannot, keys),
        'unique_violation'
    );
END
$function$;

COMMENT ON FUNCTION elt._refuse_bad_keys(text, text, text) IS
    'Internal to elt.publish_rows: raises where keys are NULL or not unique.';


-- Run one INSERT, UPDATE or DELETE that must touch a known number of rows: a trigger or a rule that swallows some would
-- otherwise go unseen.
CREATE OR REPLACE FUNCTION elt._change_rows(expected bigint, target regclass, statement text)
RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    touched bigint;
BEGIN
    EXECUTE statement;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched <> expected THEN
        RAISE EXCEPTION '% on % touched % rows instead of %',
                split_part(statement, ' ', 1), target, touched, expected
            USING
                ERRCODE = 'triggered_data_change_violation',
                HINT = format('A BEFORE trigger or a rule holds rows back; psql lists them: \d %s', target);
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._change_rows(bigint, regclass, text) IS
    'Internal to elt.publish_rows: runs a statement that must touch a known number of rows.';


CREATE OR REPLACE FUNCTION elt.publish_rows(target regclass, source regclass, scope text DEFAULT 'true')
RETURNS TABLE (inserted bigint, updated bigint, deleted bigint, unchanged bigint)
LANGUAGE plpgsql
SET jit = off           -- compiling these statements costs more than it saves
SET row_security = off  -- rows that a policy hides would be neither updated nor deleted: an error instead
AS $function$
DECLARE
    cannot         constant text := format('cannot publish %s into %s', source, target);

    -- Temporary tables, named by the target: a trigger of the target may publish into another table meanwhile.
    copy           constant text := format('pg_temp._elt_copy_%s', target::oid);
    diff           constant text := format('pg_temp._elt_diff_%s', target::oid);
    kept           constant text := format('pg_temp._elt_kept_%s', target::oid);

    -- Pieces of the statements below, in which s is the source or the diff and t the target.
    columns        text;     -- a, b, c
    s_columns      text;     -- s.a, s.b, s.c
    diff_columns   text;     -- as s_columns, but the key of a row to delete is the target's
    keys           text;
    t_keys         text;
    same_key       text;     -- s.a OPERATOR(pg_catalog.=) t.a
    is_different   text;     -- s.b IS DISTINCT FROM t.b OR ROW(s.c)::record OPERATOR(pg_catalog.*<>) ROW(t.c)::record
    assignments    text;     -- b = s.b, c = s.c
    kept_columns   text;     -- , d
    t_kept_columns text;     -- , t.d
    casts          text;     -- c: text to integer

    new_rows       text := source::text;
    problem        text;
    remedy         text;
    must_replace   boolean;  -- changed rows cannot be updated in place
    is_first_fill  boolean;
    source_rows    bigint;
    target_rows    bigint;
BEGIN
    -- 1. Lock the target: no other writer comes between comparison and change, and as no lock is raised later there is
    --    no deadlock with a colleague's CREATE INDEX CONCURRENTLY.  Readers do not wait.

    IF target IS NULL OR source IS NULL OR scope IS NULL THEN
        RAISE EXCEPTION 'elt.publish_rows(%, %, %): NULL names nothing', target, source, scope
            USING ERRCODE = 'null_value_not_allowed';
    END IF;

    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = target AND relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION '%: % is not a table', cannot, target USING ERRCODE = 'wrong_object_type';
    END IF;

    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '%: a % transaction does not see what was committed since it began',
                cannot, upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
    END IF;

    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);

    -- 2. Columns.  One that the target lacks is a typo or news: ignored, it would go stale unseen.  Those that the
    --    source lacks (surrogate keys, notes) keep their values.

    -- A key WITHOUT OVERLAPS (18) compares by overlap.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_index WHERE indrelid = target AND indisprimary AND NOT indisexclusion
    ) THEN
        SELECT string_agg(quote_ident(pg_attribute.attname), ', ' ORDER BY pg_attribute.attnum)
        INTO problem
        FROM pg_catalog.pg_index
        JOIN pg_catalog.pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indexrelid = (
            SELECT min(indexrelid)
            FROM pg_catalog.pg_index
            WHERE indrelid = target AND indisunique AND indpred IS NULL AND indexprs IS NULL
        );
        RAISE EXCEPTION '%: the target has no primary key to tell rows apart by', cannot
            USING
                ERRCODE = 'invalid_table_definition',
                HINT = format(
                    'ALTER TABLE %s ADD PRIMARY KEY (%s);', target, coalesce(problem, '<columns that identify a row>')
                );
    END IF;

    SELECT
        string_agg(quote_ident(c.name), ', ' ORDER BY c.place),
        string_agg(format('SELECT elt.add_column(%L, %L, %L);', target, c.name, c.source_type), E'\n' ORDER BY c.place)
    INTO problem, remedy
    FROM elt._publish_columns(target, source) AS c
    WHERE c.target_type IS NULL;

    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%: the target has no column %', cannot, problem
            USING ERRCODE = 'undefined_column', HINT = remedy;
    END IF;

    SELECT string_agg(quote_ident(c.name), ', ' ORDER BY c.key_place)
    INTO problem
    FROM elt._publish_columns(target, source) AS c
    WHERE c.key_place IS NOT NULL AND NOT c.is_published;

    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%: the source has no column % of the primary key, or the target generates it', cannot, problem
            USING ERRCODE = 'undefined_column';
    END IF;

    SELECT
        string_agg(quote_ident(c.name), ', ' ORDER BY c.place) FILTER (WHERE c.is_published),
        string_agg(format('s.%I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.is_published),
        string_agg(
            CASE
                WHEN c.key_place IS NULL THEN format('s.%I', c.name)
                ELSE format('CASE WHEN s._elt_here IS NULL THEN t.%1$I ELSE s.%1$I END AS %1$I', c.name)
            END,
            ', ' ORDER BY c.place
        ) FILTER (WHERE c.is_published),
        string_agg(quote_ident(c.name), ', ' ORDER BY c.key_place) FILTER (WHERE c.key_place IS NOT NULL),
        string_agg(format('t.%I', c.name), ', ' ORDER BY c.key_place) FILTER (WHERE c.key_place IS NOT NULL),
        string_agg(format('s.%1$I %2$s t.%1$I', c.name, c.key_operator), ' AND ' ORDER BY c.key_place)
            FILTER (WHERE c.key_place IS NOT NULL),
        -- Where a type has no "=" (json, point) or one that is not exact (1.0 and 1.00, circles of equal area), images
        -- are compared: slower.  Without the casts PostgreSQL would compare column by column, by "=" again.
        concat_ws(
            ' OR ',
            'false',
            string_agg(format('s.%1$I IS DISTINCT FROM t.%1$I', c.name), ' OR ' ORDER BY c.place)
                FILTER (WHERE c.is_compared AND c.is_exact),
            'ROW(' || string_agg(format('s.%I', c.name), ', ' ORDER BY c.place)
                FILTER (WHERE c.is_compared AND NOT c.is_exact)
            || ')::record OPERATOR(pg_catalog.*<>) ROW(' || string_agg(format('t.%I', c.name), ', ' ORDER BY c.place)
                FILTER (WHERE c.is_compared AND NOT c.is_exact)
            || ')::record'
        ),
        string_agg(format('%1$I = s.%1$I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.is_compared),
        coalesce(string_agg(format(', %I', c.name), '' ORDER BY c.place) FILTER (WHERE c.is_kept), ''),
        coalesce(string_agg(format(', t.%I', c.name), '' ORDER BY c.place) FILTER (WHERE c.is_kept), ''),
        string_agg(format('%I: %s to %s', c.name, c.source_type, c.target_type), ', ' ORDER BY c.place)
            FILTER (WHERE c.is_published AND NOT c.is_same_type),
        coalesce(bool_or(c.is_identity) FILTER (WHERE c.is_compared), false)
    INTO
        columns,
        s_columns,
        diff_columns,
        keys,
        t_keys,
        same_key,
        is_different,
        assignments,
        kept_columns,
        t_kept_columns,
        casts,
        must_replace
    FROM elt._publish_columns(target, source) AS c;

    -- 3. The new rows.  Where types differ, a copy takes the target's by assignment: strict (text is no integer,
    --    varchar(3) does not cut), and a numeric that becomes numeric(10,2) does not differ again every day.  A copy
    --    also holds still what others may write between the statements below.

    IF casts IS NOT NULL
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = source AND relkind = 'r' AND relpersistence = 't')
    THEN
        new_rows := copy;
        EXECUTE format('CREATE TEMP TABLE %s AS SELECT %s FROM %s WITH NO DATA', copy, columns, target);
        BEGIN
            EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM %s AS s', copy, columns, s_columns, source);
        EXCEPTION WHEN data_exception OR datatype_mismatch OR integrity_constraint_violation THEN
            RAISE EXCEPTION '%: %', cannot, SQLERRM
                USING ERRCODE = SQLSTATE, DETAIL = coalesce('Types differ: ' || casts, '');
        END;
    END IF;

    EXECUTE format('SELECT count(*) FROM %s', new_rows) INTO source_rows;

    IF scope <> 'true' THEN
        PERFORM elt._refuse_rows(
            format(
                E'SELECT %s FROM (SELECT %s FROM %s) AS %I WHERE (%s\n) IS NOT TRUE',  -- \n ends a comment in scope
                keys, columns, new_rows, (SELECT relname FROM pg_catalog.pg_class WHERE oid = target), scope
            ),
            format('%s: the source has rows outside of %s; primary key (%s)', cannot, scope, keys),
            'check_violation'
        );
    END IF;

    -- 4. An empty target is filled in key order, so that its index grows at one end.

    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', target) INTO is_first_fill;

    IF is_first_fill AND (SELECT indimmediate FROM pg_catalog.pg_index WHERE indrelid = target AND indisprimary) THEN
        BEGIN
            PERFORM elt._change_rows(
                source_rows,
                target,
                format(
                    'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s ORDER BY %s',
                    target, columns, s_columns, new_rows, keys
                )
            );
        EXCEPTION WHEN unique_violation OR not_null_violation THEN
            PERFORM elt._refuse_bad_keys(new_rows, keys, cannot);
            RAISE;  -- some other constraint
        END;
        inserted := source_rows;
        updated := 0;
        deleted := 0;
    ELSE

    -- 5. The difference, in one pass.  The markers tell a row that is not there from one that is all NULL.

        EXECUTE format(
            $diff$
            CREATE TEMP TABLE %1$s AS
            SELECT
                CASE
                    WHEN t._elt_here IS NULL THEN 'i'
                    WHEN s._elt_here IS NULL THEN 'd'
                    ELSE 'u'
                END::"char" AS _elt_op,
                %2$s
            FROM (SELECT true AS _elt_here, %3$s FROM %4$s) AS s
            FULL JOIN (
                SELECT true AS _elt_here, %3$s FROM %5$s WHERE (%6$s
                )
            ) AS t ON %7$s
            WHERE s._elt_here IS NULL OR t._elt_here IS NULL OR %8$s
            $diff$,
            diff, diff_columns, columns, new_rows, target, scope, same_key, is_different
        );
        EXECUTE format('ANALYZE %s (_elt_op, %s)', diff, keys);
        EXECUTE format(
            $count$
            SELECT
                count(*) FILTER (WHERE _elt_op = 'i'),
                count(*) FILTER (WHERE _elt_op = 'u'),
                count(*) FILTER (WHERE _elt_op = 'd')
            FROM %s
            $count$,
            diff
        )
        INTO inserted, updated, deleted;
        EXECUTE format(E'SELECT count(*) FROM %s WHERE (%s\n)', target, scope) INTO target_rows;

        -- Only a key that is twice in the source can have met a target row twice.
        IF source_rows <> target_rows - deleted + inserted THEN
            PERFORM elt._refuse_bad_keys(new_rows, keys, cannot);
            RAISE EXCEPTION '%: primary key (%) is not unique in the target; do tables inherit from it?', cannot, keys;
        END IF;
        PERFORM elt._refuse_bad_keys(
            format('(SELECT %s FROM %s WHERE _elt_op = ''i'') AS s', columns, diff), keys, cannot
        );
        IF scope <> 'true' THEN
            PERFORM elt._refuse_rows(
                format(
                    'SELECT %s FROM %s AS s JOIN %s AS t ON %s WHERE s._elt_op = ''i''',
                    t_keys, diff, target, same_key
                ),
                format('%s: the target has rows of the same primary key (%s) outside of %s', cannot, keys, scope),
                'unique_violation'
            );
        END IF;

    -- 6. The changes, joined by key (a ctid is unique within one partition only).  DELETE, UPDATE, INSERT is the order
    --    in which a unique value can move from one key to another.

        IF deleted > 0 THEN
            SELECT string_agg(conrelid::regclass::text, ', ')
            INTO problem
            FROM pg_catalog.pg_constraint
            WHERE confrelid = target AND confdeltype IN ('c', 'n', 'd');  -- CASCADE, SET NULL, SET DEFAULT

            IF problem IS NOT NULL THEN
                RAISE WARNING '% rows leave %, and ON DELETE of its foreign key changes %', deleted, target, problem;
            END IF;
            PERFORM elt._change_rows(
                deleted,
                target,
                format('DELETE FROM %s AS t USING %s AS s WHERE s._elt_op = ''d'' AND %s', target, diff, same_key)
            );
        END IF;

        IF updated > 0 AND NOT must_replace THEN
            BEGIN
                PERFORM elt._change_rows(
                    updated,
                    target,
                    format(
                        'UPDATE %s AS t SET %s FROM %s AS s WHERE s._elt_op = ''u'' AND %s',
                        target, assignments, diff, same_key
                    )
                );
            EXCEPTION WHEN unique_violation OR exclusion_violation THEN
                -- Two rows swap a unique value: checked row by row, no order of updates allows that.
                IF EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE confrelid = target) THEN
                    RAISE;  -- replacing rows would fire the foreign key's ON DELETE
                END IF;
                must_replace := true;
            END;
        END IF;

        IF updated > 0 AND must_replace THEN
            EXECUTE format(
                'CREATE TEMP TABLE %s AS SELECT %s%s FROM %s AS t JOIN %s AS s ON %s WHERE s._elt_op = ''u''',
                kept, t_keys, t_kept_columns, target, diff, same_key
            );
            PERFORM elt._change_rows(
                updated,
                target,
                format('DELETE FROM %s AS t USING %s AS s WHERE s._elt_op = ''u'' AND %s', target, diff, same_key)
            );
            PERFORM elt._change_rows(
                updated,
                target,
                format(
                    'INSERT INTO %s (%s%s) OVERRIDING SYSTEM VALUE SELECT %s%s FROM %s AS s JOIN %s AS t ON %s',
                    target, columns, kept_columns, s_columns, t_kept_columns, diff, kept, same_key
                )
            );
            EXECUTE format('DROP TABLE %s', kept);
        END IF;

        IF inserted > 0 THEN
            PERFORM elt._change_rows(
                inserted,
                target,
                format(
                    'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s WHERE s._elt_op = ''i''',
                    target, columns, s_columns, diff
                )
            );
        END IF;

        EXECUTE format('DROP TABLE %s', diff);
    END IF;

    -- 7. Statistics that no longer fit make the next script, and this function tomorrow, slow.

    IF new_rows = copy THEN
        EXECUTE format('DROP TABLE %s', copy);
    END IF;
    IF is_first_fill OR (inserted + updated + deleted) * 10 > source_rows THEN
        EXECUTE format('ANALYZE %s', target);
    END IF;
    unchanged := source_rows - inserted - updated;
    RETURN NEXT;
END
$function$;

COMMENT ON FUNCTION elt.publish_rows(regclass, regclass, text) IS
    'Makes the rows of a table with a primary key (those that meet scope, a predicate) equal to the source''s, touches '
    'only those that differ, and returns how many were inserted, updated, deleted and left unchanged. Columns that the '
    'source lacks keep their values. Readers never wait.';
