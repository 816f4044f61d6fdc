"""The commands `add` and `remove`: write the files of a job, list tables that no job loads, take a job out."""

from __future__ import annotations

import argparse
import re

from lib.cli.arguments import how_to_type
from lib.cli.console import Console
from lib.config.registry import JOB_NAME, JOB_NAME_BYTES, KEBOOLA_TABLE
from lib.config.settings import Settings
from lib.errors import SettingsError
from lib.extract.catalog import Catalog
from lib.run.plan import make_catalog, read_project
from lib.scaffold.job_files import Wish, new_job
from lib.scaffold.project_files import add_job, own_files, remove_job


def add(settings: Settings, console: Console, given: argparse.Namespace) -> int:
    """Write a job for a source table; without a table, list those that no job loads. Returns 0. Raises EltError."""
    registry = read_project(settings.root, may_be_empty=True)
    if given.table is not None and not KEBOOLA_TABLE.fullmatch(given.table):
        what_there_is = how_to_type("add", settings)
        raise SettingsError(f"a table is like in.c-bucket.table, not {given.table!r}; to list them: {what_there_is}")
    catalog = make_catalog(settings)
    if given.table is None:
        loaded = {job.load.extract.table for job in registry.jobs.values() if job.load}
        return _list(catalog, loaded, settings, console)
    wish = _wish(given)
    detail = catalog.detail(given.table)
    job = new_job(detail, wish)
    files = add_job(settings.root, job)
    rows = "" if detail.rows is None else f", {detail.rows:,} rows"
    console.text(f"{detail.id}: {len(detail.columns)} columns{rows}")
    for note in job.notes:
        console.warn(note)
    console.text("written:")
    for file in files:
        console.text(f"    {file.relative_to(settings.root)}")
    console.text(f"    elt_jobs.json: job {job.name}")
    console.text(f"\nLook at the scripts, then load it:\n\n    {how_to_type(f'run {job.name}', settings)}")
    return 0


def remove(settings: Settings, console: Console, name: str, *, is_sure: bool) -> int:
    """Take a job out of the project, and print what drops its tables. Asks first. Returns 0. Raises EltError."""
    registry = read_project(settings.root)
    registry.check_names([name])
    if not is_sure:
        console.text(f"takes job {name} and these files out of the project:")
        for file in own_files(settings.root, registry, name):
            console.text(f"    {file.relative_to(settings.root)}")
        refusal = f"nothing was removed: to take job {name} out without being asked, add --yes"
        if not console.asked("Remove them?", refusal):
            console.text("nothing was removed")
            return 0
    files, statements = remove_job(settings.root, name)
    console.text("removed:")
    for file in files:
        console.text(f"    {file.relative_to(settings.root)}")
    console.text(f"    elt_jobs.json: job {name}")
    if statements:
        console.text("\nIts tables stay in the database. To drop them, type in psql:\n")
        for statement in statements:
            console.text(f"    {statement}")
    return 0


def _list(catalog: Catalog, loaded: set[str], settings: Settings, console: Console) -> int:
    tables = sorted((table for table in catalog.tables() if table.id not in loaded), key=lambda table: table.id)
    if not tables:
        console.text("every table that the token can read is loaded by a job")
        return 0
    rows = [(*table.id.rpartition(".")[::2], table.rows, table.imported_at) for table in tables]
    console.table(("bucket", "table", "rows", "last import"), rows)
    console.text(f"\nTo load one: {how_to_type(f'add {tables[0].id}', settings)}")
    return 0


def _wish(given: argparse.Namespace) -> Wish:
    """What was typed. Raises SettingsError for options that do not fit together, and for a name that is none."""
    name = _name_of(given.table) if given.name is None else given.name
    if not JOB_NAME.fullmatch(name) or len(name) > JOB_NAME_BYTES:
        raise SettingsError(
            f"{name!r} is no name for a job: choose one with --name, [a-z][a-z0-9_]*, at most {JOB_NAME_BYTES} letters"
        )
    about_silver = [option for option in ("gold", "rename", "key") if getattr(given, option)]
    if given.bronze_only and about_silver:
        raise SettingsError(f"--{about_silver[0]} has no effect with --bronze-only: leave one of them out")
    renamed: dict[str, str] = {}
    for old, new in map(_pair, given.rename):
        if renamed.setdefault(old, new) != new:
            raise SettingsError(f"--rename gives {old!r} two names, {renamed[old]!r} and {new!r}")
    columns, key = _names("--columns", given.columns), _names("--key", given.key)
    return Wish(name, columns, renamed, key, given.gold, given.bronze_only)


def _names(option: str, text: str | None) -> tuple[str, ...]:
    """Names of columns; none if the option is not given."""
    names = () if text is None else tuple(text.split(","))
    if "" in names:
        raise SettingsError(f"{option} needs names with commas in between, such as a,b, not {text!r}")
    return names


def _name_of(table: str) -> str:
    """A name for the job: the last part of the table's id, made fit for a job; unchanged if nothing of it fits."""
    last = table.rpartition(".")[2]
    return re.sub(r"^[^a-z]+", "", re.sub(r"[^a-z0-9_]", "_", last.lower())) or last


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise SettingsError(f"--rename needs OLD=NEW, not {text!r}")
    return old, new
