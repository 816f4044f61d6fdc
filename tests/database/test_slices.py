"""elt.slices: what each slice of a published export was, and that nothing else was published."""

from __future__ import annotations

from sandbox.faults import Fault
from tests.database.test_load_faults import Hasty
from tests.support.project import Project

SUMS = """
    SELECT run_id, job, rows_loaded, sum(rows), count(number), min(number), max(number)
    FROM elt.job_runs LEFT JOIN elt.slices USING (run_id, job) WHERE rows_loaded IS NOT NULL
    GROUP BY run_id, job ORDER BY run_id, job
"""


def test_the_rows_of_all_slices_are_what_was_published(monday: Project) -> None:
    monday.put("c", [(str(number), "x" * number) for number in range(1000)])
    monday.keboola.faults.add(Fault("slice", "cut", at=0.5, path="%2Fc%2F"))
    again = Fault("file", do=lambda: monday.put("a", [(str(number), "tuesday") for number in range(1, 11)]))
    monday.keboola.faults.add(again)  # the group of a and b is exported twice, and only the second one counts
    assert monday.run(stop=Hasty()).exit_code == 0, monday.output
    assert "exporting the group again" in monday.output
    for name in ("a", "b", "c"):
        published = monday.database.sql(f"SELECT count(*) FROM bronze.{name}")
        found = monday.database.sql(f"SELECT sum(rows) FROM elt.slices WHERE run_id = 2 AND job = '{name}'")
        assert found == published
    assert [row for row in monday.database.sql(SUMS) if row[0] == 2] == [
        (2, "a", 10, 10, 4, 1, 4),
        (2, "b", 10, 10, 4, 1, 4),
        (2, "c", 1000, 1000, 4, 1, 4),
    ]
    told = "SELECT sum(bytes), count(DISTINCT source_job), count(DISTINCT source_file), max(tries), min(tries)"
    csv = sum(len(f'"{number}","{"x" * number}"\n') for number in range(1000))
    assert monday.database.sql(f"{told} FROM elt.slices WHERE run_id = 2 AND job = 'c'") == [(csv, 1, 1, 2, 1)]
    ((job,),) = monday.database.sql("SELECT DISTINCT source_job FROM elt.slices WHERE job = 'b' AND run_id = 2")
    assert job in {str(number) for number in monday.keboola._api.jobs}
    assert monday.database.sql("SELECT FROM elt.slices WHERE name !~ '[.]csv[.]gz$' OR seconds < 0") == []


def test_a_group_that_is_not_published_leaves_no_slices(monday: Project) -> None:
    monday.put("b", [(str(number), "wednesday") for number in range(1, 11)])
    assert monday.run().exit_code == 1
    assert monday.database.sql("SELECT DISTINCT job FROM elt.slices WHERE run_id = 2") == [("c",)]


def test_a_query_is_one_slice_without_a_job(monday: Project) -> None:
    (monday.root / "c.csv").write_text("id,v\n" + "".join(f"{number},tuesday\n" for number in range(10)))
    monday.registry["c"]["extract"] = {"duckdb": "extract/c.sql"}
    monday.script("extract/c.sql", "SELECT * FROM read_csv('c.csv', all_varchar = true);")
    assert monday.run("c").exit_code == 0, monday.output
    found = "SELECT number, name, source_job, source_file, rows, tries FROM elt.slices WHERE run_id = 2"
    assert monday.database.sql(found) == [(1, "c.sql", None, None, 10, 1)]
