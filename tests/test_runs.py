"""Whole runs in this process: what a group, a guard, a partial run and a changed table come to."""

from __future__ import annotations

from project import Project


def test_a_run_publishes_every_layer_and_the_next_one_only_what_differs(project: Project) -> None:
    project.put_day("monday")
    assert project.run().exit_code == 0
    assert project.day("bronze.a") == project.day("silver.b") == "monday"
    project.put("a", [(str(number), "monday") for number in range(1, 10)] + [("11", "monday")])
    project.put("b", [(str(number), "monday") for number in range(1, 10)] + [("11", "monday")])
    assert project.run().exit_code == 0
    assert "silver/a.sql  +1 ~0 -1" in project.output
    assert project.last_line.startswith("run: 4 jobs published, ")
