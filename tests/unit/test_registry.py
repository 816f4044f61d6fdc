"""elt_jobs.json: its meaning, and that all mistakes are found together, each with its line."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.config.files import replace_file
from lib.config.jobs import Check, Extract, Job, Load, Registry, Script
from lib.config.json_reader import JsonSyntaxError, Node, read_json
from lib.config.registry import read_registry
from lib.errors import JobConfigError, SettingsError
from tests.support import ROOT

SCHEMA = json.loads((ROOT / "elt_jobs.schema.json").read_text())
FILES = (
    "bronze/a.sql",
    "bronze/b.sql",
    "silver/a.sql",
    "silver/b.sql",
    "silver/both.sql",
    "gold/both.sql",
    "checks/same.sql",
    "checks/few.sql",
    "extract/costs.sql",
)


class Folder:
    """A registry and its scripts in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.file, self.scripts = root / "elt_jobs.json", root / "sql_scripts"
        self.scripts.mkdir()
        for path in FILES:
            self.write(path, f"-- {path}\nSELECT 1;\n")

    def write(self, path: str, content: str | bytes) -> Path:
        file = self.scripts / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def read(self, registry: str | bytes | dict[str, object]) -> Registry:
        text = json.dumps(registry, indent=1) if isinstance(registry, dict) else registry
        self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_registry(self.file, self.scripts)

    def refusal(self, registry: str | bytes | dict[str, object]) -> str:
        with pytest.raises(JobConfigError) as caught:
            self.read(registry)
        assert caught.value.exit_code == 2
        return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def loading(name: str, **load: object) -> dict[str, object]:
    return {
        "extract": {"keboola_table": f"in.c-main.{name}"},
        "load": {"table": f"bronze.{name}", **load},
        "transform": [f"bronze/{name}.sql", f"silver/{name}.sql"],
    }


def querying(path: object) -> dict[str, object]:
    return {"a": {**loading("a"), "extract": {"duckdb": path}}}


def only(**parts: object) -> dict[str, object]:
    return {"a": parts}


def chain(*links: str) -> dict[str, object]:
    """Jobs from text: 'b: a c' is job b, which depends on a and c. All share a check, since a job must do something."""
    jobs = {}
    for link in links:
        name, _, dependencies = link.partition(":")
        jobs[name] = {"depends_on": dependencies.split(), "checks": ["checks/same.sql"]}
    return jobs


# What it means


def test_a_registry_becomes_jobs_with_their_scripts(folder: Folder) -> None:
    registry = folder.read(
        {
            "$schema": "./elt_jobs.schema.json",
            "a": loading("a", min_rows=0, max_shrink_percent=12.5, max_growth_percent=400, max_age_hours=26.5),
            "both": {
                "depends_on": ["a"],
                "transform": ["silver/both.sql", "gold/both.sql"],
                "checks": ["checks/same.sql", {"script": "checks/few.sql", "on_failure": "warn"}],
            },
        }
    )

    def script(path: str) -> Script:
        return Script(path, path.split("/")[0], folder.scripts / path, f"-- {path}\nSELECT 1;\n")

    assert dict(registry.jobs) == {
        "a": Job(
            "a",
            (),
            Load("a", Extract("keboola_table", "in.c-main.a"), "bronze.a", 0, 12.5, 400, 26.5),
            (script("bronze/a.sql"), script("silver/a.sql")),
        ),
        "both": Job(
            "both",
            ("a",),
            transform=(script("silver/both.sql"), script("gold/both.sql")),
            checks=(Check(script("checks/same.sql"), "error"), Check(script("checks/few.sql"), "warn")),
        ),
    }
    assert registry.groups == (("a", "both"),)
    assert registry.unused_scripts == ("bronze/b.sql", "extract/costs.sql", "silver/b.sql")


@pytest.mark.parametrize("table", ["in.test-bucket-registration.orders", "out.Shop_1.orders", "sys.c-x.y"])
def test_a_bucket_needs_no_c_in_its_name(folder: Folder, table: str) -> None:
    registry = {"a": {**loading("a"), "extract": {"keboola_table": table}}}
    assert folder.read(registry).jobs["a"].load.extract.table == table
    jsonschema.validate(registry, SCHEMA)


def test_a_query_of_duckdb_is_a_file_and_its_text_is_read_with_the_registry(folder: Folder) -> None:
    registry = folder.read({**querying("extract/costs.sql"), "b": loading("b")})
    load = registry.jobs["a"].load
    assert load and load.extract == Extract("duckdb", "extract/costs.sql", "-- extract/costs.sql\nSELECT 1;\n")
    assert "extract/costs.sql" not in registry.unused_scripts


def test_a_load_guards_against_an_empty_and_a_halved_export_by_default(folder: Folder) -> None:
    load = folder.read({"a": loading("a")}).jobs["a"].load
    assert (load.min_rows, load.max_shrink_percent, load.schema, load.name) == (1, 50, "bronze", "a")


def test_a_gold_script_is_named_after_its_view(folder: Folder) -> None:
    assert folder.read(only(transform=["gold/both.sql"])).jobs["a"].transform[0].relation == "gold.both"


def test_what_was_read_cannot_be_changed(folder: Folder) -> None:
    with pytest.raises(TypeError):
        folder.read({"a": loading("a")}).jobs["b"] = None


@pytest.mark.parametrize(
    "links, order, groups",
    [
        (["a", "b", "c"], "a b c", ["a", "b", "c"]),
        (["c", "b", "a"], "c b a", ["c", "b", "a"]),
        (["b:a", "a", "c"], "a b c", ["a b", "c"]),
        (["d:b c", "c:a", "x", "b:a", "a"], "x a c b d", ["x", "a c b d"]),
        (["d:a", "e:b", "f:d e", "a", "b", "c"], "a d b e f c", ["a d b e f", "c"]),
        (["y:x", "b:a", "a", "x"], "a b x y", ["a b", "x y"]),
    ],
)
def test_jobs_come_in_dependency_order_and_else_as_written(
    folder: Folder, links: list[str], order: str, groups: list[str]
) -> None:
    registry = folder.read(chain(*links))
    assert " ".join(registry.jobs) == order
    assert [" ".join(group) for group in registry.groups] == groups
    for group in registry.groups:
        assert all(registry.group_of(name) == group for name in group)


def test_downstream_is_everything_that_depends_on_a_job_and_not_the_job(folder: Folder) -> None:
    registry = folder.read(chain("d:c", "c:a b", "a", "b", "e:b", "x"))
    assert registry.downstream(["a"]) == ("c", "d")
    assert registry.downstream(["b"]) == ("c", "d", "e")
    assert registry.downstream(["a", "c"]) == ("d",)
    assert registry.downstream(["d", "x"]) == ()


def test_an_unknown_job_name_brings_the_nearest_known_ones(folder: Folder) -> None:
    registry = folder.read(chain("products", "stock"))
    registry.check_names(["stock", "products"])
    with pytest.raises(SettingsError) as caught:
        registry.check_names(["product", "stock", "zzz", "product"])
    assert str(caught.value).splitlines() == [
        "no job is named 'product'; did you mean 'products'?",
        "no job is named 'zzz'",
        "jobs: products, stock",
    ]
    assert caught.value.exit_code == 2


def test_a_long_chain_is_no_burden(folder: Folder) -> None:
    registry = folder.read(chain(*[f"j{n}:j{n + 1}" for n in range(300)], "j300"))
    assert list(registry.jobs) == [f"j{n}" for n in range(300, -1, -1)] and len(registry.groups) == 1


def test_the_shipped_registry_is_one_group_and_its_scripts_are_there() -> None:
    registry = read_registry(ROOT / "elt_jobs.json", ROOT / "sql_scripts")
    assert len(registry.groups) == 1 and registry.unused_scripts == ()
    assert {job.load.table for job in registry.jobs.values() if job.load} == {
        "bronze.products",
        "bronze.products_inventory_locations",
    }


# Mistakes, each with its place

WRONG_SHAPES = {
    "no job at all": ({}, "holds no job"),
    "no job beside $schema": ({"$schema": "x"}, "holds no job"),
    "a $schema of a wrong type": ({"$schema": 1, "a": loading("a")}, "$schema must be text, not a number"),
    "a misspelt $schema": ({"$shema": "x", "a": loading("a")}, "unknown key '$shema'; did you mean '$schema'?"),
    "a schema without dollar": ({"schema": "x", "a": loading("a")}, "unknown key 'schema'; did you mean '$schema'?"),
    "a name in capitals": ({"Products": loading("a")}, "a job's name must be [a-z][a-z0-9_]* and at most 50 bytes"),
    "a name with a digit first": ({"1a": loading("a")}, "a job's name must be"),
    "a name of 51 bytes": ({"a" * 51: loading("a")}, "a job's name must be"),
    "a job that is no object": ({"a": "bronze/a.sql"}, "job a: a job must be an object, {...}, not text"),
    "a job that does nothing": (only(), "does nothing: it neither loads nor transforms nor checks"),
    "a job that only waits": ({**only(depends_on=["b"]), "b": loading("b")}, "job a: does nothing"),
    "a job with empty lists": (only(transform=[], checks=[]), "does nothing"),
    "an unknown key": (
        only(transfrom=["gold/both.sql"]),
        "unknown key 'transfrom' in a job; did you mean 'transform'?",
    ),
    "an unlike key": (only(zzz=1), "unknown key 'zzz' in a job; known: depends_on, extract, load, transform, checks"),
    "extract alone": (only(extract={"keboola_table": "in.c-m.a"}), '"extract" without "load": they go together'),
    "load alone": (only(load={"table": "bronze.a"}, transform=["bronze/a.sql"]), '"load" without "extract"'),
    "extract as text": ({"a": {**loading("a"), "extract": "in.c-m.a"}}, "extract must be an object, {...}, not text"),
    "extract without a table": ({"a": {**loading("a"), "extract": {}}}, 'extract needs "keboola_table": "in.c-bucket'),
    "two sources": (
        {"a": {**loading("a"), "extract": {"keboola_table": "in.c-m.a", "duckdb": "extract/costs.sql"}}},
        "extract names 2 sources, keboola_table and duckdb: keep one",
    ),
    "a query in another folder": (querying("silver/a.sql"), "'silver/a.sql' is no query of a source: name it under"),
    "a query that is a number": (querying(5), "duckdb must be a query's path, like extract/name.sql, not 5"),
    "a query among transforms": (
        only(transform=["extract/costs.sql"]),
        "'extract/costs.sql' is a query of a source: name it under \"extract\", or move the file",
    ),
    "a query among checks": (only(checks=["extract/costs.sql"]), 'is a query of a source: name it under "extract"'),
    "an unknown source": (
        {"a": {**loading("a"), "extract": {"keboola_tabel": "in.c-m.a"}}},
        "unknown key 'keboola_tabel' in extract; did you mean 'keboola_table'?",
    ),
    "load without a table": ({"a": {**loading("a"), "load": {}}}, 'load needs "table": "bronze.<name>"'),
    "load as null": ({"a": {**loading("a"), "load": None}}, "load must be an object, {...}, not null"),
    "an unknown guard": ({"a": loading("a", max_shrink=5)}, "in load; did you mean 'max_shrink_percent'?"),
    "a load without its definition": (
        {"a": {**loading("a"), "transform": ["silver/a.sql"]}},
        "bronze.a needs its definition: add 'bronze/a.sql' to transform",
    ),
    "a load without transform": (
        {"a": {key: value for key, value in loading("a").items() if key != "transform"}},
        "bronze.a needs its definition: add 'bronze/a.sql' to transform",
    ),
    "transform as text": (only(transform="gold/both.sql"), "transform must be a list, [...], not text"),
    "transform of objects": (
        only(transform=[{}]),
        "transform must list paths of scripts, such as gold/name.sql, not an",
    ),
    "a script with on_failure": (only(transform=[{"script": "gold/both.sql"}]), "transform must list paths of scripts"),
    "checks as an object": (only(checks={"script": "checks/same.sql"}), "checks must be a list, [...], not an object"),
    "a check without script": (only(checks=[{"on_failure": "warn"}]), "checks must list paths of scripts"),
    "an unknown on_failure": (
        only(checks=[{"script": "checks/same.sql", "on_failure": "warning"}]),
        "on_failure must be \"error\" or \"warn\", not 'warning'; did you mean 'warn'?",
    ),
    "an on_failure of a wrong type": (
        only(checks=[{"script": "checks/same.sql", "on_failure": ["warn"]}]),
        'on_failure must be "error" or "warn", not a list',
    ),
    "an unknown key of a check": (
        only(checks=[{"script": "checks/same.sql", "onfailure": "warn"}]),
        "unknown key 'onfailure' in a check; did you mean 'on_failure'?",
    ),
    "depends_on as text": (
        {**chain("b"), "a": {**loading("a"), "depends_on": "b"}},
        "depends_on must be a list, [...]",
    ),
    "depends_on of numbers": ({"a": {**loading("a"), "depends_on": [1]}}, "depends_on must list names of jobs, not 1"),
    "a dependency named twice": ({**chain("b", "a:b b")}, "depends_on names 'b' twice"),
    "a script named twice": (only(transform=["gold/both.sql", "gold/both.sql"]), "'gold/both.sql' is named twice"),
    "a check named twice": (only(checks=["checks/same.sql", "checks/same.sql"]), "'checks/same.sql' is named twice"),
    "a transform among checks": (
        only(checks=["gold/both.sql"]),
        "'gold/both.sql' is no check: name it under \"transform\", or move the file",
    ),
    "a check among transforms": (
        only(transform=["checks/same.sql"]),
        "'checks/same.sql' is a check: name it under \"checks\", or move the file",
    ),
    "an absolute path": (
        only(transform=["/etc/passwd"]),
        "'/etc/passwd' leaves sql_scripts/: write <layer>/<name>.sql",
    ),
    "a path upwards": (only(transform=["silver/../../x.sql"]), "leaves sql_scripts/"),
    "a path of Windows": (only(transform=["silver\\a.sql"]), "leaves sql_scripts/"),
    "a path that repeats the folder": (
        only(transform=["sql_scripts/silver/a.sql"]),
        "is relative to sql_scripts/: write 'silver/a.sql'",
    ),
    "a path without a layer": (
        only(transform=["a.sql"]),
        "'a.sql' must be <layer>/<name>.sql, such as silver/products.sql",
    ),
    "a path with a folder too many": (only(transform=["silver/x/a.sql"]), "must be <layer>/<name>.sql"),
    "an unknown layer": (
        only(transform=["sliver/a.sql"]),
        "'sliver/a.sql' is in no known layer; did you mean 'silver'?",
    ),
    "a script that is no SQL": (only(transform=["silver/a.txt"]), "'silver/a.txt' must end in .sql"),
    "a view with a name in capitals": (only(transform=["gold/Both.sql"]), "makes gold.<name>, so its name must be"),
    "a view with a hyphen": (
        only(transform=["gold/b-c.sql"]),
        "makes gold.<name>, so its name must be [a-z_][a-z0-9_]*",
    ),
    "a view of 64 bytes": (only(transform=[f"gold/{'x' * 64}.sql"]), "at most 63 bytes"),
}

for key, values in {
    "keboola_table": [
        "products",
        "in.c-main",
        "in.main..a",
        "in.c-main.a.b",
        "IN.c-main.a",
        "",
        5,
        None,
    ],
    "table": ["a", "silver.a", "bronze.", "bronze.A", "bronze.a b", "bronze.1a", f"bronze.{'x' * 64}", 5],
    "min_rows": [True, -1, 1.5, "1", None, [1]],
    "max_shrink_percent": [True, -1, 100.5, 101, "50", None],
    "max_growth_percent": [True, -1, "50", None],
    "max_age_hours": [True, -1, "26", None],
}.items():
    for value in values:
        job = loading("a")
        job["extract" if key == "keboola_table" else "load"][key] = value
        WRONG_SHAPES[f"{key} = {value!r:.20}"] = ({"a": job}, f"{key} must be ")


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_a_wrong_shape_is_refused_by_the_reader_and_by_the_schema(folder: Folder, case: str) -> None:
    registry, message = WRONG_SHAPES[case]
    text = folder.refusal(registry)
    assert message in text
    assert all(re.match(r"elt_jobs\.json:\d+: ", line) for line in text.splitlines())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(registry, SCHEMA)


@pytest.mark.parametrize(
    "registry, message",
    [
        (
            {"a": loading("a"), "b": {**loading("b"), "load": {"table": "bronze.a"}}},
            "bronze.a is loaded by job a already",
        ),
        (
            {"a": loading("a"), "b": {"transform": ["silver/a.sql"]}},
            "job b: 'silver/a.sql' is run by job a already (line 11)",
        ),
        (
            {"a": loading("a"), "b": {"transform": ["bronze/b.sql"]}},
            "'bronze/b.sql' defines a table that this job does not",
        ),
        (
            {"a": {**loading("a"), "transform": ["bronze/a.sql", "bronze/b.sql"]}},
            "'bronze/b.sql': the job loads bronze.a, so its bronze script is bronze/a.sql",
        ),
        (
            only(transform=["silver/boht.sql"]),
            "'silver/boht.sql' does not exist in sql_scripts/; did you mean 'silver/both.sql'?",
        ),
        (
            only(transform=["silver/A.sql"]),
            "'silver/A.sql' does not exist in sql_scripts/; did you mean 'silver/a.sql'?",
        ),
        (
            {"a": {**loading("a"), "depends_on": ["bb"]}, "b": loading("b")},
            "depends_on names an unknown job: 'bb'; did you mean 'b'?",
        ),
        ({"a\n": loading("a")}, "job a\\n: a job's name must be"),
        ({"a": {**loading("a"), "extract": {"keboola_table": "in.c-m.a\n"}}}, "not 'in.c-m.a\\n'"),
        ({"a": loading("a", table="bronze.a\n")}, "not 'bronze.a\\n'"),
        (chain("a:a"), "elt_jobs.json:2: depends_on has a cycle: a -> a"),
        (chain("x", "a:b x", "b:c", "c:a"), "depends_on has a cycle: a -> b -> c -> a"),
    ],
)
def test_what_only_the_reader_can_see_is_refused_too(folder: Folder, registry: dict[str, object], message: str) -> None:
    assert message in folder.refusal(registry)


def test_what_waits_for_a_circle_is_not_blamed_and_each_circle_is_named(folder: Folder) -> None:
    text = folder.refusal(chain("waits:a", "a:b", "b:a", "c:d", "d:c", "free"))
    assert text.splitlines() == [
        "elt_jobs.json:10: depends_on has a cycle: a -> b -> a",
        "elt_jobs.json:26: depends_on has a cycle: c -> d -> c",
    ]


def test_all_mistakes_come_at_once_each_on_its_own_line(folder: Folder) -> None:
    text = """{
  "a": {
    "depends_on": ["b",
                   "bb"],
    "extract": {"keboola_table": "products"},
    "load": {
      "table": "silver.a",
      "min_rows": true
    },
    "transform": [
      "silver/a.sql",
      "silver/missing.sql"
    ],
    "cheks": []
  },
  "b": {"transform": ["silver/a.sql"], "transform": []},
  "a": {}
}"""
    lines = folder.refusal(text).splitlines()
    places = [int(re.match(r"elt_jobs\.json:(\d+): ", line)[1]) for line in lines]
    assert places == [4, 5, 7, 8, 12, 14, 16, 16, 17]
    assert lines[-3:] == [
        "elt_jobs.json:16: job b: key 'transform' appears twice (first on line 16)",
        "elt_jobs.json:16: job b: 'silver/a.sql' is run by job a already (line 11)",
        "elt_jobs.json:17: job 'a' appears twice (first on line 2)",
    ]


def test_equal_keys_are_found_at_every_level(folder: Folder) -> None:
    text = '{"a": {"extract": {"keboola_table": "in.c-m.a",\n"keboola_table": "in.c-m.a"},\n'
    text += '"load": {"table": "bronze.a", "table": 5},'
    text += '"transform": ["bronze/a.sql"], "checks": [{"script": "checks/same.sql",\n"script": "x"}]}}'
    assert [line.split(" appears")[0] for line in folder.refusal(text).splitlines()] == [
        "elt_jobs.json:2: job a: key 'keboola_table'",
        "elt_jobs.json:3: job a: key 'table'",
        "elt_jobs.json:4: job a: key 'script'",
    ]


@pytest.mark.parametrize("path", ["silver/out.sql", "silver/in.sql"])
def test_a_link_may_stay_inside_but_not_leave(folder: Folder, path: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside.sql"
    outside.write_text("SELECT 1;")
    (folder.scripts / "silver/out.sql").symlink_to(outside)
    (folder.scripts / "silver/in.sql").symlink_to("../gold/both.sql")
    if path == "silver/in.sql":
        assert folder.read(only(transform=[path])).jobs["a"].transform[0].text.startswith("-- gold/both.sql")
    else:
        assert "'silver/out.sql' is a link that leaves sql_scripts/" in folder.refusal(only(transform=[path]))


def test_a_layer_that_is_a_link_elsewhere_is_not_followed(folder: Folder, tmp_path: Path) -> None:
    for file in (folder.scripts / "gold").iterdir():
        file.unlink()
    (folder.scripts / "gold").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/both.sql").write_text("SELECT 1;")
    (folder.scripts / "gold").symlink_to(tmp_path / "elsewhere")
    assert "gold/both.sql" in folder.refusal(only(transform=["gold/both.sql"]))


def test_links_in_a_circle_are_a_missing_script(folder: Folder) -> None:
    (folder.scripts / "silver/x.sql").symlink_to("y.sql")
    (folder.scripts / "silver/y.sql").symlink_to("x.sql")
    assert "'silver/x.sql' does not exist" in folder.refusal(only(transform=["silver/x.sql"]))


def test_a_folder_is_no_script(folder: Folder) -> None:
    (folder.scripts / "silver/x.sql").mkdir()
    assert "'silver/x.sql' does not exist" in folder.refusal(only(transform=["silver/x.sql"]))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"SELECT 1;\n-- p\xf8\n", "is not UTF-8 text (line 2 of the script): save it as UTF-8"),
        ("SELECT 1;".encode("utf-16"), "is not UTF-8 text (line 1 of the script)"),
        (b"SELECT 1;\n\0", "holds a NUL byte (line 2 of the script)"),
        (b" \n\n", "is empty"),
        (b"", "is empty"),
    ],
)
def test_a_script_that_is_no_text_is_refused(folder: Folder, content: bytes, message: str) -> None:
    folder.write("silver/x.sql", content)
    assert f"'silver/x.sql' {message}" in folder.refusal(only(transform=["silver/x.sql"]))


def test_a_byte_order_mark_is_left_out_of_registry_and_script_as_psql_does(folder: Folder) -> None:
    folder.write("silver/x.sql", b"\xef\xbb\xbfSELECT 1;")
    registry = folder.read(b'\xef\xbb\xbf{"a": {"transform": ["silver/x.sql"]}}')
    assert registry.jobs["a"].transform[0].text == "SELECT 1;"


def test_a_script_keeps_its_line_ends(folder: Folder) -> None:
    folder.write("silver/x.sql", b"SELECT\r\n1;")
    assert folder.read(only(transform=["silver/x.sql"])).jobs["a"].transform[0].text == "SELECT\r\n1;"


def test_a_missing_registry_and_a_missing_script_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(JobConfigError, match="elt_jobs.json does not exist: it is the list of jobs"):
        read_registry(tmp_path / "elt_jobs.json", tmp_path / "sql_scripts")
    (tmp_path / "elt_jobs.json").write_text(json.dumps(only(transform=["silver/a.sql"])))
    with pytest.raises(JobConfigError, match="'silver/a.sql' does not exist in sql_scripts/"):
        read_registry(tmp_path / "elt_jobs.json", tmp_path / "sql_scripts")
    with pytest.raises(JobConfigError, match="cannot be read: Is a directory"):
        read_registry(tmp_path, tmp_path / "sql_scripts")


# JSON itself


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "elt_jobs.json:1:1: not valid JSON: expected a value, found the end of the file"),
        ("\n  \n", "elt_jobs.json:3:1: not valid JSON: expected a value, found the end of the file"),
        ('{"a": {', "1:8: not valid JSON: expected a name in double quotes, found the end of the file"),
        ('{"a": 1', "expected ',' or '}' (for the '{' of line 1), found the end of the file"),
        ('{\n "a": {},\n}', "elt_jobs.json:2:9: not valid JSON: a comma too many before '}'"),
        ('{"a": [1, ]}', "1:9: not valid JSON: a comma too many before ']'"),
        ('{"a": {}\n "b": {}}', "elt_jobs.json:1:9: not valid JSON: a comma is missing at the end of this line"),
        ('{"a": ["x" "y"]}', "1:12: not valid JSON: expected ',' or ']'"),
        (
            '{\n// note\n"a": {}}',
            "elt_jobs.json:2:1: not valid JSON: expected a name in double quotes, found a comment",
        ),
        ('{"a": {}} # done', "1:11: not valid JSON: expected the end of the file, found a comment (JSON has none)"),
        ("{'a': {}}", "found a single quote (JSON needs double quotes)"),
        ("{a: {}}", "expected a name in double quotes, found 'a'"),
        ('{"a" {}}', "expected ':' after 'a', found '{'"),
        ('{"a": NaN}', "expected a value, found 'NaN'"),
        ('{"a": -Infinity}', "expected a value, found '-Infinity'"),
        ('{"a": True}', "expected a value, found 'True'"),
        ('{"a": 01}', "expected a value, found '01'"),
        ('{"a": +1}', "expected a value, found '+1'"),
        ('{"a": 1.}', "expected a value, found '1.'"),
        ('{"a": }', "expected a value, found '}'"),
        ('{"a": "x\ny"}', "1:7: not valid JSON: text that is not closed with a double quote"),
        ('{"a": "x', "1:7: not valid JSON: text that is not closed with a double quote"),
        ('{"a": "C:\\data"}', "not valid JSON: Invalid \\escape"),
        ('{"a": "\\u12"}', "not valid JSON: Invalid \\uXXXX escape"),
        ('{"a": ' + "9" * 5000 + "}", "expected a value, found '999"),
        ("[" * 100_000, "not valid JSON: nested too deeply"),
        ("[]", "elt_jobs.json:1: must be an object of jobs, {...}, not a list"),
        ("null", "elt_jobs.json:1: must be an object of jobs, {...}, not null"),
        ('{"a": {}}'.encode("utf-16"), "elt_jobs.json: is not UTF-8 text: save it as UTF-8"),
        (b'{"a": "\xff"}', "elt_jobs.json: is not UTF-8 text: save it as UTF-8"),
    ],
)
def test_text_that_is_not_json_is_refused_with_line_column_and_what_was_found(
    folder: Folder, text: str | bytes, message: str
) -> None:
    assert message in folder.refusal(text)


def test_odd_letters_never_reach_the_file_system_or_break_the_message(folder: Folder) -> None:
    text = folder.refusal('{"a\\ud800": {"transform": ["silver/\\u0000.sql", "silver/\\udcff.sql", "x\\u001b[31m"]}}')
    assert text.isprintable() or text.replace("\n", "").isprintable()
    assert text.encode() and len(text.splitlines()) == 4


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def plain(node: Node) -> object:
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    return [plain(child) for child in node.value] if isinstance(node.value, list) else node.value


@settings(deadline=None)
@given(JSON, st.sampled_from([None, 0, 3]), st.booleans())
def test_the_reader_understands_what_the_standard_reader_does(value: object, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    assert plain(read_json(text)) == json.loads(text)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet='{}[]":,\\ \n01-.eaundtrlfs', max_size=12))
def test_the_reader_refuses_what_the_standard_reader_refuses(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(JsonSyntaxError):
            read_json(text)
    else:
        assert json.dumps(plain(read_json(text))) == json.dumps(expected) or "{" in text


# The schema

NAMES = st.sampled_from(["a", "b", "c", "B", "", "x y"])
PATHS = st.sampled_from([*FILES, "silver/none.sql", "../x.sql", "gold/B.sql"])
LISTS = st.lists(
    PATHS | st.fixed_dictionaries({"script": PATHS}, optional={"on_failure": st.sampled_from(["warn", "x"])}),
    max_size=3,
)
PARTS = {
    "depends_on": st.lists(NAMES, max_size=2),
    "extract": st.fixed_dictionaries(
        {}, optional={"keboola_table": st.sampled_from(["in.c-m.a", "a"]), "duckdb": PATHS, "x": st.none()}
    ),
    "load": st.fixed_dictionaries(
        {"table": st.sampled_from(["bronze.a", "bronze.b", "gold.a"])},
        optional={"min_rows": st.integers(-1, 2), "max_shrink_percent": st.integers(-1, 101) | st.floats(0, 1)},
    ),
    "transform": LISTS,
    "checks": LISTS,
}


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("shared"))


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.fixed_dictionaries({}, optional=PARTS) | st.just(loading("a")), max_size=3))
def test_whatever_the_reader_accepts_the_schema_accepts(shared_folder: Folder, registry: dict[str, object]) -> None:
    try:
        shared_folder.read(registry)
    except JobConfigError:
        return
    jsonschema.validate(registry, SCHEMA)


def test_the_schema_is_one_and_explains_every_key_with_examples() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def properties(part: object) -> list[tuple[str, dict[str, object]]]:
        if isinstance(part, list):
            return [found for item in part for found in properties(item)]
        if not isinstance(part, dict):
            return []
        own = [
            (name, child)
            for name, child in part.get("properties", {}).items()
            if not child.keys() <= {"minItems", "contains"}
        ]
        return own + [found for child in part.values() for found in properties(child)]

    found = dict(properties(SCHEMA))
    assert found.keys() >= {
        "depends_on",
        "extract",
        "load",
        "transform",
        "checks",
        "keboola_table",
        "duckdb",
        "table",
        "min_rows",
    }
    for name, part in found.items():
        part = SCHEMA["$defs"][part["$ref"].split("/")[-1]] if "$ref" in part else part
        assert part["description"], name
        assert name == "$schema" or part.get("examples") or part.get("enum"), name
        for example in part.get("examples", []):
            jsonschema.validate(example, {**part, "$defs": SCHEMA["$defs"]})


def test_the_shipped_registry_meets_the_schema() -> None:
    registry = json.loads((ROOT / "elt_jobs.json").read_text())
    jsonschema.validate(registry, SCHEMA)
    assert os.path.samefile(ROOT / registry["$schema"], ROOT / "elt_jobs.schema.json")


def test_a_registry_that_is_a_link_is_changed_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    target, link = tmp_path / "shared" / "elt_jobs.json", tmp_path / "elt_jobs.json"
    target.write_text("{}")
    link.symlink_to(target)
    replace_file(link, '{"a": {}}')
    assert link.is_symlink() and target.read_text() == '{"a": {}}'
