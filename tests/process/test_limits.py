"""A process that gets no further thread or file handle: one line, exit code 1, no run left running."""

from __future__ import annotations

import re
import sys

import pytest

from tests.support.project import Project, newest_run
from tests.support.project_process import ProjectProcess

COUNT = "SELECT count(*) FROM elt.runs"


def run_with(project: Project, **limits: int) -> int:
    """The exit code of a run with these limits. Checks that a failure has a reason, and each run an end."""
    before = project.database.sql(COUNT)
    with ProjectProcess(project, limits=limits) as process:
        code = process.exit_code()
    assert code in (0, 1) and "Traceback" not in process.output, process.output
    if code:
        assert re.search("can (start|open) no further|too many open files", process.output), process.output
    is_new = project.database.sql(COUNT) != before
    assert newest_run(project)[0] == ("failed" if is_new and code else "done")
    return code


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux counts it")
@pytest.mark.parametrize("threads", [6, *(pytest.param(count, marks=pytest.mark.long) for count in range(1, 6))])
def test_a_run_that_gets_no_further_thread_says_so(monday: Project, threads: int) -> None:
    assert run_with(monday, threads=threads) == 1


@pytest.mark.parametrize("files", [4, *(pytest.param(count, marks=pytest.mark.long) for count in range(1, 16))])
def test_a_run_that_gets_no_further_file_handle_says_so(monday: Project, files: int) -> None:
    assert run_with(monday, files=files) == 1 or files > 5
