-- elt.add_column: adds a nullable column to a published table, if it is missing.
--
--     SELECT elt.add_column('silver.products', 'color', 'text');
--
-- If the column exists, it takes no lock on the table.  ALTER TABLE .. ADD COLUMN IF NOT EXISTS would lock readers out
-- until COMMIT even then.  Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.add_column(table_name regclass, column_name text, column_type text)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    present  text;
    wanted   text;
    before   constant text := current_setting('lock_timeout');
    -- milliseconds; where the caller sets none, a minute
    patience constant integer := coalesce(
        (SELECT nullif(setting::integer, 0) FROM pg_catalog.pg_settings WHERE name = 'lock_timeout'), 60000
    );
    began    constant timestamptz := clock_timestamp();
BEGIN
    IF table_name IS NULL OR column_name IS NULL OR to_regtype(column_type) IS NULL THEN
        RAISE EXCEPTION 'elt.add_column(%, %, %): no such table or type', table_name, column_name, column_type
            USING ERRCODE = 'undefined_object', HINT = 'A type that is not PostgreSQL''s own needs its schema: public.citext';
    END IF;

    SELECT format_type(atttypid, atttypmod)
    INTO present
    FROM pg_catalog.pg_attribute
    WHERE attrelid = table_name AND attname = column_name AND attnum > 0 AND NOT attisdropped;

    IF present IS NULL THEN
        -- Readers do not notice a preview: it adds columns only to tables that its own transaction has made
        -- (lib/run/preview.py).  Their xmin is not older than the transaction.
        IF current_setting('elt.is_preview', true) = 'on' AND (
            SELECT age(xmin) > age(pg_current_xact_id()::xid) FROM pg_catalog.pg_class WHERE oid = table_name
        ) THEN
            RAISE EXCEPTION 'elt.add_column would lock readers of % out', table_name USING ERRCODE = 'EL001';
        END IF;
        -- While ALTER TABLE waits for a reader, later readers wait behind it.  So it waits only briefly, and again after a
        -- pause in which they go on; in all as long as the caller would wait for a lock.
        PERFORM set_config('lock_timeout', least(200, patience)::text, true);
        LOOP
            BEGIN
                EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', table_name, column_name, column_type);
                EXIT;
            EXCEPTION WHEN lock_not_available THEN
                IF clock_timestamp() > began + patience * INTERVAL '1 ms' THEN
                    RAISE;
                END IF;
            END;
            PERFORM pg_sleep(0.5);
        END LOOP;
        PERFORM set_config('lock_timeout', before, true);
        RETURN true;
    END IF;

    -- A column of a temporary table gives the type as PostgreSQL spells it: "character varying(3)" for "varchar(3)".
    EXECUTE format('CREATE TEMP TABLE _elt_wanted (wanted %s)', column_type);
    SELECT format_type(atttypid, atttypmod)
    INTO wanted
    FROM pg_catalog.pg_attribute
    WHERE attrelid = 'pg_temp._elt_wanted'::regclass AND attname = 'wanted';
    DROP TABLE pg_temp._elt_wanted;

    IF present <> wanted THEN
        RAISE EXCEPTION '%.% is %, not %', table_name, quote_ident(column_name), present, wanted
            USING
                ERRCODE = 'duplicate_column',
                DETAIL = 'elt.add_column adds a missing column; it never changes the type of one.',
                HINT = format(
                    E'Name the type that the column has, or change the column once, by hand. Readers wait meanwhile,'
                    ' and views that read it must be dropped first:\n'
                    'ALTER TABLE %s ALTER COLUMN %I TYPE %s;',
                    table_name, column_name, wanted
                );
    END IF;
    RETURN false;
END
$function$;

COMMENT ON FUNCTION elt.add_column(regclass, text, text) IS
    'Adds a nullable column if the table lacks it, and returns whether it did. If the column exists with this type, it takes no lock on the table; if with another type, it raises an error.';
