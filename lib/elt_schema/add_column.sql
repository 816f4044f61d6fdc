-- elt.add_column: how a published table evolves.  Adds a nullable column where it is missing.
--
--     SELECT elt.add_column('silver.products', 'color', 'text');
--
-- It looks first: ALTER TABLE .. ADD COLUMN IF NOT EXISTS makes every reader wait until COMMIT even where the column is
-- there, this takes no lock on the table then.  Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.add_column(table_name regclass, column_name text, column_type text)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    present text;
    wanted  text;
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
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', table_name, column_name, column_type);
        RETURN true;
    END IF;

    -- Only a column has a type with its modifier; "varchar(3)" as PostgreSQL writes it is "character varying(3)".
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
                DETAIL = 'elt.add_column adds what is missing; it never changes a column.',
                HINT = format(
                    E'Name the type it has, or change it once, by hand (readers wait meanwhile, views on it must go):\n'
                    'ALTER TABLE %s ALTER COLUMN %I TYPE %s;',
                    table_name, column_name, wanted
                );
    END IF;
    RETURN false;
END
$function$;

COMMENT ON FUNCTION elt.add_column(regclass, text, text) IS
    'Adds a nullable column where the table lacks it and says whether it did. Takes no lock on the table where the '
    'column is there; another type is an error.';
