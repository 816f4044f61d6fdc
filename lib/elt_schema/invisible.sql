-- elt.invisible: the characters that nobody sees, in one text: blanks of all kinds, and those without width.
--
--     SELECT btrim(E'\u00a0oz\u200b', elt.invisible());   -- oz
--
-- These are Unicode's White_Space and Default_Ignorable_Code_Point (BOM, zero width space, soft hyphen, marks of
-- direction), the separators U+001C to U+001F, and the empty braille pattern.  Left out are variation selectors and
-- tags, because people see what they do: they choose how an emoji looks.
-- The elt functions that read a text all trim these.  PostgreSQL reads the call as a constant.
-- Needs schema elt and PostgreSQL 15 or newer, and a database of encoding UTF8.

CREATE OR REPLACE FUNCTION elt.invisible()
RETURNS text
LANGUAGE sql
IMMUTABLE
PARALLEL SAFE
RETURN (
    E' \t\n\u000b\f\r\u001c\u001d\u001e\u001f\u0085\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180e'
    || E'\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u200e\u200f'
    || E'\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u202f\u205f\u2060\u2061\u2062\u2063\u2064\u2065'
    || E'\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\u2800\u3000\u3164\ufeff\uffa0'
);

COMMENT ON FUNCTION elt.invisible() IS
    'The characters that nobody sees: blanks of all kinds, and those without width. The functions that read a text trim them.';
