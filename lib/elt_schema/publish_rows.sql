-- elt.publish_rows: make a keyed table's rows equal to those of another relation, touching only what differs.
--
--     SELECT * FROM elt.publish_rows('silver.products', 'products_now');
--     SELECT * FROM elt.publish_rows('silver.sales', 'sales_now', $$ sold_on = DATE '2026-01-01' $$);
--
-- Readers of the target never wait: they see the old rows until COMMIT and the new ones after it.
-- Its path is pg_catalog: whatever the caller's path is, no function but PostgreSQL's own is called.  Triggers of the
-- target see that path, too, so they must name schemas.  A trigger whose function belongs to a stranger is refused: it
-- would run as the caller.
-- Needs schema elt and PostgreSQL 15 or newer.


-- What it returned in earlier versions cannot be replaced.
DROP FUNCTION IF EXISTS elt._publish_columns(regclass, regclass);

-- One row per column of the target or the source, with all that decides what becomes of it.
CREATE OR REPLACE FUNCTION elt._publish_columns(target regclass, source regclass)
RETURNS TABLE (
    name         name,
    place        integer,  -- in the target; columns that only the source has come last
    target_type  text,     -- NULL: the target lacks it
    source_type  text,     -- NULL: the source lacks it
    is_same_type boolean,  -- modifier and collation included
    is_published boolean,  -- both have it and the target can be given values
    is_exact     boolean,  -- values that are equal are the same bytes
    is_compared  boolean,  -- rows that meet by key may differ in it
    is_identity  boolean,  -- GENERATED ALWAYS AS IDENTITY: UPDATE may not set it
    key_place    bigint,   -- in the primary key
    key_operator text      -- the primary key's own "equals": the type's schema need not be in search_path
)
LANGUAGE sql
STABLE
SET plan_cache_mode = force_generic_plan  -- where tables are small, planning it takes longer than all else
SET join_collapse_limit = 1               -- joined in the order below
SET search_path = pg_catalog
AS $function$
WITH

target_columns AS (
    SELECT * FROM pg_catalog.pg_attribute WHERE attrelid = target AND attnum > 0 AND NOT attisdropped
),

source_columns AS (
    SELECT * FROM pg_catalog.pg_attribute WHERE attrelid = source AND attnum > 0 AND NOT attisdropped
),

-- INCLUDE columns have no operator class.  The collations of a primary key are those of its columns.
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


-- Raise where a query has rows; the first three go into the message.
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
    'Internal to elt.publish_rows: raises where a query has rows and shows the first three.';


-- NULL equals nothing, so it meets no row; a key that is there twice meets one row twice.
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
    'Internal to elt.publish_rows: raises where keys are NULL or not unique.';


-- Run one INSERT, UPDATE or DELETE that must touch a known number of rows: a trigger or a rule that swallows some would
-- otherwise go unseen.
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
                HINT = format('A BEFORE trigger or a rule holds rows back; psql lists them: \d %s', target);
    END IF;
END
$function$;

COMMENT ON FUNCTION elt._change_rows(bigint, regclass, text) IS
    'Internal to elt.publish_rows: runs a statement that must touch a known number of rows.';


-- Raise where a trigger would run a stranger's code as the caller: a trigger on one of these tables, on what they write
-- in turn (partitions and children, tables of foreign keys with an action, tables beneath a view), with its function or
-- its condition.  A stranger can log in, and is none of the caller's roles, no superuser, not the database's owner, and
-- nobody who can become one of them.  The caller holds a lock that keeps new triggers out.
CREATE OR REPLACE FUNCTION elt._refuse_triggers(tables regclass[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    found record;
BEGIN
    -- Usually there is no trigger, or all that triggers call is ours or PostgreSQL's own, which pg_depend does not list.
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

            -- Not asked of pg_has_role, which says yes to a superuser whatever the role.  Since PostgreSQL 16 a member may be
            -- allowed to do no more than to grant the role.
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
            RAISE EXCEPTION 'trigger % on % runs % % of role %: nothing is written there, for it would run as %',
                    quote_ident(found.name), found.relation, found.type, replace(found.identity, 'pg_catalog.', ''),
                    quote_ident(pg_get_userbyid(found.owner)), current_user
                USING
                    ERRCODE = 'insufficient_privilege',
                    HINT = format(
                        'DROP TRIGGER %I ON %s; or, if you trust what it does: ALTER %s %s OWNER TO %I;',
                        found.name, found.relation, upper(found.type), replace(found.identity, 'pg_catalog.', ''),
                        current_user
                    );
        END IF;
    END LOOP;
END
$function$;

COMMENT ON FUNCTION elt._refuse_triggers(regclass[]) IS
    'Internal: raises where a trigger on one of these tables runs a function of a stranger.';


-- of earlier versions
DROP FUNCTION IF EXISTS elt._refuse_columns(regclass, regclass, text);
DROP FUNCTION IF EXISTS elt._refuse_columns(regclass, text, text, text, text);

-- A column that the target lacks is a typo or news: ignored, it would go stale unseen.
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
    -- A key WITHOUT OVERLAPS, which PostgreSQL 18 has, does not tell rows apart by "equals".
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
        RAISE EXCEPTION '%: the target has no primary key to tell rows apart by', cannot
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
    'Internal to elt.publish_rows: raises where the columns of target and source do not fit.';


CREATE OR REPLACE FUNCTION elt.publish_rows(target regclass, source regclass, scope text DEFAULT 'true')
RETURNS TABLE (inserted bigint, updated bigint, deleted bigint, unchanged bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
SET jit = off           -- compiling these statements costs more than it saves
SET row_security = off  -- rows that a policy hides would be neither updated nor deleted: an error instead
AS $function$
DECLARE
    cannot        constant text := format('cannot publish %s into %s', source, target);
    -- Temporary tables, named by the target: a trigger of the target may publish into another table meanwhile.
    copy          constant text := format('pg_temp._elt_copy_%s', target::oid);
    diff          constant text := format('pg_temp._elt_diff_%s', target::oid);
    fragments     record;  -- of the statements below, in which s is the source or the diff and t the target
    new_rows      text := source::text;
    source_rows   bigint;
    rows_in_scope bigint;
    named_rows    text;
    target_rows   bigint;
    is_empty      boolean;
    problem       text;
    violated      text;
    referrers     text;
BEGIN
    -- 1. Lock the target: no other writer comes between comparison and change, and as no lock is raised later there is
    --    no deadlock with a colleague's CREATE INDEX CONCURRENTLY.  Readers do not wait.

    IF target IS NULL OR source IS NULL OR scope IS NULL THEN
        RAISE EXCEPTION 'elt.publish_rows(%, %, %): NULL names nothing', target, source, scope
            USING ERRCODE = 'null_value_not_allowed';
    END IF;

    IF NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = target AND relkind IN ('r', 'p')) THEN
        RAISE EXCEPTION '%: % is not a table', cannot, target
            USING ERRCODE = 'wrong_object_type';
    END IF;

    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '%: a % transaction does not see what was committed since it began',
                cannot, upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED;';
    END IF;

    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);
    PERFORM elt._refuse_triggers(ARRAY[target]);

    -- 2. Columns, by name.  Those that the source lacks (surrogate keys, notes) keep their values.

    SELECT
        -- k, a, b
        string_agg(format('%I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.is_published) AS columns,
        -- s.k, s.a, s.b
        string_agg(format('s.%I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.is_published) AS s_columns,
        -- the same, but the key of a row that only the target has comes from there
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
        -- s.k OPERATOR(pg_catalog.=) t.k
        string_agg(format('s.%1$I %2$s t.%1$I', c.name, c.key_operator), ' AND ' ORDER BY c.key_place)
            FILTER (WHERE c.key_place > 0) AS same_key,
        -- s.a IS DISTINCT FROM t.a OR ROW(s.b)::record OPERATOR(pg_catalog.*<>) ROW(t.b)::record
        -- Where a type has no "=" (json, point) or one that is not exact (1.0 and 1.00, circles of equal area), images
        -- are compared: slower.  Without the casts *<> would be taken apart into operators of the types.
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
        -- what does not fit
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

    -- 3. The new rows.  Where types differ, a copy takes the target's by assignment: strict (text is no integer,
    --    varchar(3) does not cut), and a numeric that becomes numeric(10,2) does not differ again every day.  A copy
    --    also holds still what others may write between the statements below.

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
        -- Counted first: of a scope with IN (SELECT ..), PostgreSQL makes a join here, but looks at every row of the
        -- subquery for each row of the source where it is negated.
        named_rows := format(
            'FROM (SELECT %s FROM %s) AS %I',
            fragments.columns, new_rows, (SELECT relname FROM pg_catalog.pg_class WHERE oid = target)
        );
        EXECUTE format(E'SELECT count(*) %s WHERE (%s\n)', named_rows, scope) INTO rows_in_scope;  -- \n ends a comment

        IF rows_in_scope <> source_rows THEN
            PERFORM elt._refuse_rows(
                format(E'SELECT %s %s WHERE (%s\n) IS NOT TRUE', fragments.keys, named_rows, scope),
                format('%s: the source has rows outside of %s; primary key (%s)', cannot, scope, fragments.keys),
                'check_violation'
            );
        END IF;
    END IF;

    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', target) INTO is_empty;

    IF is_empty AND (SELECT indimmediate FROM pg_catalog.pg_index WHERE indrelid = target AND indisprimary) THEN

        -- 4. An empty target is filled in key order, so that its index grows at one end.

        inserted := source_rows;
        updated := 0;
        deleted := 0;
        BEGIN
            PERFORM elt._change_rows(
                inserted,
                target,
                format(
                    'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s ORDER BY %s',
                    target, fragments.columns, fragments.s_columns, new_rows, fragments.keys
                )
            );
        EXCEPTION WHEN unique_violation OR not_null_violation THEN
            PERFORM elt._refuse_bad_keys(new_rows, fragments.keys, cannot);
            RAISE;  -- of some other constraint
        END;
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

        -- Rows met one to one, unless a key is twice in the source.
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

        -- 6. The changes, joined by key (a ctid is unique within one partition only).  In the order DELETE, UPDATE,
        --    INSERT a unique value can move from one key to another.

        IF deleted > 0 THEN
            SELECT string_agg(conrelid::regclass::text, ', ')
            INTO referrers
            FROM pg_catalog.pg_constraint
            WHERE confrelid = target AND confdeltype IN ('c', 'n', 'd');  -- CASCADE, SET NULL, SET DEFAULT

            IF referrers IS NOT NULL THEN
                RAISE WARNING 'rows deleted from %: %; by foreign keys ON DELETE this changes %',
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
            EXCEPTION WHEN unique_violation OR exclusion_violation THEN
                GET STACKED DIAGNOSTICS problem = PG_EXCEPTION_DETAIL, violated = CONSTRAINT_NAME;
                RAISE EXCEPTION '%: %', cannot, SQLERRM
                    USING
                        ERRCODE = SQLSTATE,
                        DETAIL = problem,
                        HINT = coalesce(
                            (
                                SELECT format(
                                    'Where rows swap this value, let it be checked after the last row: ALTER TABLE %s'
                                    ' DROP CONSTRAINT %I, ADD CONSTRAINT %I %s DEFERRABLE;',
                                    target, conname, conname, pg_get_constraintdef(oid)
                                )
                                FROM pg_catalog.pg_constraint
                                WHERE conrelid = target AND conname = violated AND NOT condeferrable
                            ),
                            'Where rows swap this value: a constraint can be DEFERRABLE, an index cannot.'
                        );
            END;
        END IF;

        IF inserted > 0 THEN
            PERFORM elt._change_rows(
                inserted,
                target,
                format(
                    'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s WHERE s._elt_op = ''i''',
                    target, fragments.columns, fragments.s_columns, diff
                )
            );
        END IF;
        EXECUTE format('DROP TABLE %s', diff);
    END IF;

    -- 7. After many changes the statistics mislead the next script, and this function tomorrow.

    IF (inserted + updated + deleted) * 10 > source_rows THEN
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
    'Makes the rows of a table with a primary key (those that meet scope, a predicate) equal to the source''s, touches '
    'only those that differ, and returns how many were inserted, updated, deleted and left unchanged. Columns that the '
    'source lacks keep their values. Readers never wait.';
