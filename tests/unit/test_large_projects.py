"""Reading takes time in proportion to the size of the scripts and the number of mistakes, not to its square."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.config.jobs import Script
from lib.errors import JobConfigError
from lib.run.plan import read_project
from lib.transform.refusals import refusals
from lib.transform.statements import statements

#: how much longer four times as much may take: 4 if it is linear, 16 if it is quadratic
LINEAR = 10.0
#: a block of lines between two mistakes of a script
COMMENT = "-- so that each line is far from the next one\n" * 15


def seconds(work: Callable[[], object]) -> float:
    """The processor's time of this thread, so that other work does not count; nor does what earlier tests left behind,
    through which the garbage collector would go."""
    gc.collect()
    gc.disable()
    try:
        began = time.thread_time()
        work()
        return time.thread_time() - began
    finally:
        gc.enable()


def refused(folder: Path, scripts: dict[str, str], jobs: dict[str, dict]) -> Callable[[], None]:
    """Reads this project, in which each job but at most one is a mistake."""
    (folder / "sql_scripts" / "silver").mkdir(parents=True)
    for name, text in scripts.items():
        (folder / "sql_scripts" / "silver" / name).write_text(text)
    (folder / "elt_jobs.json").write_text(json.dumps(jobs))

    def read() -> None:
        with pytest.raises(JobConfigError) as error:
            read_project(folder)
        assert len(str(error.value).splitlines()) >= len(jobs) - 1

    return read


def many_statements(folder: Path, count: int) -> Callable[[], object]:
    line = "INSERT INTO pg_temp.codes VALUES ({}, 'some text to fill the line');\n"
    text = "".join(line.format(number) for number in range(40 * count))
    return lambda: statements(text)


def refused_statements(folder: Path, count: int) -> Callable[[], object]:
    text = "".join(f"SET a = {number};\n\\echo {number}\n{COMMENT}" for number in range(8 * count))
    script = Script("silver/a.sql", "silver", Path(), text)
    return lambda: refusals(script)


def missing_dependencies(folder: Path, count: int) -> Callable[[], object]:
    reading = "".join(f"SELECT * FROM silver.t{number};\n{COMMENT}" for number in range(count))
    made = {f"t{number}": f"SELECT * FROM elt.publish_rows('silver.t{number}', 'x');" for number in range(count)}
    scripts = {f"{name}.sql": text for name, text in {"a": reading, **made}.items()}
    return refused(folder, scripts, {name: {"transform": [f"silver/{name}.sql"]} for name in ("a", *made)})


def unknown_jobs(folder: Path, count: int) -> Callable[[], object]:
    jobs = {f"t{number}": {"transform": [], "depends_on": [f"u{number}"]} for number in range(count)}
    return refused(folder, {}, jobs)


def unknown_scripts(folder: Path, count: int) -> Callable[[], object]:
    scripts = {f"t{number}.sql": "SELECT 1;" for number in range(count)}
    return refused(folder, scripts, {f"t{number}": {"transform": [f"silver/u{number}.sql"]} for number in range(count)})


@pytest.mark.parametrize(
    "case", [many_statements, refused_statements, missing_dependencies, unknown_jobs, unknown_scripts]
)
def test_four_times_as_much_takes_about_four_times_as_long(tmp_path: Path, case) -> None:
    small, large = (case(tmp_path / f"{count}", count) for count in (120, 480))
    # statements() and references() keep what they have read, so each is timed once
    assert seconds(large) < LINEAR * seconds(small)
