"""Scripts as texts, and the statements that they consist of."""

from __future__ import annotations

from pathlib import Path

from lib.config.jobs import Script
from lib.transform.statements import Statement


def script(text: str, path: str = "silver/x.sql") -> Script:
    """A script as the registry would read it."""
    return Script(path, path.partition("/")[0], Path("sql_scripts", path), text)


#: a script -> its statements
SPLIT = {
    "": [],
    "  \n-- only\n/* comments */\n": [],
    ";;\n ; ": [],
    "SELECT 1": [Statement("SELECT 1", 1)],
    "SELECT 1;": [Statement("SELECT 1", 1)],
    "\n\n  SELECT 1;\n-- between\nSELECT\n2;": [Statement("SELECT 1", 3), Statement("SELECT\n2", 5)],
    "SELECT 1 -- the end; really\n": [Statement("SELECT 1 -- the end; really", 1)],
    "SELECT ';', \"a;b\", $$;$$, $x$ $$;$y$ $x$; SELECT 2": [
        Statement("SELECT ';', \"a;b\", $$;$$, $x$ $$;$y$ $x$", 1),
        Statement("SELECT 2", 1),
    ],
    "SELECT 'it''s;', E'it\\'s;', E'\\\\'; SELECT 2": [
        Statement("SELECT 'it''s;', E'it\\'s;', E'\\\\'", 1),
        Statement("SELECT 2", 1),
    ],
    "/* a /* nested; */ b; */ SELECT 1 /* ; */;": [Statement("SELECT 1 /* ; */", 1)],
    "SELECT a$b$ FROM t; SELECT $b$;": [Statement("SELECT a$b$ FROM t", 1), Statement("SELECT $b$;", 1)],
    "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3": [
        Statement("CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", 1),
        Statement("SELECT 3", 1),
    ],
    "SELECT 'never ends; SELECT 2;": [Statement("SELECT 'never ends; SELECT 2;", 1)],
}

ROUTINE = """CREATE OR REPLACE FUNCTION f(x int) RETURNS int LANGUAGE sql
BEGIN ATOMIC
    SELECT 1;
    SELECT CASE WHEN x > 1 THEN CASE x WHEN 2 THEN 3 END ELSE 4 END;
END;
SELECT f(1);
create procedure p() language sql begin atomic select 1; end; SELECT 2;
CREATE TABLE begin_here ("case" int, "end" int); SELECT CASE WHEN true THEN 1 END; SELECT 4;
CREATE TABLE function (begin int); SELECT 5;
CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2'; SELECT 6;
CREATE FUNCTION h("begin" int DEFAULT (CASE WHEN true THEN 1 END)) RETURNS int LANGUAGE sql RETURN 7; SELECT 8;
"""
