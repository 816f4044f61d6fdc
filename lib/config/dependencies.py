"""Orders jobs so that dependencies come first, finds the groups that publish together, and finds cycles."""

from __future__ import annotations

from collections.abc import Mapping

from lib.config.jobs import Job


def in_order(jobs: Mapping[str, Job]) -> tuple[str, ...]:
    """Job names, dependencies first; otherwise in the order of the file. Jobs on or behind a cycle are left out."""
    ordered: dict[str, None] = {}
    while True:
        ready = (name for name, job in jobs.items() if name not in ordered and ordered.keys() >= set(job.depends_on))
        following = next(ready, None)
        if following is None:
            return tuple(ordered)
        ordered[following] = None


def groups_of(ordered: tuple[str, ...], jobs: Mapping[str, Job]) -> tuple[tuple[str, ...], ...]:
    group_of = {name: {name} for name in ordered}
    for name in ordered:
        for dependency in jobs[name].depends_on:
            joined = group_of[name] | group_of[dependency]
            group_of.update(dict.fromkeys(joined, joined))
    return tuple(dict.fromkeys(tuple(name for name in ordered if name in group_of[first]) for first in ordered))


def cycles(jobs: Mapping[str, Job]) -> list[list[str]]:
    """One closed path, such as [a, b, a], for each cycle of dependencies."""
    ordered = set(in_order(jobs))
    stuck = [name for name in jobs if name not in ordered]
    found: list[list[str]] = []
    seen: set[str] = set()
    for name in stuck:
        path: list[str] = []
        while name not in seen:
            seen.add(name)
            path.append(name)
            # a job is stuck only because one of its dependencies is stuck, so there is always one
            name = next(dependency for dependency in jobs[name].depends_on if dependency in stuck)
        if name in path:
            found.append([*path[path.index(name) :], name])
    return found
