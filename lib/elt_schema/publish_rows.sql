-- elt.publish_rows: makes the rows of a table equal to those of another relation, and touches only rows that differ.
--
--     SELECT * FROM elt.publish_rows('silver.products', 'products_now');
--     SELECT * FROM elt.publish_rows('silver.sales', 'sales_now', $$ sold_on = DATE '2026-01-01' $$);
--
-- Readers of the target never wait: they see the old rows until COMMIT and the new ones after it.
-- search_path is pg_catalog, so that it calls only PostgreSQL's own functions, whatever the caller's path is.  Triggers
-- of the target see this path, too, so they must name schemas.  A trigger with a stranger's function is refused,
-- because the function would run with the rights of the caller.
-- Needs schema elt and PostgreSQL 15 or newer.


-- Dropped first: CREATE OR REPLACE cannot change the columns that an earlier version returned.
DROP FUNCTION IF EXISTS elt._publish_columns(regclass, regclass);

-- One row per column of the target or the source, with all that publish_rows needs to know of it.
CREATE OR REPLACE FUNCTION elt._publish_columns(target regclass, source regclass)
RETURNS TABLE (
    name         name,
    place        integer,  -- position in the target; columns that only the source has come last
    target_type  text,     -- NULL: the target lacks it
    source_type  text,     -- NULL: the source lacks it
    is_same_type boolean,  -- same modifier and collation, too
    is_published boolean,  -- both have it, and the target does not generate it
    is_exact     boolean,  -- equal values have the same bytes
    is_compared  boolean,  -- rows with the same key can differ in it
    is_identity  boolean,  -- GENERATED ALWAYS AS IDENTITY: UPDATE may not set it
    key_place    bigint,   -- position in the primary key
    key_operator text      -- "equals" of the primary key, with schema: the type's schema may not be in search_path
)
LANGUAGE sql
STABLE
SET plan_cache_mode = force_generic_plan  -- for small tables, planning would take longer than all the rest
SET join_collapse_limit = 1               -- join in the order written below
SET search_path = pg_catalog
AS $function$
WITH

target_columns AS (
    SELECT * FROM pg_catalog.pg_attribute WHERE attrelid = target AND attnum > 0 AND NOT attisdropped
),

source_columns AS (
    SELECT * FROM pg_catalog.pg_attribute WHERE attrelid = source AND attnum > 0 AND NOT attisdropped
),

-- INCLUDE columns have no operator class, so they get no row.  A primary key has the collations of its columns.
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
    WHERE pg_index.indrelid = target AND pg_index.indisprimary
),

columns AS (
    SELECT
        attname,
        coalesce(t.attnum, 10000 + s.attnum) AS place,
        format_type(t.atttypid, t.atttypmod) AS target_type,
        format_type(s.atttypid, s.atttypmod) AS source_type,
        (t.atttypid, t.atttypmod, t.attcollation) = (s.atttypid, s.atttypmod, s.attcollation) AS is_same_type,
        t.attgenerated = '' AND s.attnum IS NOT NULL AS is_published,
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
    is_exact,
    is_published AND NOT (is_exact AND key_place IS NOT NULL),
    is_identity,
    key_place,
    key_operator
FROM columns
$function$;

COMMENT ON FUNCTION elt._publish_columns(regclass, regclass) IS
    'Internal to elt.publish_rows: one row per column of the target or the source.';


-- Raise an error if a query returns rows; the message shows the first three.
CREATE OR REPLACE FUNCTION elt._refuse_rows(query text, message text, error_code text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
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
    'Internal to elt.publish_rows: raises an error if a query returns rows, and shows the first three.';


-- A NULL in the key matches no row, and a duplicate key matches a row twice, so both are refused.
CREATE OR REPLACE FUNCTION elt._refuse_bad_keys(rows text, keys text, cannot text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
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
    'Internal to elt.publish_rows: raises an error if keys are NULL or not unique.';


-- Run one INSERT, UPDATE or DELETE and check how many rows it touched.  Otherwise nobody would notice that a trigger or
-- a rule skipped some.
CREATE OR REPLACE FUNCTION elt._change_rows(expected bigint, target regclass, statement text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
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
                HINT = format('A BEFORE trigger or a rule skips rows; psql lists triggers and rules: \d %s', target);
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._change_rows(bigint, regclass, text) IS
    'Internal to elt.publish_rows: runs a statement, and raises an error if it touches another number of rows than expected.';


-- Name the column and the beginning of its longest value if a row does not fit an index.  PostgreSQL names neither.
CREATE OR REPLACE FUNCTION elt._refuse_long_values(target regclass, index_name text, rows text, cannot text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    lengths text;
    longest record;
BEGIN
    SELECT string_agg(
        format(
            'SELECT %1$L AS name, max(length(s.%1$I::text)) AS size,'
            ' (array_agg(left(s.%1$I::text, 60) ORDER BY length(s.%1$I::text) DESC NULLS LAST))[1] AS beginning'
            ' FROM %2$s AS s',
            attname, rows
        ),
        ' UNION ALL '
    )
    INTO lengths
    FROM pg_catalog.pg_attribute
    WHERE attrelid = target AND attnum > 0 AND NOT attisdropped AND EXISTS (
        -- for a value of more than 8,191 bytes PostgreSQL does not name the index; an expression names no column
        SELECT
        FROM pg_catalog.pg_index
        JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = target AND (relname = index_name OR index_name = '') AND (attnum = ANY (indkey) OR 0 = ANY (indkey))
    );

    IF lengths IS NOT NULL THEN
        EXECUTE format('SELECT * FROM (%s) AS found ORDER BY size DESC NULLS LAST LIMIT 1', lengths) INTO longest;
        RAISE EXCEPTION '%: a value of % has % characters, too many for %: %...',
                cannot, quote_ident(longest.name), longest.size,
                coalesce('the index ' || quote_ident(nullif(index_name, '')), 'an index'), longest.beginning
            USING
                ERRCODE = 'program_limit_exceeded',
                HINT = 'An index row holds at most 2,704 bytes. Leave such rows out and list them, as with elt.to_key.';
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._refuse_long_values(regclass, text, text, text) IS
    'Internal to elt.publish_rows: raises an error that names the longest value of an index''s columns.';


-- Warn if rows are not what was written, because a trigger of the target changes them.  Every run would update them.
CREATE OR REPLACE FUNCTION elt._warn_of_rewriting(target regclass, rows text, expected bigint, is_same text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    names text;
    same  bigint;
BEGIN
    SELECT string_agg(quote_ident(tgname), ', ' ORDER BY tgname)
    INTO names
    FROM pg_catalog.pg_trigger
    WHERE tgrelid = target AND NOT tgisinternal AND tgenabled IN ('O', 'A') AND tgtype & 20 <> 0;  -- INSERT, UPDATE

    IF names IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM %s JOIN %s AS t ON %s', rows, target, is_same) INTO same;
        IF same <> expected THEN
            RAISE WARNING '% rows of % are not what was published, because a trigger changes them: %',
                    expected - same, target, names
                USING HINT = format(
                    'Such rows are updated in every run. Drop the trigger (DROP TRIGGER .. ON %s;), and write into the'
                    ' script what it does.', target
                );
        END IF;
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._warn_of_rewriting(regclass, text, bigint, text) IS
    'Internal to elt.publish_rows: warns if triggers changed what was published.';


-- Raise an error if a trigger would run a stranger's code with the rights of the caller.
-- Checked are the functions and conditions of triggers on these tables, and on tables that a write to them can reach:
-- partitions and children, tables whose foreign keys have an action, and tables below a view.
-- A stranger is a role that can log in, and is not a role of the caller, a superuser, the owner of the database, or a
-- role that can become one of these.  The caller holds a lock, so nobody can add a trigger meanwhile.
CREATE OR REPLACE FUNCTION elt._refuse_triggers(tables regclass[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    found record;
BEGIN
    -- most databases have no trigger at all, and this is called often
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgenabled IN ('O', 'A') AND NOT tgisinternal) THEN
        RETURN;
    END IF;

    -- Usually this finds nothing: triggers that call only our functions or PostgreSQL's own, which pg_depend does not
    -- list.
    FOR found IN
        WITH RECURSIVE

        written (oid) AS (
            SELECT unnest(tables)::oid
            UNION
            SELECT further.oid
            FROM written
            CROSS JOIN LATERAL (
                SELECT inhrelid FROM pg_inherits WHERE inhparent = written.oid
                UNION ALL
                SELECT conrelid
                FROM pg_constraint
                WHERE confrelid = written.oid AND contype = 'f'
                    AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
                UNION ALL
                SELECT refobjid
                FROM pg_rewrite
                JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
                WHERE ev_class = written.oid AND refclassid = 'pg_class'::regclass AND refobjid >= 16384
            ) AS further (oid)
        )

        SELECT
            tgrelid::regclass AS relation,
            tgname AS name,
            object.type,
            object.identity,
            owners.refobjid AS owner
        FROM written
        JOIN pg_trigger ON tgrelid = written.oid
        JOIN pg_depend AS called
            ON called.classid = 'pg_trigger'::regclass
            AND called.objid = pg_trigger.oid
            AND called.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
        JOIN pg_shdepend AS owners
            ON owners.classid = called.refclassid
            AND owners.objid = called.refobjid
            AND owners.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND owners.refclassid = 'pg_authid'::regclass
            AND owners.deptype = 'o'
        CROSS JOIN pg_identify_object(called.refclassid, called.refobjid, 0) AS object
        WHERE tgenabled IN ('O', 'A') AND NOT tgisinternal
            AND owners.refobjid <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
    LOOP
        IF EXISTS (
            WITH RECURSIVE

            -- Not pg_has_role, because it is true for a superuser and any role.  Members with neither option are left
            -- out: since PostgreSQL 16 such a member can only grant the role to others.
            members (member, roleid) AS (
                SELECT member, roleid
                FROM pg_auth_members
                WHERE coalesce((to_jsonb(pg_auth_members) ->> 'inherit_option')::boolean, true)
                    OR coalesce((to_jsonb(pg_auth_members) ->> 'set_option')::boolean, true)
            ),

            ours (oid) AS (
                SELECT oid FROM pg_roles WHERE rolname = current_user
                UNION
                SELECT members.roleid FROM members JOIN ours ON members.member = ours.oid
            ),

            administrators (oid) AS (
                SELECT oid FROM pg_roles WHERE rolsuper OR rolname = 'pg_database_owner'
                UNION
                SELECT datdba FROM pg_database WHERE datname = current_database()
                UNION
                SELECT members.member FROM members JOIN administrators ON members.roleid = administrators.oid
            ),

            trusted (oid) AS (
                SELECT oid FROM ours
                UNION
                SELECT oid FROM administrators
            )

            SELECT
            FROM pg_roles AS stranger
            WHERE rolcanlogin
                AND found.owner NOT IN (SELECT trusted.oid FROM trusted)
                AND oid NOT IN (SELECT trusted.oid FROM trusted)
                AND pg_has_role(stranger.oid, found.owner, 'MEMBER')
        ) THEN
            RAISE EXCEPTION 'trigger % on % runs % % of role %: nothing is written there, because it would run as %',
                    quote_ident(found.name), found.relation, found.type, replace(found.identity, 'pg_catalog.', ''),
                    quote_ident(pg_get_userbyid(found.owner)), current_user
                USING
                    ERRCODE = 'insufficient_privilege',
                    HINT = format(
                        'DROP TRIGGER %I ON %s; or, if you trust its code: ALTER %s %s OWNER TO %I;',
                        found.name, found.relation, upper(found.type), replace(found.identity, 'pg_catalog.', ''),
                        current_user
                    );
        END IF;
    END LOOP;
END
$function$;

COMMENT ON FUNCTION elt._refuse_triggers(regclass[]) IS
    'Internal: raises an error if a trigger on one of these tables runs a function of a stranger.';


-- earlier versions had these
DROP FUNCTION IF EXISTS elt._refuse_columns(regclass, regclass, text);
DROP FUNCTION IF EXISTS elt._refuse_columns(regclass, text, text, text, text);

-- A source column that the target lacks is a typo or a new column.  It is an error, because otherwise nobody would
-- notice that its values are lost.
CREATE OR REPLACE FUNCTION elt._refuse_columns(
    target regclass, cannot text, unknown_columns text, remedy text, lost_keys text, identities text
)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    names text;
BEGIN
    -- A key WITHOUT OVERLAPS (PostgreSQL 18) does not compare by "equals", so it does not identify a row.
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_index WHERE indrelid = target AND indisprimary AND NOT indisexclusion
    ) THEN
        SELECT string_agg(quote_ident(pg_attribute.attname), ', ' ORDER BY pg_attribute.attnum)
        INTO names
        FROM pg_catalog.pg_index
        JOIN pg_catalog.pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indexrelid = (
            SELECT min(indexrelid)
            FROM pg_catalog.pg_index
            WHERE indrelid = target AND indisunique AND indpred IS NULL AND indexprs IS NULL
        );
        RAISE EXCEPTION '%: the target has no primary key that identifies a row', cannot
            USING
                ERRCODE = 'invalid_table_definition',
                HINT = format(
                    'ALTER TABLE %s ADD PRIMARY KEY (%s);', target, coalesce(names, '<columns that identify a row>')
                );
    END IF;

    IF unknown_columns IS NOT NULL THEN
        RAISE EXCEPTION '%: the target has no column %', cannot, unknown_columns
            USING ERRCODE = 'undefined_column', HINT = remedy;
    END IF;

    IF (SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid = target AND attnum > 0 AND NOT attisdropped) > 1599
    THEN
        RAISE EXCEPTION '%: the target has 1,600 columns, and to compare rows one more is needed', cannot
            USING ERRCODE = 'too_many_columns', HINT = 'Split the table in two with the same key.';
    END IF;

    IF lost_keys IS NOT NULL THEN
        RAISE EXCEPTION '%: the source has no column % of the primary key, or the target generates it', cannot, lost_keys
            USING ERRCODE = 'undefined_column';
    END IF;

    IF identities IS NOT NULL THEN
        RAISE EXCEPTION '%: the target generates column % ALWAYS, so no other value can be set', cannot, identities
            USING
                ERRCODE = 'generated_always',
                HINT = format(
                    'Leave it out of the source; or ALTER TABLE %s ALTER COLUMN %s SET GENERATED BY DEFAULT;',
                    target, identities
                );
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._refuse_columns(regclass, text, text, text, text, text) IS
    'Internal to elt.publish_rows: raises an error if the columns of target and source do not fit.';


CREATE OR REPLACE FUNCTION elt.publish_rows(target regclass, source regclass, scope text DEFAULT 'true')
RETURNS TABLE (inserted bigint, updated bigint, deleted bigint, unchanged bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
SET jit = off           -- compiling these statements costs more than it saves
SET row_security = off  -- an error if a policy hides rows, because hidden rows would be neither updated nor deleted
AS $function$
DECLARE
    cannot        constant text := format('cannot publish %s into %s', source, target);
    -- Temporary tables carry the target's oid, because a trigger of the target may publish into another table meanwhile.
    copy          constant text := format('pg_temp._elt_copy_%s', target::oid);
    diff          constant text := format('pg_temp._elt_diff_%s', target::oid);
    fragments     record;  -- parts of the statements below: s is the source or the diff, t the target
    new_rows      text := source::text;
    source_rows   bigint;
    rows_in_scope bigint;
    named_rows    text;
    target_rows   bigint;
    is_empty      boolean;
    problem       text;
    violated      text;
    referrers     text;
    is_recorded   boolean;  -- a run records what it changes (row_changes.sql); nobody does under psql -f
    kept          text;     -- the table for changed rows; NULL: only counts are kept
BEGIN
    -- 1. Lock the target, so that nobody writes between comparison and change.  It needs no stronger lock later, so there
    --    is no deadlock with a CREATE INDEX CONCURRENTLY of somebody else.  Readers do not wait.

    IF target IS NULL OR source IS NULL OR scope IS NULL THEN
        RAISE EXCEPTION 'elt.publish_rows(%, %, %): no argument may be NULL', target, source, scope
            USING ERRCODE = 'null_value_not_allowed';
    END IF;

    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = target AND relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION '%: % is not a table', cannot, target
            USING ERRCODE = 'wrong_object_type';
    END IF;

    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '%: a % transaction does not see rows that were committed after it began',
                cannot, upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
    END IF;

    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);
    PERFORM elt._refuse_triggers(ARRAY[target]);

    -- 2. Match columns by name.  Columns that the source lacks (surrogate keys, notes) keep their values.

    SELECT
        -- k, a, b
        string_agg(format('%I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.is_published) AS columns,
        -- s.k, s.a, s.b
        string_agg(format('s.%I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.is_published) AS s_columns,
        -- the same, but the key comes from the target if the source lacks the row
        string_agg(
            CASE
                WHEN c.key_place IS NULL THEN format('s.%I', c.name)
                ELSE format('CASE WHEN s._elt_here IS NULL THEN t.%1$I ELSE s.%1$I END AS %1$I', c.name)
            END,
            ', ' ORDER BY c.place
        ) FILTER (WHERE c.is_published) AS diff_columns,
        -- k
        string_agg(format('%I', c.name), ', ' ORDER BY c.key_place) FILTER (WHERE c.key_place > 0) AS keys,
        -- t.k
        string_agg(format('t.%I', c.name), ', ' ORDER BY c.key_place) FILTER (WHERE c.key_place > 0) AS t_keys,
        array_agg(c.name::text ORDER BY c.key_place) FILTER (WHERE c.key_place > 0) AS key_names,
        bool_and(c.is_published) FILTER (WHERE c.target_type IS NOT NULL) AS is_whole,
        -- s.k OPERATOR(pg_catalog.=) t.k
        string_agg(format('s.%1$I %2$s t.%1$I', c.name, c.key_operator), ' AND ' ORDER BY c.key_place)
            FILTER (WHERE c.key_place > 0) AS same_key,
        -- s.a IS DISTINCT FROM t.a OR ROW(s.b)::record OPERATOR(pg_catalog.*<>) ROW(t.b)::record
        -- *<> compares stored bytes.  It is slower, but needed for types without "=" (json, point) and for types whose
        -- equal values can differ (1.0 and 1.00, circles of equal area).  Without the casts to record, PostgreSQL would
        -- compare column by column with the operators of the types.
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
        ) AS is_different,
        -- a = s.a, b = s.b
        string_agg(format('%1$I = s.%1$I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.is_compared) AS assignments,
        string_agg(format('%I: %s to %s', c.name, c.source_type, c.target_type), ', ' ORDER BY c.place)
            FILTER (WHERE c.is_published AND NOT c.is_same_type) AS casts,
        -- the rest describes columns that do not fit
        string_agg(format('%I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.target_type IS NULL) AS unknown_columns,
        string_agg(format('SELECT elt.add_column(%L, %L, %L);', target, c.name, c.source_type), E'\n' ORDER BY c.place)
            FILTER (WHERE c.target_type IS NULL) AS remedy,
        string_agg(format('%I', c.name), ', ' ORDER BY c.key_place)
            FILTER (WHERE c.key_place IS NOT NULL AND NOT c.is_published) AS lost_keys,
        string_agg(format('%I', c.name), ', ' ORDER BY c.place)
            FILTER (WHERE c.is_compared AND c.is_identity) AS identities
    INTO fragments
    FROM elt._publish_columns(target, source) AS c;

    PERFORM elt._refuse_columns(
        target, cannot, fragments.unknown_columns, fragments.remedy, fragments.lost_keys, fragments.identities
    );

    -- 3. Copy the new rows, if types differ or if the source is not a temporary table.
    --    If types differ, the copy has the target's types: otherwise a numeric would differ from its numeric(10,2) every
    --    day.  Assignment is strict: text is no integer, and varchar(3) does not cut.
    --    A copy also does not change when others write to the source between the statements below.

    IF fragments.casts IS NOT NULL
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = source AND relkind = 'r' AND relpersistence = 't')
    THEN
        new_rows := copy;
        EXECUTE format('CREATE TEMP TABLE %s AS SELECT %s FROM %s WITH NO DATA', copy, fragments.columns, target);
        BEGIN
            EXECUTE format('INSERT INTO %s SELECT %s FROM %s AS s', copy, fragments.s_columns, source);
        EXCEPTION WHEN data_exception OR datatype_mismatch OR integrity_constraint_violation THEN
            RAISE EXCEPTION '%: %', cannot, SQLERRM
                USING ERRCODE = SQLSTATE, DETAIL = coalesce('Types differ: ' || fragments.casts, 'No type differs.');
        END;
    END IF;

    EXECUTE format('SELECT count(*) FROM %s', new_rows) INTO source_rows;

    IF scope <> 'true' THEN
        -- Count first, because it is faster.  With IN (SELECT ..) in the scope, PostgreSQL can use a join here.  For the
        -- negated scope below it reads the whole subquery for each row of the source.
        named_rows := format(
            'FROM (SELECT %s FROM %s) AS %I',
            fragments.columns, new_rows, (SELECT relname FROM pg_catalog.pg_class WHERE oid = target)
        );
        -- \n, because scope may end in a comment.
        EXECUTE format(E'SELECT count(*) %s WHERE (%s\n)', named_rows, scope) INTO rows_in_scope;

        IF rows_in_scope <> source_rows THEN
            PERFORM elt._refuse_rows(
                format(E'SELECT %s %s WHERE (%s\n) IS NOT TRUE', fragments.keys, named_rows, scope),
                format('%s: the source has rows outside of %s; primary key (%s)', cannot, scope, fragments.keys),
                'check_violation'
            );
        END IF;
    END IF;

    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', target) INTO is_empty;
    is_recorded := coalesce(current_setting('elt.run_id', true), '') <> ''
        AND (SELECT relpersistence <> 't' FROM pg_catalog.pg_class WHERE oid = target);

    IF is_empty AND (SELECT indimmediate FROM pg_catalog.pg_index WHERE indrelid = target AND indisprimary) THEN

        -- 4. Fill an empty target in key order, so that its index grows at one end.

        inserted := source_rows;
        updated := 0;
        deleted := 0;
        IF is_recorded AND inserted > 0 THEN
            kept := elt._begin_changes(target, fragments.key_names, inserted, is_empty);
        END IF;
        BEGIN
            PERFORM elt._change_rows(
                inserted,
                target,
                format(
                    'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s ORDER BY %s',
                    target, fragments.columns, fragments.s_columns, new_rows, fragments.keys
                )
            );
        EXCEPTION
            WHEN unique_violation OR not_null_violation THEN
                PERFORM elt._refuse_bad_keys(new_rows, fragments.keys, cannot);
                RAISE;  -- another constraint was violated
            WHEN program_limit_exceeded THEN
                GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
                PERFORM elt._refuse_long_values(target, violated, new_rows, cannot);
                RAISE;  -- another limit
        END;
        PERFORM elt._warn_of_rewriting(
            target,
            format('%s AS s', new_rows),
            inserted,
            format('%s AND NOT (%s)', fragments.same_key, fragments.is_different)
        );
        IF kept IS NOT NULL THEN  -- this run deleted all rows before
            PERFORM elt._keep_rows(target, kept, 'after', NULL, format('SELECT * FROM %s', target));
        END IF;
    ELSE

        -- 5. Compute the difference in one pass.  _elt_here is NULL for a missing row, but not for a row full of NULLs.

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
            diff, fragments.diff_columns, fragments.columns, new_rows, target, scope, fragments.same_key, fragments.is_different
        );
        EXECUTE format('ANALYZE %s (_elt_op, %s)', diff, fragments.keys);
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

        -- The counts only agree if rows matched one to one, so if no key is there twice.
        IF source_rows <> target_rows - deleted + inserted THEN
            PERFORM elt._refuse_bad_keys(new_rows, fragments.keys, cannot);
            RAISE EXCEPTION
                '%: the primary key (%) is not unique in the target; do tables inherit from it?', cannot, fragments.keys;
        END IF;
        PERFORM elt._refuse_bad_keys(
            format('(SELECT %s FROM %s WHERE _elt_op = ''i'') AS s', fragments.columns, diff), fragments.keys, cannot
        );
        IF scope <> 'true' THEN
            PERFORM elt._refuse_rows(
                format(
                    'SELECT %s FROM %s AS s JOIN %s AS t ON %s WHERE s._elt_op = ''i''',
                    fragments.t_keys, diff, target, fragments.same_key
                ),
                format('%s: the target has rows of the same primary key (%s) outside of %s', cannot, fragments.keys, scope),
                'unique_violation'
            );
        END IF;

        IF is_recorded AND inserted + updated + deleted > 0 THEN
            kept := elt._begin_changes(target, fragments.key_names, inserted + updated + deleted, is_empty);
            PERFORM elt._keep_rows(
                target, kept, 'before', NULL,
                format(
                    'SELECT t.* FROM %s AS t JOIN %s AS s ON %s WHERE s._elt_op <> ''i''', target, diff, fragments.same_key
                )
            );
        END IF;

        -- 6. Apply the changes, joined by key, because a ctid is unique within one partition only.  The order DELETE,
        --    UPDATE, INSERT lets a unique value move from one key to another.

        IF deleted > 0 THEN
            SELECT string_agg(conrelid::regclass::text, ', ')
            INTO referrers
            FROM pg_catalog.pg_constraint
            WHERE confrelid = target AND confdeltype IN ('c', 'n', 'd');  -- CASCADE, SET NULL, SET DEFAULT

            IF referrers IS NOT NULL THEN
                RAISE WARNING 'rows deleted from %: %; foreign keys with ON DELETE change %, too',
                    target, deleted, referrers;
            END IF;
            PERFORM elt._change_rows(
                deleted,
                target,
                format('DELETE FROM %s AS t USING %s AS s WHERE s._elt_op = ''d'' AND %s', target, diff, fragments.same_key)
            );
        END IF;

        IF updated > 0 THEN
            BEGIN
                PERFORM elt._change_rows(
                    updated,
                    target,
                    format(
                        'UPDATE %s AS t SET %s FROM %s AS s WHERE s._elt_op = ''u'' AND %s',
                        target, fragments.assignments, diff, fragments.same_key
                    )
                );
            EXCEPTION WHEN unique_violation OR exclusion_violation OR program_limit_exceeded THEN
                GET STACKED DIAGNOSTICS problem = PG_EXCEPTION_DETAIL, violated = CONSTRAINT_NAME;
                IF SQLSTATE = '54000' THEN
                    PERFORM elt._refuse_long_values(target, violated, diff, cannot);
                    RAISE;  -- another limit
                END IF;
                RAISE EXCEPTION '%: %', cannot, SQLERRM
                    USING
                        ERRCODE = SQLSTATE,
                        DETAIL = problem,
                        HINT = coalesce(
                            (
                                SELECT format(
                                    'If rows swap this value, let PostgreSQL check the constraint after the last row:'
                                    ' ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s DEFERRABLE;',
                                    target, conname, conname, pg_get_constraintdef(oid)
                                )
                                FROM pg_catalog.pg_constraint
                                WHERE conrelid = target AND conname = violated AND NOT condeferrable
                            ),
                            'If rows swap this value: a constraint can be DEFERRABLE, an index cannot.'
                        );
            END;
        END IF;

        IF inserted > 0 THEN
            BEGIN
                PERFORM elt._change_rows(
                    inserted,
                    target,
                    format(
                        'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s WHERE s._elt_op = ''i''',
                        target, fragments.columns, fragments.s_columns, diff
                    )
                );
            EXCEPTION WHEN program_limit_exceeded THEN
                GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
                PERFORM elt._refuse_long_values(target, violated, diff, cannot);
                RAISE;  -- another limit
            END;
        END IF;
        PERFORM elt._warn_of_rewriting(
            target,
            format('(SELECT %s FROM %s WHERE _elt_op <> ''d'') AS s', fragments.columns, diff),
            inserted + updated,
            format('%s AND NOT (%s)', fragments.same_key, fragments.is_different)
        );
        IF kept IS NOT NULL THEN
            PERFORM elt._keep_rows(
                target, kept, 'after', NULL,
                CASE
                    WHEN fragments.is_whole AND (
                        SELECT relkind = 'r' AND NOT relhastriggers AND NOT relhasrules
                        FROM pg_catalog.pg_class
                        WHERE oid = target
                    ) THEN format('SELECT %s FROM %s WHERE _elt_op <> ''d''', fragments.columns, diff)
                    -- read from the target, because defaults and triggers may have set columns
                    ELSE format(
                        'SELECT t.* FROM %s AS t JOIN %s AS s ON %s WHERE s._elt_op <> ''d''',
                        target, diff, fragments.same_key
                    )
                END
            );
        END IF;
        EXECUTE format('DROP TABLE %s', diff);
    END IF;

    IF is_recorded AND inserted + updated + deleted > 0 THEN
        PERFORM elt._end_changes(target, kept, inserted, updated, deleted);
    END IF;

    -- 7. After many changes, renew the statistics: old ones would mislead the planner in the next script.
    --    Not in a preview: a rollback does not take back the number of rows that ANALYZE stores.

    IF (inserted + updated + deleted) * 10 > source_rows AND current_setting('elt.is_preview', true) IS DISTINCT FROM 'on'
    THEN
        EXECUTE format('ANALYZE %s', target);
    END IF;
    IF new_rows = copy THEN
        EXECUTE format('DROP TABLE %s', copy);
    END IF;
    unchanged := source_rows - inserted - updated;
    RETURN NEXT;
END
$function$;

COMMENT ON FUNCTION elt.publish_rows(regclass, regclass, text) IS
    'Makes the rows of a table with a primary key (those that meet scope, a predicate) equal to the rows of the source. Touches only rows that differ, and returns how many were inserted, updated, deleted and left unchanged. Columns that the source lacks keep their values. Readers never wait.';
