"""Checks that depends_on is complete: if a script reads what another job makes, the jobs must be in one group.

Otherwise the two jobs publish separately, and a reader can see a mix of two loads.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from lib.config.jobs import LAYERS, Job, Registry, Script
from lib.elt_schema.strangers import Name
from lib.transform.references import references
from lib.transform.statements import created_by, line_counter, statements

#: a relation with its schema, each perhaps in quotes
QUALIFIED = re.compile(rf'(?i)\b({"|".join(LAYERS)})"?\s*\.\s*"?([\w$]+)')


def missing_dependencies(registry: Registry) -> list[str]:
    """Each missing depends_on as `file:line: ..`, with what to add to elt_jobs.json.

    For a bronze or silver script, its job must depend on the other job, directly or indirectly. For gold scripts and
    checks it is enough that both jobs are in the same group.
    """
    makers: dict[Name, set[str]] = {}
    for job in registry.jobs.values():
        for name in _made_by(job):
            makers.setdefault(name, set()).add(job.name)
    found: dict[str, None] = {}
    for job in registry.jobs.values():
        before = _upstream(registry, job.name)
        group = registry.group_of(job.name)
        for script in job.scripts:
            allowed = {*before, job.name} if script.layer in ("bronze", "silver") else {*group}
            for text in _missing(script, job, makers, allowed):
                found[text] = None
    return list(found)


def _missing(script: Script, job: Job, makers: dict[Name, set[str]], allowed: Collection[str]) -> list[str]:
    missing = [
        name for name in sorted(references(script.text).all & makers.keys()) if not makers[name].intersection(allowed)
    ]
    lines = _first_lines(script.text) if missing else {}
    return [
        f"{script.path}:{lines.get(name, 1)}: reads {'.'.join(name)}, which job {maker} makes:"
        f' add "{maker}" to "depends_on" of job {job.name} in elt_jobs.json'
        for name in missing
        for maker in [min(makers[name])]
    ]


def _made_by(job: Job) -> set[Name]:
    """Tables, views and functions that a job loads, publishes, changes or creates."""
    made: set[Name] = set()
    if job.load:
        made.add((job.load.schema, job.load.name))
    for script in job.transform:
        if script.layer == "gold":
            made.add(("gold", script.relation.partition(".")[2]))
            continue
        found = references(script.text)
        made |= found.published | found.changed
        for created in filter(None, map(created_by, statements(script.text))):
            schema, _, name = created.name.partition(".")
            made.add((schema, name))
    return made


def _upstream(registry: Registry, name: str) -> set[str]:
    """The jobs that this one depends on, directly or indirectly."""
    reached: set[str] = set()
    waiting = [*registry.jobs[name].depends_on]
    while waiting:
        job = waiting.pop()
        if job not in reached:
            reached.add(job)
            waiting += registry.jobs[job].depends_on
    return reached


def _first_lines(text: str) -> dict[Name, int]:
    """The line on which a script first names each relation, by its name in lower case."""
    line_of = line_counter(text)
    found: dict[Name, int] = {}
    for each in QUALIFIED.finditer(text):
        found.setdefault((each[1].lower(), each[2].lower()), line_of(each.start()))
    return found
