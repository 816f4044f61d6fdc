"""Reads elt_settings.toml into one frozen Settings, or reports every mistake in it with file and line.

Secrets are not read here but in `secrets`. What [postgres] leaves out is left to libpq, which reads PGHOST, PGSERVICE
and its other variables itself.
"""

from __future__ import annotations

import os
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lib.config.secret_value import Secret
from lib.config.spelling import did_you_mean
from lib.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent.parent
FILE_NAME = "elt_settings.toml"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: any of these tells libpq where to go (PostgreSQL: libpq, environment variables)
NAMING_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")


@dataclass(frozen=True)
class Postgres:
    """Section [postgres] of elt_settings.toml. None means: libpq decides."""

    host: str | None = None
    port: int | None = None
    dbname: str | None = None
    user: str | None = None
    sslmode: str | None = None
    service: str | None = None
    embedded: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything that configures a run, except the jobs and the secrets."""

    #: the project's folder
    root: Path
    #: scheme and host only, such as https://connection.keboola.com
    keboola_url: str | None = None
    postgres: Postgres = Postgres()
    #: number of connections that stage rows at the same time
    parallel: int = 4
    #: how long the exports of one run may take, until their last row is staged
    stage_minutes: int = 360
    #: IANA name; used for times that are printed and for today's date; stored times are UTC
    time_zone: str = "UTC"
    #: whether each run writes the page
    report: bool = False
    #: for how many published runs changed rows are kept; 0: only counts
    keep_changes: int = 14
    #: component and id, such as keboola.orchestrator/123456: a run of all jobs first waits until this flow has ended
    wait_for_flow: str | None = None
    #: how long it waits at most
    wait_minutes: int = 120
    #: how long one export of a table may take in Keboola
    export_minutes: int = 60
    #: both secrets are never read from the file; only the demo and tests set them here
    keboola_token: Secret | None = None
    postgres_password: Secret | None = None
    #: relative to root; the demo uses another one
    state_folder: str = ".elt"

    @property
    def state(self) -> Path:
        """The folder for local files of the project (secrets, embedded PostgreSQL); git ignores it."""
        return self.root / self.state_folder

    @property
    def zone(self) -> tzinfo:
        """The time zone as an object. "UTC" works even without time zone data on the machine."""
        return UTC if self.time_zone == "UTC" else zoneinfo.ZoneInfo(self.time_zone)


def read_settings(root: Path = ROOT) -> Settings:
    """Read root/elt_settings.toml. A missing or empty file gives the defaults.

    Raises SettingsError with every mistake, one per line, each with file:line.
    """
    path = root / FILE_NAME
    text = _text_of(path)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_syntax_message(str(error), text)) from None
    places = _places(text)
    lines = text.splitlines()
    mistakes: list[tuple[int, str]] = []
    values: dict[str, Any] = {}
    for section, keys in found.items():
        if section not in _SECTIONS or not isinstance(keys, dict):
            mistakes.append((places.get((section, ""), 1), _unknown_section(section, keys)))
            continue
        for key, value in keys.items():
            try:
                if key not in _SECTIONS[section]:
                    raise ValueError(_unknown_key(section, key))
                values[key] = _SECTIONS[section][key](value)
            except ValueError as error:
                line = places.get((section, key)) or places.get((section, ""), 1)
                corrected = "" if isinstance(value, str) or key not in _EXAMPLES else _quoted(lines[line - 1])
                mistakes.append((line, f"[{section}] {key} {error}" + (f": {corrected}" if corrected else "")))
    mistakes += _conflicts(found.get("postgres"), places)
    if mistakes:
        raise SettingsError("\n".join(f"{FILE_NAME}:{line}: {text}" for line, text in sorted(mistakes)))
    postgres = Postgres(**{key: values[key] for key in _SECTIONS["postgres"] if key in values})
    waiting = ("wait_for_flow", "wait_minutes", "export_minutes")
    others = {key: values[key] for key in (*waiting, *_SECTIONS["run"]) if key in values}
    return Settings(root=root, keboola_url=values.get("url"), postgres=postgres, **others)


def require_keboola(settings: Settings) -> str:
    """The URL of Keboola. Raises SettingsError with the lines to write if none is configured."""
    if settings.keboola_url:
        return settings.keboola_url
    raise SettingsError(
        f"no Keboola project is configured\nWrite into {settings.root / FILE_NAME}:\n\n"
        '    [keboola]\n    url = "https://connection.keboola.com"\n\n'
        "(the host that the browser shows when you work in the project). "
        "To look around with nothing set up: python main.py demo"
    )


def require_postgres(settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
    """Check that a database is configured. Raises SettingsError with the lines to write if none is.

    Without this check, libpq would silently use a local server and a database named like the user.
    """
    if settings.postgres != Postgres() or any(environ.get(name) for name in NAMING_VARIABLES):
        return
    raise SettingsError(
        f"no PostgreSQL is configured\nWrite into {settings.root / FILE_NAME}:\n\n"
        '    [postgres]\n    host = "db.example.com"\n    dbname = "warehouse"\n    user = "elt"\n\n'
        "or, in the same section, `embedded = true` for a PostgreSQL that this project runs itself,"
        " or set PGHOST or PGSERVICE as for psql.\nTo look around with nothing set up: python main.py demo"
    )


def postgres_keywords(settings: Settings) -> dict[str, str | int]:
    """The psycopg2 keywords that elt_settings.toml sets, without a password; {} for an embedded server.

    libpq adds what is missing from the environment, so {} means `psycopg2.connect("")`.
    """
    names = ("host", "port", "dbname", "user", "sslmode", "service")
    named = {name: getattr(settings.postgres, name) for name in names}
    return {name: value for name, value in named.items() if value is not None}


# Each of the following functions takes the value from the TOML file and returns it checked. It raises ValueError whose
# text continues the message "[section] key ..".


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'must be text in quotes, such as "db.example.com", not {_kind(value)}')
    if not value.strip() or value != value.strip() or not value.isprintable():
        raise ValueError("is empty or has blanks around it: give a value, or put a # before the line")
    if "://" in value or re.search(r"password\s*=", value, re.IGNORECASE):
        raise ValueError("must be one plain value, not a connection string: host, port, dbname and user are keys")
    return value


def _integer(low: int, high: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"must be a whole number without quotes, not {_kind(value)}")
        if not low <= value <= high:
            raise ValueError(f"must be {low} to {high}, not {value}")
        return value

    return check


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false without quotes, not {_kind(value)}")
    return value


def _sslmode(value: object) -> str:
    mode = _string(value)
    if mode not in SSL_MODES:
        raise ValueError(f"must be one of {', '.join(SSL_MODES)}, not {mode!r}{did_you_mean(mode, SSL_MODES)}")
    return mode


def _time_zone(value: object) -> str:
    name = _string(value)
    if name == "UTC":
        return name
    try:
        zoneinfo.ZoneInfo(name)
    # OSError: "Europe" for example is a folder in the tzdata package
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        if not known:
            raise ValueError(
                f"cannot be {name!r}: this machine has no time zone data. Install it (apt-get install tzdata, or "
                'pip install tzdata) or write "UTC"'
            ) from None
        hint = did_you_mean(name, known) or ' (IANA names look like "Europe/Prague")'
        raise ValueError(f"is not a known time zone: {name!r}{hint}") from None
    return name


def _keboola_url(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f'must be text in quotes, such as "https://connection.keboola.com", not {_kind(value)}')
    example = "write only scheme and host, such as https://connection.keboola.com"
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"is not a URL: {example}") from None
    # None of these messages repeats the value: it may hold a secret.
    if _TOKEN.search(value) or "@" in value:
        raise ValueError(
            f"holds a token or a user: {example}. The token is set with: python main.py credentials set keboola"
        )
    if not value.isprintable() or " " in value or not host:
        raise ValueError(f"is not a URL: {example}")
    loopback = host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host)
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("must begin with https:// (http:// is for this machine only: localhost, 127.0.0.1)")
    if parts.query or parts.fragment or parts.path.rstrip("/") not in ("", "/v2/storage"):
        raise ValueError(f"has something after the host: {example}")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port else "")


def _flow(value: object) -> str:
    # the value is not repeated: it may hold a token
    if not isinstance(value, str) or not re.fullmatch(r"keboola\.(orchestrator|flow)/[\w-]+", value, re.ASCII):
        raise ValueError(
            'must be "keboola.orchestrator/ID" or "keboola.flow/ID"; the ID is the number at the end of the flow\'s URL'
            " in the browser"
        )
    return value


_SECTIONS: dict[str, dict[str, Callable[[object], object]]] = {
    "keboola": {
        "url": _keboola_url,
        "wait_for_flow": _flow,
        "wait_minutes": _integer(1, 1440),
        "export_minutes": _integer(1, 1440),
    },
    "postgres": {
        "host": _string,
        "port": _integer(1, 65535),
        "dbname": _string,
        "user": _string,
        "sslmode": _sslmode,
        "service": _string,
        "embedded": _boolean,
    },
    "run": {
        "parallel": _integer(1, 32),
        "stage_minutes": _integer(1, 1440),
        "time_zone": _time_zone,
        "report": _boolean,
        "keep_changes": _integer(0, 1000),
    },
}


def _conflicts(postgres: object, places: dict[tuple[str, str], int]) -> list[tuple[int, str]]:
    """Mistakes where [postgres] names a database in more than one way: service, embedded, or host and the like."""
    if not isinstance(postgres, dict):
        return []
    others = [key for key in ("host", "port", "dbname", "user", "sslmode") if key in postgres]
    way = "service"
    if postgres.get("embedded"):
        way, others = "embedded", [*others, *(["service"] if "service" in postgres else [])]
    if way not in postgres or not others:
        return []
    text = f"[postgres] {way} and {', '.join(others)} name two databases: keep one way, put a # before the other"
    return [(places.get(("postgres", way)) or places.get(("postgres", ""), 1), text)]


def _unknown_key(section: str, key: str) -> str:
    if re.search(_SECRET, key, re.IGNORECASE):
        name = "keboola" if section == "keboola" or "token" in key.lower() else "postgres"
        return (
            "must not be here: secrets never go into this file."
            f" Remove the line and type: python main.py credentials set {name}"
        )
    home = [other for other, keys in _SECTIONS.items() if key in keys]
    if home:
        return f"is unknown here: it belongs under [{home[0]}]"
    if key == "database":
        return "is unknown; did you mean 'dbname'?"
    known = _SECTIONS[section]
    return "is unknown" + (did_you_mean(key, known) or f"; known: {', '.join(known)}")


def _unknown_section(section: str, keys: object) -> str:
    home = [name for name, known in _SECTIONS.items() if section in known]
    if section in _SECTIONS:
        return f"{section} must be a section: a line [{section}] and its keys below it"
    if home:
        return f"{section} must stand below a line [{home[0]}]"
    if not isinstance(keys, dict) and re.search(_SECRET, section, re.IGNORECASE):
        return f"{section} {_unknown_key('', section)}"
    hint = did_you_mean(section, _SECTIONS) or f"; known: {', '.join(f'[{name}]' for name in _SECTIONS)}"
    return f"{f'section [{section}]' if isinstance(keys, dict) else section} is unknown{hint}"


def _kind(value: object) -> str:
    kinds = {
        bool: "true or false",
        int: "a number",
        float: "a number with a point",
        str: "text",
        list: "a list",
        dict: "a section",
    }
    return kinds.get(type(value), "a date or time")


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def _syntax_message(message: str, text: str) -> str:
    """tomllib's message, such as `Invalid value (at line 3, column 8)`, as file:line with the usual cause.

    The usual cause is text without quotes. For an IP address tomllib says "Expected newline": it has read a number.
    """
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    line = int(place[1]) if place else text.count("\n") + 1
    problem = message[: place.start()] + f" at column {place[2]}" if place else message
    section, key = next((name for name, number in _places(text).items() if number == line), ("", ""))
    if re.search(_SECRET, key, re.IGNORECASE):
        return f"{FILE_NAME}:{line}: [{section}] {key} {_unknown_key(section, key)}"
    hint = ""
    twice = re.match(r"Cannot declare \('([\w-]+)',\) twice", message)
    if twice and (first := _places(text).get((twice[1], ""))):
        hint = f". Put its keys below the [{twice[1]}] of line {first}, and delete this one"
    elif not re.match("Invalid value|Invalid date|Expected newline", message):
        pass
    elif key in _SECTIONS.get(section, {}) and key not in _EXAMPLES:
        hint = f". It must be {'true or false' if key == 'embedded' else 'a whole number'} without quotes"
    elif corrected := _quoted("".join(text.split("\n")[line - 1 : line])):
        hint = f". Text needs quotes: {corrected}"
    return f"{FILE_NAME}:{line}: not valid TOML: {problem}{hint}"


def _quoted(line: str) -> str:
    """For a line whose text is not in quotes: the corrected line. Empty for any other line.

    The value may hold a secret. It is repeated only for a known key, and only if it is plainly a name, a number, an
    address or a path.
    """
    pair = _PAIR.match(line)
    key = pair[1].rpartition(".")[2] if pair else ""
    if not pair or pair[2].startswith(('"', "'", "[", "{")):
        return ""
    value, example = pair[2], _EXAMPLES.get(key, "...")
    is_plain = re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?/?" if key == "url" else r"[\w./+-]+|[0-9a-fA-F:]+", value)
    shown = value if key in _EXAMPLES and is_plain and not _TOKEN.search(value) else example
    return f'{pair[1]} = "{shown}"'


#: key and value of one line, without its comment
_PAIR = re.compile(r"\s*([\w.-]+)\s*=\s*(.*?)\s*(?:#.*)?$")
_SECRET = "pass|pwd|token|secret|credential"
#: looks like a Storage API token
_TOKEN = re.compile(r"\d+-\d+-\w{8}")
#: for each key with text an example, shown where the value itself must not be
_EXAMPLES = {
    "url": "https://connection.keboola.com",
    "wait_for_flow": "keboola.orchestrator/123456",
    "host": "db.example.com",
    "dbname": "warehouse",
    "user": "elt",
    "sslmode": "verify-full",
    "service": "warehouse",
    "time_zone": "Europe/Prague",
}


def _places(text: str) -> dict[tuple[str, str], int]:
    """(section, key) -> line; a section's own line is (section, "").

    tomllib keeps no positions. This simple reading of the lines is exact enough for a message.
    """
    places: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"""\s*\[+\s*["']?([^\]"']*?)["']?\s*\]""", line):
            section = header[1]
            places.setdefault((section, ""), number)
        elif pair := re.match(r"""\s*["']?([\w-]+)["']?\s*(?:\.\s*["']?([\w-]+)["']?\s*)?=""", line):
            key = (section, pair[1]) if section else (pair[1], pair[2] or "")
            places.setdefault(key, number)
    return places
