"""The functions of schema elt that read a text: they trim what nobody sees, and return what they read or NULL. They
never fail.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection

from lib.elt_schema.installation import install
from lib.postgres.embedded.server import Server
from tests.support import oracle
from tests.support.databases import fresh_database, on, sql
from tests.support.oracle import INVISIBLE

INTEGERS = {
    "12": 12,
    " 12\r\n": 12,
    "-0012": -12,
    "+7": 7,
    "12.0": 12,
    "12.": 12,
    "1.0E+2": 100,
    "12.5": None,
    "0" * 30 + "12." + "0" * 40: 12,
    "1200e-0002": 12,
    "0" * 990 + "1": 1,
    "1e18": 10**18,
    "1e99": None,
    "1e1000": None,
    "0" * 1000 + "1": None,
    "9223372036854775807": 9223372036854775807,
    "9223372036854775808": None,
    "-9223372036854775808": -9223372036854775808,
    "-9223372036854775809": None,
    "1e19": None,
    "12345678901234567890": None,
    "": None,
    " ": None,
    "1,000": None,
    "0x10": None,
    "1_000": None,
    "NaN": None,
    "٣": None,
    "12 34": None,
}
NUMBERS = {
    "5." + "0" * 31: "5",
    "0" * 30 + "12": "12",
    "-" + "0" * 30 + "1.50": "-1.5",
    "3.14159265358979323846264338327950288": "3.14159265358979323846264338327950288",
    "." + "0" * 40 + "1": "0." + "0" * 40 + "1",
    "1e-100": "0." + "0" * 99 + "1",
    "9" * 18 + ".99": "9" * 18 + ".99",
    "1e17": "1" + "0" * 17,
    "1" + "0" * 20 + "e-3": "1" + "0" * 17,
    "0e99": "0",
    "1e+017": "1" + "0" * 17,
    "1" + "0" * 18: None,
    "-1" + "0" * 18: None,
    "9" * 19: None,
    "1e18": None,
    "0.00001e23": None,
    "1e99": None,
    "1e100": None,
    "1e1000": None,
    "1e-1000": None,
    "1" * 131072: None,
    "1e999999999999": None,
    "0" * 20000 + "." + "0" * 20000: None,
}
DATES = {
    "2026-01-31": "2026-01-31",
    " 2026-01-31\n": "2026-01-31",
    "0001-01-01": "0001-01-01",
    "9999-12-31": "9999-12-31",
    "2024-02-29": "2024-02-29",
    "2000-02-29": "2000-02-29",
    "1900-02-29": None,
    "2026-02-29": None,
    "2026-04-31": None,
    "2026-13-01": None,
    "2026-00-10": None,
    "2026-01-00": None,
    "0000-01-01": None,
    "2026-1-31": None,
    "31.01.2026": None,
    "01/31/2026": None,
    "20260131": None,
    "2026-01-31 10:00": None,
    "infinity": None,
    "today": None,
    "٢٠٢٦-01-31": None,
    "": None,
}
TIMESTAMPS = {
    "2026-01-31": "2026-01-31 00:00:00+00",
    "2026-01-31 10:20": "2026-01-31 10:20:00+00",
    "2026-01-31T10:20:30": "2026-01-31 10:20:30+00",
    "2026-01-31T10:20:30Z": "2026-01-31 10:20:30+00",
    "2026-01-31T10:20:30.5+01:00": "2026-01-31 09:20:30.5+00",
    "2026-01-31 10:20:30-0330": "2026-01-31 13:50:30+00",
    "2026-01-31 10:20:30 +02": "2026-01-31 08:20:30+00",
    " 2026-01-31T00:10+00:30 ": "2026-01-30 23:40:00+00",
    "2026-01-31T23:59:59.9999999Z": "2026-01-31 23:59:59.999999+00",
    "2026-01-31T10:20:60": None,
    "2026-01-31T24:00": None,
    "2026-01-31T10:60": None,
    "2026-01-31T10": None,
    "2026-01-31T10:20+16": None,
    "2026-01-31T10:20 CET": None,
    "2026-02-30T10:20": None,
    "2026-01-31T10:20:30.": None,
    "2026-01-31-10:20": None,
    "now": None,
    "": None,
}


@pytest.fixture(scope="module", params=on(16, 18), ids=lambda version: f"postgresql_{version}")
def connection(request: pytest.FixtureRequest, servers: Mapping[int, Server]) -> Iterator[Connection]:
    with fresh_database(servers[request.param]) as database:
        opened = database.connect()
        install(opened)
        # a function must not depend on these
        sql(opened, "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601'")
        yield opened


@pytest.mark.parametrize(
    "function, texts",
    [("to_integer", INTEGERS), ("to_number", NUMBERS), ("to_date", DATES), ("to_timestamp", TIMESTAMPS)],
)
def test_a_text_is_read_or_null(connection: Connection, function: str, texts: Mapping[str, object]) -> None:
    shown = {
        "to_integer": "{}",
        "to_number": "{}::text",
        "to_date": "to_char({}, 'YYYY-MM-DD')",
        "to_timestamp": "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || "
        "rtrim(to_char({} AT TIME ZONE 'UTC', '.US'), '.0') || '+00'",
    }[function].replace("{}", f"elt.{function}(text)")
    assert dict(sql(connection, f"SELECT text, {shown} FROM unnest(%s) AS text", [*texts])) == texts
    assert sql(connection, f"SELECT elt.{function}(NULL)") == [(None,)]


def test_the_calendar_is_that_of_postgresql(connection: Connection) -> None:
    if connection.server_version < 160000:
        return  # there is nothing to compare with: pg_input_is_valid is new in 16
    wrong = sql(
        connection,
        """
        SET DateStyle = 'ISO, YMD';
        SELECT text, elt.to_date(text)
        FROM generate_series(1, 9999, 101) AS year
        CROSS JOIN generate_series(0, 13) AS month
        CROSS JOIN generate_series(0, 32) AS day
        CROSS JOIN to_char(year, 'FM0000"-"') AS years
        CROSS JOIN LATERAL (SELECT years || to_char(month, 'FM00"-"') || to_char(day, 'FM00') AS text) AS dates
        WHERE pg_input_is_valid(text, 'date') <> (elt.to_date(text) IS NOT NULL)
            OR CASE WHEN pg_input_is_valid(text, 'date') THEN text::date <> elt.to_date(text) END
        LIMIT 3
        """,
    )
    assert wrong == []


#: one text that each function reads
READ = {
    "to_text": "x y",
    "to_key": "x y",
    "to_line": "x y",
    "to_number": "-1.5",
    "to_integer": "-7",
    "to_date": "2026-01-31",
    "to_timestamp": "2026-01-31T10:20:30.5+01:00",
}


@pytest.mark.parametrize("function", READ)
def test_characters_that_nobody_sees_are_trimmed_wherever_a_text_is_read(connection: Connection, function: str) -> None:
    texts = [READ[function]]
    texts += [READ[function] + letter for letter in INVISIBLE] + [letter + READ[function] for letter in INVISIBLE]
    texts += [INVISIBLE + READ[function] + INVISIBLE]
    read = sql(connection, f"SELECT DISTINCT elt.{function}(text)::text FROM unnest(%s) AS text", texts)
    assert len(read) == 1 and read != [(None,)]
    nothing = ["", INVISIBLE, *INVISIBLE]
    assert sql(connection, f"SELECT DISTINCT elt.{function}(text)::text FROM unnest(%s) AS text", nothing) == [(None,)]


@pytest.mark.parametrize("function", ["to_text", "to_key", "to_line"])
def test_a_character_that_people_see_is_kept(connection: Connection, function: str) -> None:
    """So are those that choose how the one before them looks, and invisible ones inside."""
    ends = '!"A~\x7f\x80é\xb7ž•中🦊'
    texts = [*ends, *(f"{one}{two}" for one in ends for two in ends), "❤\ufe0f", "\U0001f3f4\U000e0067\U000e007f"]
    texts += [f"{one} \u200b\u00a0{two}" for one in ends for two in ends]
    assert dict(sql(connection, f"SELECT text, elt.{function}(text) FROM unnest(%s) AS text", texts)) == {
        text: text for text in texts
    }
    codes = [code for code in range(1, 0x10000) if not 0xD800 <= code < 0xE000]
    gone = sql(connection, f"SELECT code FROM unnest(%s) AS code WHERE elt.{function}(chr(code)) IS NULL", codes)
    assert {chr(code) for (code,) in gone} == set(INVISIBLE) | set("\n\v\f\r\x85\u2028\u2029")


def number_texts(dice: random.Random) -> Iterator[str]:
    """Numbers of all lengths, in all ways to write one, and some texts that are none."""
    for _ in range(3000):
        digits = ["".join(dice.choices("0123456789", k=dice.choice([0, 1, 2, 17, 18, 19, 20]))) for _ in range(2)]
        point, zeros = dice.choice(["", ".", "."]), ["0" * dice.choice([0, 0, 1, 30]) for _ in range(2)]
        exponent = dice.choice(["", "", "e0", "E+2", "e-3", "e17", "e018", "e-99", "e999", "e1000", "e"])
        sides = dice.choices(["", "", "", " ", "\u00a0", "\u200b"], k=2)
        yield "".join([sides[0], dice.choice(["", "", "-", "+"]), zeros[0], digits[0]]) + (
            point + (digits[1] + zeros[1] if point else "") + exponent + sides[1]
        )


def test_numbers_and_integers_follow_one_rule_however_they_are_written(connection: Connection) -> None:
    texts = [*number_texts(random.Random(7))]
    read = sql(connection, "SELECT text, elt.to_number(text), elt.to_integer(text) FROM unnest(%s) AS text", texts)
    for text, number, integer in read:
        assert number == oracle.number_of(text), text
        value = oracle.value_of(text)
        is_whole = value is not None and value == value.to_integral_value() and -(2**63) <= value < 2**63
        assert integer == (int(value) if is_whole else None), text


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    texts=st.lists(
        st.from_regex(r"[ +-]?[0-9]{0,20}\.?[0-9]{0,2}([eE][+-]?[0-9]{1,3})?", fullmatch=True)
        | st.from_regex(
            r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{0,10})?)?)?(Z|[+-][0-9:]{0,5})?",
            fullmatch=True,
        )
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        min_size=20,
    )
)
def test_no_text_makes_them_fail(connection: Connection, texts: list[str]) -> None:
    rows = sql(
        connection,
        "SELECT text, elt.to_integer(text)::text, elt.to_date(text)::text, elt.to_timestamp(text)::text,"
        " elt.to_number(text), elt.to_text(text), elt.to_key(text), elt.to_line(text) FROM unnest(%s) AS text",
        texts,
    )
    assert len(rows) == len(texts)


@pytest.mark.parametrize("text", ["text", "elt.to_text(text)", "substr(text, 1, 10)"])
@pytest.mark.parametrize("function", READ)
def test_they_are_inlined(connection: Connection, function: str, text: str) -> None:
    """A function that is called for each row is several times slower."""
    plan = sql(connection, f"EXPLAIN (VERBOSE) SELECT elt.{function}({text}) FROM (SELECT 'x' || random()) AS t (text)")
    assert "elt." not in str(plan)
