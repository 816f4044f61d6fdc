-- elt.publish_history: keeps the rows of a table for each day, as ranges of days on which a row stayed the same.
--
--     SELECT * FROM elt.publish_history('silver.stock_history', 'stock_now', DATE '2026-01-31');
--     SELECT * FROM elt.publish_history('silver.stock_history', 'stock_now', DATE '2026-01-15', DATE '2026-01-16');
--
-- The primary key of the target is the key of the source, and valid_from.  A range is valid from valid_from up to, but
-- not including, valid_to; 'infinity' means that it has not ended.
-- After the call, the target holds exactly the rows of the source for on_day, and the same rows as before for all other
-- days.  next_day is the next day that the target knows; NULL if on_day is the newest.  Two equal ranges without a gap
-- between them become one.  Only rows that changed on on_day are touched (see elt.publish_rows).
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.publish_history(
    target regclass, source regclass, on_day date, next_day date DEFAULT NULL
)
RETURNS TABLE (inserted bigint, updated bigint, deleted bigint, unchanged bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
SET jit = off  -- compiling these statements costs more than it saves
AS $function$
DECLARE
    cannot      constant text := format('cannot remember %s in %s on %s', source, target, on_day);
    moved       constant text := format('pg_temp._elt_moved_%s', target::oid);
    ranges      constant text := format('pg_temp._elt_ranges_%s', target::oid);
    until       constant date := coalesce(next_day, 'infinity');
    piece       record;  -- parts of the statements below: s is the source, t the target, m the keys that changed
    source_rows bigint;
    moved_rows  bigint;
    is_same     boolean;
    is_empty    boolean;
BEGIN
    IF target IS NULL OR source IS NULL OR on_day IS NULL OR NOT isfinite(on_day) OR next_day <= on_day THEN
        RAISE EXCEPTION 'elt.publish_history(%, %, %, %): it needs a table, its rows, a day, and a later day or NULL',
                target, source, on_day, next_day
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', target);

    SELECT
        -- k
        string_agg(format('%I', c.name), ', ' ORDER BY c.key_place) FILTER (WHERE c.key_place > 0) AS keys,
        -- m.k
        string_agg(format('m.%I', c.name), ', ' ORDER BY c.key_place) FILTER (WHERE c.key_place > 0) AS m_keys,
        -- coalesce(s.k, t.k) AS k
        string_agg(format('coalesce(s.%1$I, t.%1$I) AS %1$I', c.name), ', ' ORDER BY c.key_place)
            FILTER (WHERE c.key_place > 0) AS either_keys,
        -- s.k = t.k
        string_agg(format('s.%1$I = t.%1$I', c.name), ' AND ' ORDER BY c.key_place) FILTER (WHERE c.key_place > 0)
            AS same_key,
        -- k, a, b
        string_agg(format('%I', c.name), ', ' ORDER BY c.place) AS columns,
        -- s.k, s.a, s.b
        string_agg(format('s.%I', c.name), ', ' ORDER BY c.place) AS s_columns,
        -- a, b
        string_agg(format('%I', c.name), ', ' ORDER BY c.place) FILTER (WHERE c.key_place IS NULL) AS values,
        -- s.a IS DISTINCT FROM t.a OR s.b IS DISTINCT FROM t.b
        string_agg(format('s.%1$I IS DISTINCT FROM t.%1$I', c.name), ' OR ' ORDER BY c.place)
            FILTER (WHERE c.key_place IS NULL) AS is_different
    INTO piece
    FROM elt._publish_columns(target, source) AS c
    WHERE c.source_type IS NOT NULL;

    -- 1. An empty target takes every row of the source.

    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', target) INTO is_empty;
    IF is_empty THEN
        EXECUTE format(
            'CREATE TEMP TABLE %s AS SELECT %s, DATE %L AS valid_from, DATE %L AS valid_to FROM %s',
            ranges, piece.columns, on_day, until, source
        );
        BEGIN
            RETURN QUERY SELECT * FROM elt.publish_rows(target, ranges::regclass);
        EXCEPTION WHEN unique_violation OR not_null_violation THEN
            PERFORM elt._refuse_bad_keys(source::text, piece.keys, cannot);
            RAISE;  -- another constraint was violated
        END;
        EXECUTE format('DROP TABLE %s', ranges);
        RETURN;
    END IF;

    -- 2. Find the keys whose row differs between source and target on that day.

    EXECUTE format(
        $moved$
        CREATE TEMP TABLE %1$s AS
        SELECT %2$s, s._elt_here IS NOT NULL AS _elt_here
        FROM (SELECT true AS _elt_here, %3$s FROM %4$s) AS s
        FULL JOIN (
            SELECT true AS _elt_here, %3$s FROM %5$s WHERE valid_from <= %6$L AND valid_to > %6$L
        ) AS t ON %7$s
        WHERE s._elt_here IS NULL OR t._elt_here IS NULL OR %8$s
        $moved$,
        moved, piece.either_keys, piece.columns, source, target, on_day, piece.same_key,
        coalesce(piece.is_different, 'false')
    );
    EXECUTE format('ANALYZE %s', moved);
    EXECUTE format('SELECT count(*) FROM %s', source) INTO source_rows;
    EXECUTE format('SELECT count(*) FILTER (WHERE _elt_here), count(*) = 0 FROM %s', moved) INTO moved_rows, is_same;
    unchanged := source_rows - moved_rows;
    IF is_same THEN
        EXECUTE format('DROP TABLE %s', moved);
        inserted := 0;
        updated := 0;
        deleted := 0;
        RETURN NEXT;
        RETURN;
    END IF;
    PERFORM elt._refuse_bad_keys(format('(SELECT %s FROM %s WHERE _elt_here) AS m', piece.keys, moved), piece.keys, cannot);

    -- 3. Build the ranges of these keys around that day: the range before it, the day itself up to next_day, and the
    --    range from next_day on.  Equal neighbours become one range.

    EXECUTE format(
        $ranges$
        CREATE TEMP TABLE %1$s AS
        WITH

        pieces AS (
            SELECT %2$s, valid_from, least(valid_to, %3$L) AS valid_to
            FROM %4$s
            WHERE (%5$s) IN (SELECT %6$s FROM %7$s AS m) AND valid_from < %3$L AND valid_to >= %3$L

            UNION ALL
            SELECT %2$s, %3$L, %8$L
            FROM %9$s
            WHERE (%5$s) IN (SELECT %6$s FROM %7$s AS m)

            UNION ALL
            SELECT %2$s, greatest(valid_from, %8$L), valid_to
            FROM %4$s
            WHERE (%5$s) IN (SELECT %6$s FROM %7$s AS m) AND valid_from <= %8$L AND valid_to > %8$L
        ),

        neighbours AS (
            SELECT
                *,
                lag(valid_to) OVER before IS NOT DISTINCT FROM valid_from
                    AND lag(ROW(%10$s)) OVER before IS NOT DISTINCT FROM ROW(%10$s) AS _elt_goes_on
            FROM pieces
            WINDOW before AS (PARTITION BY %5$s ORDER BY valid_from)
        ),

        runs AS (
            SELECT
                *,
                count(*) FILTER (WHERE NOT _elt_goes_on) OVER (PARTITION BY %5$s ORDER BY valid_from) AS _elt_run
            FROM neighbours
        )

        SELECT %2$s, min(valid_from) AS valid_from, max(valid_to) AS valid_to
        FROM runs
        GROUP BY %2$s, _elt_run
        $ranges$,
        ranges, piece.columns, on_day, target, piece.keys, piece.m_keys, moved, until, source,
        coalesce(piece.values, 'true')
    );

    -- 4. Replace all ranges of these keys that touch that day.

    SELECT news.inserted, news.updated, news.deleted
    INTO inserted, updated, deleted
    FROM elt.publish_rows(
        target,
        ranges::regclass,
        format(
            'valid_from <= %L AND valid_to >= %L AND (%s) IN (SELECT %s FROM %s AS m)',
            until, on_day, piece.keys, piece.m_keys, moved
        )
    ) AS news;
    EXECUTE format('DROP TABLE %s, %s', moved, ranges);
    RETURN NEXT;
END
$function$;

COMMENT ON FUNCTION elt.publish_history(regclass, regclass, date, date) IS
    'Makes a table of ranges (primary key: the key of the source, and valid_from) hold the rows of the source for one day, and leaves all other days as they are. Touches only rows that change. Returns how many ranges were inserted, updated and deleted, and how many rows of the source were unchanged.';


-- elt.forget_day: takes one day out of a history, as if it had never been loaded.
--
--     SELECT * FROM elt.forget_day('silver.stock_history', DATE '2026-01-15', DATE '2026-02-01');
--
-- The day, up to next_day, then says what the day before it said.  next_day is the next day that the history knows;
-- NULL if the day is the newest.  Columns that fill themselves (identity, generated) are left alone.
CREATE OR REPLACE FUNCTION elt.forget_day(history regclass, day date, next_day date DEFAULT NULL)
RETURNS TABLE (inserted bigint, updated bigint, deleted bigint, unchanged bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $function$
DECLARE
    before constant text := format('pg_temp._elt_before_%s', history::oid);
    change date;
BEGIN
    IF history IS NULL OR day IS NULL OR NOT isfinite(day) OR next_day <= day THEN
        RAISE EXCEPTION 'elt.forget_day(%, %, %): it needs a history, a day, and a later day or NULL',
                history, day, next_day
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', history);
    EXECUTE format(
        'SELECT min(change) FROM (SELECT valid_from FROM %1$s UNION ALL SELECT valid_to FROM %1$s) AS ends (change)'
        ' WHERE change > %2$L AND change < %3$L',
        history, day, coalesce(next_day, 'infinity')
    )
    INTO change;
    IF change IS NOT NULL THEN
        RAISE EXCEPTION 'cannot forget % in %: it changes on %, so that is a loaded day, too', day, history, change
            USING
                ERRCODE = 'invalid_parameter_value',
                HINT = 'The third argument is the first loaded day after the one to forget.';
    END IF;

    EXECUTE format(
        'CREATE TEMP TABLE %s AS SELECT %s FROM %s WHERE valid_from < %L AND valid_to >= %L',
        before,
        (
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)
            FROM pg_catalog.pg_attribute
            WHERE attrelid = history AND attnum > 0 AND NOT attisdropped AND attidentity = '' AND attgenerated = ''
                AND attname NOT IN ('valid_from', 'valid_to')
        ),
        history, day, day
    );
    RETURN QUERY SELECT * FROM elt.publish_history(history, before::regclass, day, next_day);
    EXECUTE format('DROP TABLE %s', before);
END
$function$;

COMMENT ON FUNCTION elt.forget_day(regclass, date, date) IS
    'Takes one day out of a history that elt.publish_history keeps: up to next_day, the next day that the history knows (NULL: the day is the newest), it then holds the rows of the day before. Returns what elt.publish_history returns.';
