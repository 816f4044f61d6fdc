"""elt_settings.toml: its meaning, what it must not contain, and the messages."""

from __future__ import annotations

import re
import sys
import tomllib
import zoneinfo
from datetime import UTC
from pathlib import Path

import pytest

from lib.config.secret_value import Secret
from lib.config.settings import (
    ROOT,
    Postgres,
    Settings,
    postgres_keywords,
    read_settings,
    require_keboola,
    require_postgres,
)
from lib.errors import SettingsError


def read(root: Path, text: str | bytes) -> Settings:
    (root / "elt_settings.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(root)


def refusal(root: Path, text: str | bytes) -> str:
    with pytest.raises(SettingsError) as caught:
        read(root, text)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_missing_file_says_nothing(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings(root=tmp_path)


def test_the_shipped_file_says_nothing_and_explains_every_key() -> None:
    text = (ROOT / "elt_settings.toml").read_text()
    assert tomllib.loads(text) == {"keboola": {}, "postgres": {}, "run": {}}
    keys = {
        "url",
        "wait_for_flow",
        "wait_minutes",
        "export_minutes",
        "host",
        "port",
        "dbname",
        "user",
        "sslmode",
        "service",
        "embedded",
        "parallel",
        "stage_minutes",
        "time_zone",
    } | {"report", "keep_changes"}
    assert set(re.findall(r"^# (\w+) = ", text, re.MULTILINE)) == keys


def test_the_shipped_examples_are_valid_once_uncommented(tmp_path: Path) -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", (ROOT / "elt_settings.toml").read_text(), flags=re.MULTILINE)
    assert "name two databases" in refusal(tmp_path, text)
    settings = read(tmp_path, re.sub(r"^(service|embedded) = .*$", "", text, flags=re.MULTILINE))
    assert settings.postgres == Postgres("db.example.com", 5432, "warehouse", "elt", "verify-full")
    assert (settings.keboola_url, settings.parallel, settings.time_zone) == ("https://connection.keboola.com", 4, "UTC")


def test_the_state_lies_below_the_root_and_the_root_is_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings().root == ROOT
    assert read(tmp_path, "").state == tmp_path / ".elt"


def test_what_the_file_names_becomes_psycopg2_keywords_and_nothing_else(tmp_path: Path) -> None:
    settings = read(tmp_path, '[postgres]\nhost = "/var/run/postgresql"\nport = 5433\n')
    assert postgres_keywords(settings) == {"host": "/var/run/postgresql", "port": 5433}
    assert postgres_keywords(read(tmp_path, '[postgres]\nservice = "dwh"')) == {"service": "dwh"}
    assert postgres_keywords(read(tmp_path, "[postgres]\nembedded = true")) == {}


@pytest.mark.parametrize(
    "written, meant",
    [
        ("https://connection.keboola.com", "https://connection.keboola.com"),
        ("https://connection.keboola.com/", "https://connection.keboola.com"),
        (
            "https://Connection.north-europe.azure.keboola.com/v2/storage",
            "https://connection.north-europe.azure.keboola.com",
        ),
        ("https://connection.keboola.com/v2/storage/", "https://connection.keboola.com"),
        ("http://127.0.0.1:8321", "http://127.0.0.1:8321"),
        ("http://localhost:1/", "http://localhost:1"),
        ("http://[::1]:8321", "http://[::1]:8321"),
    ],
)
def test_a_keboola_url_is_reduced_to_scheme_and_host(tmp_path: Path, written: str, meant: str) -> None:
    assert read(tmp_path, f'[keboola]\nurl = "{written}"').keboola_url == meant


@pytest.mark.parametrize(
    "written, message",
    [
        ("http://connection.keboola.com", "must begin with https://"),
        ("http://127.0.0.1.example.com", "must begin with https://"),
        ("ftp://connection.keboola.com", "must begin with https://"),
        ("connection.keboola.com", "is not a URL: write only scheme and host, such as https://connection.keboola.com"),
        ("", "is not a URL"),
        ("https://", "is not a URL"),
        ("https://[::1", "is not a URL"),
        ("https://a:99999", "is not a URL"),
        ("https://a b", "is not a URL"),
        ("https://a\\tb", "is not a URL"),
        ("https://connection.keboola.com/admin/projects/1", "has something after the host"),
        ("https://connection.keboola.com?x=1", "has something after the host"),
        ("https://me:hunter2@connection.keboola.com", "holds a token or a user"),
        ("https://connection.keboola.com/v2/storage?token=815-4711-hunter2abc", "holds a token or a user"),
        ("815-4711-hunter2abcdef", "holds a token or a user"),
    ],
)
def test_a_wrong_keboola_url_is_refused_without_showing_it(tmp_path: Path, written: str, message: str) -> None:
    text = refusal(tmp_path, f'\n[keboola]\nurl = "{written}"')
    assert text.startswith("elt_settings.toml:3: [keboola] url ") and message in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "line, message",
    [
        ("[postgres]\nhots = 'db'", "2: [postgres] hots is unknown; did you mean 'host'?"),
        ("[postgres]\ndatabase = 'db'", "2: [postgres] database is unknown; did you mean 'dbname'?"),
        (
            "[postgres]\nzzz = 1",
            "2: [postgres] zzz is unknown; known: host, port, dbname, user, sslmode, service, embedded",
        ),
        ("[keboola]\ndbname = 'x'", "2: [keboola] dbname is unknown here: it belongs under [postgres]"),
        ("host = 'x'", "1: host must stand below a line [postgres]"),
        ("[postgre]\nhost = 'x'", "1: section [postgre] is unknown; did you mean 'postgres'?"),
        ("[[postgres]]\nhost = 'x'", "1: postgres must be a section: a line [postgres] and its keys below it"),
        ("postgres = 'x'", "1: postgres must be a section"),
        ("postgres.hots = 'x'", "1: [postgres] hots is unknown"),
        ("[postgres]\nhost = ''", "2: [postgres] host is empty or has blanks"),
        ("[postgres]\nhost = ' db'", "2: [postgres] host is empty or has blanks"),
        ("[postgres]\nuser = 5", '2: [postgres] user must be text in quotes, such as "db.example.com", not a number'),
        ("[postgres]\nport = '5432'", "2: [postgres] port must be a whole number without quotes, not text"),
        ("[postgres]\nport = true", "2: [postgres] port must be a whole number without quotes, not true or false"),
        ("[postgres]\nport = 0", "2: [postgres] port must be 1 to 65535, not 0"),
        ("[postgres]\nport = 65536", "2: [postgres] port must be 1 to 65535, not 65536"),
        ("[postgres]\nembedded = 'true'", "2: [postgres] embedded must be true or false without quotes, not text"),
        ("[postgres]\nembedded = 1", "2: [postgres] embedded must be true or false without quotes, not a number"),
        ("[postgres]\nsslmode = 'verify_full'", "did you mean 'verify-full'?"),
        ("[run]\nparallel = 0", "2: [run] parallel must be 1 to 32, not 0"),
        ("[run]\nparallel = 33", "2: [run] parallel must be 1 to 32, not 33"),
        ("[run]\nstage_minutes = 0", "2: [run] stage_minutes must be 1 to 1440, not 0"),
        ("[run]\nparallel = 4.0", "2: [run] parallel must be a whole number without quotes, not a number with a point"),
        ("[run]\nparallel = true", "2: [run] parallel must be a whole number"),
        (
            "[run]\ntime_zone = 'Europe/Pragu'",
            "is not a known time zone: 'Europe/Pragu'; did you mean 'Europe/Prague'?",
        ),
        ("[run]\ntime_zone = 'Europe'", "2: [run] time_zone is not a known time zone: 'Europe'"),
        ("[run]\ntime_zone = '../UTC'", "2: [run] time_zone is not a known time zone"),
        ("[run]\ntime_zone = '/etc/localtime'", "2: [run] time_zone is not a known time zone"),
        ("[run]\ntime_zone = 1979-05-27", "2: [run] time_zone must be text in quotes"),
        ("[run]\ntimezone = 'UTC'", "2: [run] timezone is unknown; did you mean 'time_zone'?"),
    ],
)
def test_each_mistake_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    text = refusal(tmp_path, line)
    assert text.startswith("elt_settings.toml:") and message in text and len(text.splitlines()) == 1


@pytest.mark.parametrize("key", ["password", "PGPASSWORD", "passwd", "pwd", "secret", "token", "credentials"])
@pytest.mark.parametrize("section, name", [("postgres", "postgres"), ("keboola", "keboola"), ("run", "postgres")])
def test_a_secret_in_the_file_is_refused_with_the_command_that_sets_it(
    tmp_path: Path, section: str, name: str, key: str
) -> None:
    text = refusal(tmp_path, f'[{section}]\n{key} = "hunter2"')
    name = "keboola" if key == "token" else name
    assert "secrets never go into this file" in text and text.endswith(f"python main.py credentials set {name}")
    assert text.startswith("elt_settings.toml:2: ") and "hunter2" not in text


def test_a_secret_above_all_sections_is_refused_too(tmp_path: Path) -> None:
    assert refusal(tmp_path, 'token = "hunter2"').endswith("credentials set keboola")
    assert refusal(tmp_path, 'password = "hunter2"').endswith("credentials set postgres")


@pytest.mark.parametrize("key", ["host", "dbname", "user", "service"])
@pytest.mark.parametrize("value", ["postgresql://me:hunter2@db/x", "host=db password=hunter2"])
def test_a_connection_string_is_refused_without_showing_it(tmp_path: Path, key: str, value: str) -> None:
    text = refusal(tmp_path, f'[postgres]\n{key} = "{value}"')
    assert "not a connection string" in text and "hunter2" not in text


@pytest.mark.parametrize(
    "keys, message",
    [
        (
            'embedded = true\nhost = "x"\nport = "oops"',
            "2: [postgres] embedded and host, port name two databases",
        ),
        ('embedded = true\nservice = "x"', "2: [postgres] embedded and service name two databases"),
        ('dbname = "y"\nservice = "x"', "3: [postgres] service and dbname name two databases"),
    ],
)
def test_two_ways_to_name_a_database_are_one_too_many(tmp_path: Path, keys: str, message: str) -> None:
    assert message in refusal(tmp_path, f"[postgres]\n{keys}")


def test_embedded_false_changes_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, '[postgres]\nembedded = false\nhost = "x"').postgres == Postgres(host="x")


def test_several_mistakes_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = refusal(
        tmp_path, '[postgres]\nembedded = true\nport = "x"\nhots = 1\n[run]\nparallel = 99\n[keboola]\nurl = 5\n'
    )
    assert [line.split(": ")[0] for line in text.splitlines()] == [f"elt_settings.toml:{n}" for n in (2, 3, 4, 6, 8)]


def test_a_commented_line_is_not_where_the_mistake_is(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[postgres]\n# port = 1\nport = 0").startswith("elt_settings.toml:3:")


@pytest.mark.parametrize(
    "content, message",
    [
        (
            b"[postgres]\nhost = db\n",
            'elt_settings.toml:2: not valid TOML: Invalid value at column 8. Text needs quotes: host = "db"',
        ),
        (b"[postgres\n", "elt_settings.toml:1: not valid TOML"),
        (b"[postgres]\nport = 1\nport = 2\n", "elt_settings.toml:3: not valid TOML: Cannot overwrite a value"),
        (b'[postgres]\nhost = "db', "elt_settings.toml:2: not valid TOML"),
        (
            b"#\n[keboola]\n[run]\n[keboola]\n",
            "toml:4: not valid TOML: Cannot declare ('keboola',) twice at column 9. Put its keys below the [keboola] of"
            " line 2, and delete this one",
        ),
        (b"keboola.url = 'https://x'\n[keboola]\n", "toml:2: not valid TOML"),
        ("[postgres]".encode("utf-16"), "is not UTF-8 text: save it as UTF-8"),
        (b"[postgres]\nhost = 'sta\xedek'", "is not UTF-8 text: save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(tmp_path, content)


def test_a_line_with_another_mistake_is_not_told_to_use_quotes(tmp_path: Path) -> None:
    for line in "port = 1", 'host = "x"', "url = 1":
        text = refusal(tmp_path, f"[postgres]\n{line}\n{line}\n")
        assert re.search(r"^elt_settings.toml:3: not valid TOML: Cannot overwrite a value at column \d+$", text)


@pytest.mark.parametrize(
    "written, corrected",
    [
        ("[postgres]\nhost = 127.0.0.1", 'host = "127.0.0.1"'),
        ("[postgres]\r\nhost = 127.0.0.1   # here\r\n", 'host = "127.0.0.1"'),
        ("[postgres]\nhost = db.example.com", 'host = "db.example.com"'),
        ("[postgres]\nhost = /var/run/postgresql", 'host = "/var/run/postgresql"'),
        ("[postgres]\nhost = ::1", 'host = "::1"'),
        ("[postgres]\nhost = 10", 'host = "10"'),
        ("[postgres]\ndbname = 2026-01-01", 'dbname = "2026-01-01"'),
        ("[postgres]\ndbname = 12abc", 'dbname = "12abc"'),
        ("[postgres]\nuser = true", 'user = "true"'),
        ("[postgres]\nservice = inf", 'service = "inf"'),
        ("[postgres]\nsslmode = verify-full", 'sslmode = "verify-full"'),
        ("postgres.host = 127.0.0.1", 'postgres.host = "127.0.0.1"'),
        ("[run]\ntime_zone = Europe/Prague", 'time_zone = "Europe/Prague"'),
        ("[keboola]\nurl = https://connection.keboola.com", 'url = "https://connection.keboola.com"'),
    ],
)
def test_text_without_quotes_is_answered_with_the_corrected_line(tmp_path: Path, written: str, corrected: str) -> None:
    text = refusal(tmp_path, written)
    assert text.endswith(f": {corrected}") and "quotes" in text and len(text.splitlines()) == 1
    read(tmp_path, "\n".join([*written.splitlines()[:-1], corrected]))  # it is accepted


@pytest.mark.parametrize(
    "written, shown",
    [
        ("[keboola]\nurl = https://connection.keboola.com/?token=hunter2", 'url = "https://connection.keboola.com"'),
        ("[keboola]\nurl = 815-4711-hunter2abcdef", 'url = "https://connection.keboola.com"'),
        ("[keboola]\nurl = https://me:hunter2@connection.keboola.com", 'url = "https://connection.keboola.com"'),
        ("[postgres]\nhost = postgresql://me:hunter2@db/x", 'host = "db.example.com"'),
        ("[postgres]\nuser = elt password=hunter2", 'user = "elt"'),
        ("[postgres]\nuser = 815-4711-hunter2abcdef", 'user = "elt"'),
        ("[postgres]\npassword = hunter2", "set postgres"),
        ("[keboola]\nmy_secret = hunter2", "set keboola"),
        ("[postgres]\nhots = hunter2", 'Invalid value at column 8. Text needs quotes: hots = "..."'),
        ("[postgres]\nembedded = hunter2", "It must be true or false without quotes"),
        ("[run]\nparallel = hunter2", "It must be a whole number without quotes"),
        ("hunter2", "after a key"),
    ],
)
def test_text_without_quotes_that_may_be_a_secret_is_not_shown(tmp_path: Path, written: str, shown: str) -> None:
    text = refusal(tmp_path, written)
    assert shown in text and "hunter2" not in text


def test_a_byte_order_mark_and_windows_line_ends_are_harmless(tmp_path: Path) -> None:
    assert read(tmp_path, b'\xef\xbb\xbf[postgres]\r\nhost = "db"\r\n').postgres.host == "db"
    assert refusal(tmp_path, b"[postgres]\r\nport = 0\r\n").startswith("elt_settings.toml:2:")


def test_a_folder_in_the_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "elt_settings.toml").mkdir()
    with pytest.raises(SettingsError, match="elt_settings.toml cannot be read: Is a directory"):
        read_settings(tmp_path)


def test_a_machine_without_time_zone_data_says_what_to_install_but_needs_none_for_utc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tzdata", None)  # the package that Python falls back to
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert read(tmp_path, '[run]\ntime_zone = "UTC"').zone is UTC
        text = refusal(tmp_path, '[run]\ntime_zone = "Europe/Prague"')
    finally:
        zoneinfo.reset_tzpath()
    assert "this machine has no time zone data" in text and "apt-get install tzdata" in text


def test_the_zone_is_the_named_one(tmp_path: Path) -> None:
    assert str(read(tmp_path, '[run]\ntime_zone = "Europe/Prague"').zone) == "Europe/Prague"


@pytest.mark.parametrize("variable", ["PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"])
def test_libpqs_own_variables_name_a_database(tmp_path: Path, variable: str) -> None:
    settings = read(tmp_path, "")
    require_postgres(settings, {variable: "x"})
    with pytest.raises(SettingsError):
        require_postgres(settings, {variable: ""})


def test_nothing_named_offers_the_lines_to_write_and_the_demo(tmp_path: Path) -> None:
    settings = read(tmp_path, "[postgres]\nembedded = false\n")
    with pytest.raises(SettingsError) as caught:
        require_postgres(settings, {"PGUSER": "elt"})
    assert str(tmp_path / "elt_settings.toml") in str(caught.value) and "python main.py demo" in str(caught.value)
    lines = "".join(re.findall(r"^    (.*\n)", str(caught.value), re.MULTILINE))
    require_postgres(read(tmp_path, lines), {})

    with pytest.raises(SettingsError) as caught:
        require_keboola(settings)
    assert "no Keboola project is configured" in str(caught.value) and "python main.py demo" in str(caught.value)
    lines = "".join(re.findall(r"^    (.*\n)", str(caught.value), re.MULTILINE))
    assert require_keboola(read(tmp_path, lines)) == "https://connection.keboola.com"


@pytest.mark.parametrize("key", ['host = "x"', 'service = "x"', 'dbname = "x"', "embedded = true"])
def test_any_key_of_the_file_names_a_database(tmp_path: Path, key: str) -> None:
    require_postgres(read(tmp_path, f"[postgres]\n{key}"), {})


def test_settings_never_show_their_secrets(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, keboola_token=Secret("hunter2"), postgres_password=Secret("hunter2"))
    assert "hunter2" not in f"{settings} {settings!r}"


def test_a_flow_to_wait_for_is_a_component_and_an_id(tmp_path: Path) -> None:
    settings = read(tmp_path, '[keboola]\nwait_for_flow = "keboola.flow/01-ab"\nwait_minutes = 30')
    assert (settings.wait_for_flow, settings.wait_minutes) == ("keboola.flow/01-ab", 30)
    assert (read(tmp_path, "").wait_for_flow, read(tmp_path, "").wait_minutes) == (None, 120)


def test_an_export_may_take_an_hour_or_what_is_written(tmp_path: Path) -> None:
    assert read(tmp_path, "").export_minutes == 60
    assert read(tmp_path, "[keboola]\nexport_minutes = 90").export_minutes == 90
    assert "export_minutes must be 1 to 1440, not 0" in refusal(tmp_path, "[keboola]\nexport_minutes = 0")
    url = "https://connection.keboola.com/admin/projects/1/flows/123456?token=hunter2"
    for wrong in (
        "123456",
        '"123456"',
        f'"{url}"',
        '"keboola.flow/1/2"',
        '"keboola.ex-http/123456"',
        '"keboola.flow/"',
    ):
        text = refusal(tmp_path, f"[keboola]\nwait_for_flow = {wrong}")
        assert text.startswith('elt_settings.toml:2: [keboola] wait_for_flow must be "keboola.orchestrator/ID" or')
        assert "hunter2" not in text
    assert refusal(tmp_path, "[keboola]\nwait_for_flow = keboola.orchestrator/7").endswith('= "keboola.orchestrator/7"')
    assert "wait_minutes must be 1 to 1440, not 0" in refusal(tmp_path, "[keboola]\nwait_minutes = 0")


def test_changed_rows_are_kept_for_two_weeks_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    assert read(tmp_path, "").keep_changes == 14
    assert read(tmp_path, "[run]\nkeep_changes = 0").keep_changes == 0
    assert "keep_changes must be 0 to 1000, not -1" in refusal(tmp_path, "[run]\nkeep_changes = -1")
