-- elt.to_line: a text of one line: elt.to_text with a blank for each line break, so that a CSV file has a line per row.
--
--     SELECT elt.to_line(E' two\nlines ');   -- two lines
--
-- Line breaks are LF, VT, FF, CR, CR LF as one, and those of Unicode: NEL, LS, PS.
-- Bound to PostgreSQL's own functions when it is created, as elt.to_number is.  Needs elt.to_text.

CREATE OR REPLACE FUNCTION elt.to_line(value text)
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN nullif(
    btrim(regexp_replace(value, '\r\n|[\n\v\f\r\u0085\u2028\u2029]', ' ', 'g'), E' \t\r\n'),
    ''
);

COMMENT ON FUNCTION elt.to_line(text) IS
    'A text of one line: a blank for each line break, none around it; NULL where nothing is left.';
