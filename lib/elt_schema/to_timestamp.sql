-- elt.to_timestamp: a text in ISO form as a point in time; NULL if it is not one.  It never fails.
--
--     SELECT elt.to_timestamp('2026-01-31T10:20:30+01:00'), elt.to_timestamp('2026-01-31 10:20');
--
-- A date as in elt.to_date; then T or a blank, hours and minutes, and seconds with up to 9 digits, if any; at the end Z
-- or an offset (+01, +0100, +01:00).  Without an offset it is UTC.  Without a time it is midnight.  Digits beyond the
-- sixth of a second are cut.  Invisible characters around it are allowed.
-- No SET search_path, for the same reason as in elt.to_number.
-- Needs schema elt and PostgreSQL 15 or newer.

CREATE OR REPLACE FUNCTION elt.to_timestamp(value text)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN CASE
    WHEN
        value ~ (
            '^[' || elt.invisible() || ']*[0-9]{4}-[0-9]{2}-[0-9]{2}'
            '([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,9})?)?'
            '( ?(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?))?)?'
            '[' || elt.invisible() || ']*$'
        )
        THEN (
            elt.to_date(substring(value FROM '[0-9-]{10}'))
            + make_time(
                coalesce(substring(value FROM '([0-9]{2}):')::integer, 0),
                coalesce(substring(value FROM ':([0-9]{2})')::integer, 0),
                coalesce(substring(value FROM ':[0-9]{2}:([0-9]{2}([.][0-9]{1,6})?)')::double precision, 0)
            )
            - make_interval(
                hours => coalesce(substring(value FROM ':[^+-]*([+-][0-9]{2})')::integer, 0),
                mins => coalesce(
                    substring(value FROM ':[^+-]*([+-])') || substring(value FROM ':[^+-]*[+-][0-9]{2}:?([0-9]{2})'),
                    '0'
                )::integer
            )
        ) AT TIME ZONE 'UTC'
END;

COMMENT ON FUNCTION elt.to_timestamp(text) IS
    'The text, an ISO date with or without a time, as a point in time; UTC if it has no offset, NULL if it is not one. Never fails.';
