"""Writes a new job into the project, or takes one out: all of it or nothing."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lib.config.files import replace_file
from lib.config.jobs import LAYERS, Job, Registry, Script
from lib.errors import JobConfigError, SettingsError
from lib.run.plan import read_project
from lib.scaffold.job_files import NewJob
from lib.scaffold.registry_text import with_job, without_job
from lib.transform.references import references
from lib.transform.statements import created_by, statements

REGISTRY = "elt_jobs.json"
#: what a script makes, in the order in which it can be dropped
KINDS = ("view", "materialized view", "table", "function", "procedure", "type", "domain", "sequence")


def add_job(root: Path, job: NewJob) -> list[Path]:
    """Write the scripts and the registry entry. Returns the files. Raises SettingsError if something is there already.

    If the project would not be valid afterwards, everything is as before.
    """
    try:
        with _alone(root):
            return _add(root, job)
    except (OSError, JobConfigError) as error:
        reason = f"{error.filename or REGISTRY}: {error.strerror}" if isinstance(error, OSError) else error
        raise SettingsError(f"nothing was written: {reason}") from None


def _add(root: Path, job: NewJob) -> list[Path]:
    files = {root / "sql_scripts" / path: text for path, text in job.scripts.items()}
    registry = read_project(root, may_be_empty=True)
    there = [f"job {job.name} in {REGISTRY}"] if job.name in registry.jobs else []
    there += [str(file.relative_to(root)) for file in files if file.exists()]
    relations = {f"{layer}.{job.name}" for layer in LAYERS if f"{layer}/{job.name}.sql" in job.scripts}
    there += [
        f"{relation} of sql_scripts/{script.path}"
        for other in registry.jobs.values()
        for script in other.transform
        for relation in sorted(relations & {made for _, made in _made(script)})
        if root / "sql_scripts" / script.path not in files
    ]
    if there:
        raise SettingsError(f"nothing was written, because this is there already: {', '.join(there)}. Use --name")
    before = _registry_text(root)
    written: list[Path] = []
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as opened:
                written.append(file)
                opened.write(text)
        replace_file(root / REGISTRY, with_job(before, job.name, job.entry))
        read_project(root)
    except BaseException:
        for file in written:
            with suppress(OSError):
                file.unlink()
        if _registry_text(root) != before:
            replace_file(root / REGISTRY, before)
        raise
    return written


def remove_job(root: Path, name: str) -> tuple[list[Path], list[str]]:
    """Take a job and the scripts that only it uses out of the project.

    Returns the deleted files, and the statements that drop what stays in the database. Raises SettingsError if another
    job depends on it, JobConfigError for a project with mistakes.
    """
    try:
        with _alone(root):
            return _remove(root, name)
    except OSError as error:
        raise SettingsError(f"nothing was removed: {root / REGISTRY} cannot be written: {error.strerror}") from None


def _remove(root: Path, name: str) -> tuple[list[Path], list[str]]:
    registry = read_project(root)
    registry.check_names([name])
    job = registry.jobs[name]
    if dependants := [other.name for other in registry.jobs.values() if name in other.depends_on]:
        raise SettingsError(
            f"nothing was removed: depends_on of {' and '.join(dependants)} names {name}; take it out there first"
        )
    files = own_files(root, registry, name)
    statements_to_type = drop_statements(job, [other for other in registry.jobs.values() if other.name != name])
    replace_file(root / REGISTRY, without_job(_registry_text(root), name))
    for place, file in enumerate(files):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            left = ", ".join(map(str, files[place:]))
            raise SettingsError(
                f"job {name} is gone from {REGISTRY}, but {file} cannot be deleted: {error.strerror}. Delete by hand: "
                + left
            ) from None
    return files, statements_to_type


def own_files(root: Path, registry: Registry, name: str) -> list[Path]:
    """The scripts that only this job uses, a query of its source included."""
    used = {job.name: [script.path for script in job.scripts] for job in registry.jobs.values()}
    for job in registry.jobs.values():
        if job.load and job.load.extract.query:
            used[job.name].append(job.load.extract.table)
    shared = {path for other, paths in used.items() if other != name for path in paths}
    return [root / "sql_scripts" / path for path in used[name] if path not in shared]


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait until no other `add` or `remove` changes the registry, then keep it from the others. Raises OSError.

    The lock is on the file, and a change replaces the file: who gets the lock of an old one takes that of the new one.
    """
    path = root / REGISTRY
    while True:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def _registry_text(root: Path) -> str:
    """The text with the line ends that it has."""
    return (root / REGISTRY).read_bytes().decode("utf-8")


def drop_statements(job: Job, others: list[Job]) -> list[str]:
    """What drops the tables and views that only this job makes: views first, and each before what it reads.

    Last comes what takes its rows out of a shared table: without a run, that table may not be there.
    """
    kept = {made for other in others for script in other.scripts for _, made in _made(script)}
    named = {
        f"{schema}.{name}"
        for other in others
        for script in other.scripts
        for schema, name in references(script.text).all
    }
    found: dict[str, tuple[str, Script]] = {}
    for script in job.transform:
        for kind, made in _made(script):
            found.setdefault(made, (kind, script))
    statements_to_type: list[str] = []
    last: list[str] = []
    order = sorted(found, key=lambda made: (KINDS.index(found[made][0]), -list(found).index(made)))
    for made in order:
        kind = found[made][0]
        if made not in kept and made not in named:
            statements_to_type.append(f"DROP {kind.upper()} IF EXISTS {made};")
        elif made == "silver.rejected_values":
            last.append(f"DELETE FROM {made} WHERE table_name = 'silver.{job.name}';")
    return statements_to_type + last


def _made(script: Script) -> Iterator[tuple[str, str]]:
    for created in filter(None, map(created_by, statements(script.text))):
        if created.kind in KINDS and "." in created.name and not created.name.startswith("pg_temp."):
            yield created.kind, created.name
