"""main.py add and remove: a table of the source becomes a job without a hand edit."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from lib.cli.add import add
from lib.cli.arguments import main_parser
from lib.cli.console import Console
from lib.config.secret_value import Secret
from lib.config.settings import Settings
from lib.errors import SettingsError
from lib.extract.catalog import ColumnDetail, TableDetail
from lib.run.plan import read_project
from lib.scaffold.job_files import NewJob, Wish, new_job
from lib.scaffold.project_files import add_job, remove_job
from sandbox.keboola_server import KeboolaServer
from tests.support.checkout import Checkout, Morning

TABLE = "in.c-erp.suppliers"
HINTS = {
    "Supplier ID": {"KBC.description": "Number in the ERP; it's unique."},
    "credit": {"KBC.datatype.basetype": "NUMERIC"},
    "order": {"KBC.datatype.basetype": "INTEGER"},
    "since": {"KBC.datatype.basetype": "DATE"},
    "seen": {"KBC.datatype.basetype": "TIMESTAMP"},
    "active": {"KBC.datatype.basetype": "BOOLEAN"},
}
COLUMNS = ["Supplier ID", "name", "credit", "order", "since", "seen", "active"]
ROWS = [
    ["00123", "Ořechy 'n' nuts", "10.50", "7", "2026-01-31", "2026-01-31 10:00:00", "true"],
    ["124", "", "", "", "", "", ""],
    ["125", "odd", "n/a", "1.5", "31.1.2026", "yesterday", "maybe"],
    ["", "no key", "1", "1", "2026-01-01", "", "0"],
    [" 124 ", "the same key", "2", "2", "2026-01-01", "", "1"],
]


@pytest.fixture
def shop(morning: Morning) -> Morning:
    morning.keboola.put_table(
        TABLE, columns=COLUMNS, rows=ROWS, primary_key=["Supplier ID"], hints=HINTS, description="Who sells to us"
    )
    return morning


def files(checkout: Checkout) -> dict[str, str]:
    paths = [checkout.folder / "elt_jobs.json", *(checkout.folder / "sql_scripts").rglob("*.sql")]
    return {str(path.relative_to(checkout.folder)): path.read_text(encoding="utf-8") for path in paths}


def test_from_a_token_to_the_first_own_table_in_three_commands(shop: Morning) -> None:
    before = files(shop)
    added = shop.run("main.py", "add", TABLE, "--gold", "--rename", "since=supplier_since")
    assert added.returncode == 0, added.stdout
    assert "in.c-erp.suppliers: 7 columns, 5 rows" in added.stdout
    new = {path for path in files(shop) if path not in before}
    assert new == {
        *(f"sql_scripts/{layer}/suppliers.sql" for layer in ("bronze", "silver", "gold")),
        "sql_scripts/checks/suppliers_values_were_read.sql",
    }
    assert all(path in added.stdout for path in new)
    (command,) = re.findall(r"main.py (run suppliers)\n", added.stdout)
    loaded = shop.run("main.py", *command.split())
    assert loaded.returncode == 0, loaded.stdout
    assert "checks/suppliers_values_were_read.sql: check failed: 7 rows" in loaded.stdout
    sql = shop.database.sql
    assert sql('SELECT supplier_id, name, credit::text, "order", supplier_since::text, active FROM gold.suppliers') == [
        ("00123", "Ořechy 'n' nuts", "10.5", 7, "2026-01-31", True),
        ("124", "the same key", "2", 2, "2026-01-01", True),
        ("125", "odd", None, None, None, None),
    ]
    assert sorted(sql("SELECT table_name, row_key, column_name, value FROM silver.rejected_values")) == [
        ("silver.suppliers", "", "*", '("","no key",1,1,2026-01-01,"",0)'),
        ("silver.suppliers", "124", "*", '(124,"","","","","","")'),
        ("silver.suppliers", "125", "active", "maybe"),
        ("silver.suppliers", "125", "credit", "n/a"),
        ("silver.suppliers", "125", "order", "1.5"),
        ("silver.suppliers", "125", "seen", "yesterday"),
        ("silver.suppliers", "125", "supplier_since", "31.1.2026"),
    ]
    assert sql("SELECT col_description('silver.suppliers'::regclass, 1)") == [("Number in the ERP; it's unique.",)]
    assert "Who sells to us" in sql("SELECT obj_description('gold.suppliers'::regclass)")[0][0]
    assert shop.run("main.py", "check", "--online").returncode == 0
    again = shop.run("main.py", "run", "suppliers")
    assert again.returncode == 0 and "script   1 table unchanged" in again.stdout

    refused = shop.run("main.py", "add", TABLE)
    assert refused.returncode == 2
    assert "nothing was written, because this is there already: job suppliers in elt_jobs.json" in refused.stdout


def test_a_job_is_removed_with_its_scripts_and_the_printed_statements_drop_its_tables(shop: Morning) -> None:
    before = files(shop)
    shop.keboola.put_table("in.c-erp.order", columns=["a"], rows=[["1"]], primary_key=["a"])
    for arguments in (["in.c-erp.order"], [TABLE, "--gold"]):
        assert shop.run("main.py", "add", *arguments).returncode == 0
    assert shop.run("main.py", "run", "suppliers", "order").returncode == 0
    asked = shop.run("main.py", "remove", "suppliers")
    assert asked.returncode == 2 and "add --yes" in asked.stdout
    removed = shop.run("main.py", "remove", "suppliers", "--yes")
    assert removed.returncode == 0
    statements = re.findall(r"^    ((?:DROP|DELETE) .*;)$", removed.stdout, re.MULTILINE)
    # the last one: if no run made the table, all others were typed before it fails
    assert statements[-1] == "DELETE FROM silver.rejected_values WHERE table_name = 'silver.suppliers';"
    for statement in statements:
        shop.database.sql(statement)
    assert shop.database.sql("SELECT relname FROM pg_class WHERE relname LIKE 'suppliers%'") == []
    last = shop.run("main.py", "remove", "order", "--yes").stdout
    for statement in re.findall(r"^    ((?:DROP|DELETE) .*;)$", last, re.MULTILINE):
        shop.database.sql(statement)
    assert shop.database.sql("SELECT FROM pg_class WHERE relname IN ('order', 'rejected_values')") == []
    assert files(shop) == before
    needed = shop.run("main.py", "remove", "products", "--yes")
    assert needed.returncode == 2 and "depends_on of products_inventory_locations and" in needed.stdout
    assert files(shop) == before


@pytest.mark.parametrize(
    ("typed", "is_removed"), [(b"\x04", False), (b"\n", False), (b"no\n", False), (b"\xff\n", False), (b"y\n", True)]
)
def test_remove_asks_first(checkout: Checkout, typed: bytes, is_removed: bool) -> None:
    before = files(checkout)
    master, terminal = os.openpty()
    os.write(master, typed)
    asked = checkout.run("main.py", "remove", "inventory_gold", stdin=terminal)
    os.close(terminal)
    os.close(master)
    assert asked.returncode == 0 and "    sql_scripts/gold/dim_product.sql\n" in asked.stdout
    assert ("nothing was removed\n" in asked.stdout) != is_removed
    assert (files(checkout) == before) != is_removed


def test_a_file_that_cannot_be_deleted_is_named(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root deletes from any folder, so the refusal is made here."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    registry = read_project(checkout.folder)
    with pytest.raises(
        SettingsError, match="job inventory_gold is gone from elt_jobs.json, but .*: Permission"
    ) as told:
        remove_job(checkout.folder, "inventory_gold")
    assert all(str(script.file) in str(told.value) for script in registry.jobs["inventory_gold"].scripts)


def test_a_table_without_a_key_gets_bronze_and_the_reason(shop: Morning) -> None:
    shop.keboola.put_table("in.c-erp.log", columns=["a", "b"], rows=[["1", "2"]])
    added = shop.run("main.py", "add", "in.c-erp.log")
    assert added.returncode == 0
    assert (
        "warning: only bronze is made, because in.c-erp.log has no primary key. Write sql_scripts/silver/"
        in added.stdout
    )
    part = shop.run("main.py", "add", TABLE, "--columns", "name,credit")
    assert "because column 'Supplier ID' of its primary key is left out" in part.stdout
    assert shop.run("main.py", "run", "log", "suppliers").returncode == 0
    assert shop.database.sql("SELECT * FROM bronze.log") == [("1", "2")]


def test_a_key_for_a_table_without_one(shop: Morning) -> None:
    shop.keboola.put_table(
        "in.c-erp.log", columns=["Day", "b", "c"], rows=[["1", "2", "x"], ["1", "3", "y"], ["1", "3 ", "z"]]
    )
    added = shop.run("main.py", "add", "in.c-erp.log", "--key", "Day,b", "--rename", "Day=on_day")
    assert added.returncode == 0 and "only bronze" not in added.stdout, added.stdout
    assert shop.run("main.py", "run", "log").returncode == 0
    assert shop.database.sql("SELECT on_day, b, c FROM silver.log ORDER BY b") == [("1", "2", "x"), ("1", "3", "z")]
    assert shop.database.sql("SELECT column_name, value FROM silver.rejected_values") == [("*", "(1,3,y)")]
    shop.keboola.put_table("in.c-erp.log2", columns=["a"], rows=[["1"]])
    added = shop.run("main.py", "add", "in.c-erp.log2", "--gold", "--rename", "a=b")
    assert "add it again with --key A,B\nwarning: --gold and --rename had no effect" in added.stdout


def test_what_postgresql_could_never_hold_is_refused() -> None:
    names = tuple(f"c{number}" for number in range(1700))
    columns = tuple(ColumnDetail(name) for name in names)
    with pytest.raises(SettingsError, match="in.c-x.t has 1,700 columns; a job can load 1,598. Choose them with --co"):
        new_job(TableDetail("in.c-x.t", columns, names[:1]), Wish("t"))
    many = new_job(TableDetail("in.c-x.t", columns, names[:33]), Wish("t", names[:50]))
    assert [*many.scripts] == ["bronze/t.sql"] and "primary key has 33 columns, and PostgreSQL takes 32" in many.notes[
        0
    ]


def test_a_source_column_called_like_a_name_of_ours_can_be_renamed() -> None:
    columns = tuple(ColumnDetail(name) for name in ("id", "source_row", "key_rank"))
    wish = Wish("t", rename={"source_row": "a", "key_rank": "b"})
    silver = new_job(TableDetail("in.c-x.t", columns, ("id",)), wish).scripts["silver/t.sql"]
    assert "AS source_row_" in silver and "AS key_rank_" in silver


@pytest.mark.long
def test_at_the_limits_of_postgresql_it_works(shop: Morning) -> None:
    names = [f"c{number}" for number in range(1598)]
    shop.keboola.put_table("in.c-x.wide", columns=names, rows=[["1"] * 1598], primary_key=names[:32])
    assert shop.run("main.py", "add", "in.c-x.wide", "--gold").returncode == 0
    done = shop.run("main.py", "run", "wide")
    assert done.returncode == 0, done.stdout


def test_hostile_names_and_a_wide_typed_table_are_loaded(shop: Morning) -> None:
    wide = ["id", *(f"c{number}" for number in range(299))]
    hints = {name: {"KBC.datatype.basetype": "INTEGER"} for name in wide}
    shop.keboola.put_table(
        "in.c-erp.wide", columns=wide, rows=[[str(n) for n in range(300)]], typed=True, primary_key=["id"], hints=hints
    )
    odd = [
        "select",
        'a"b',
        "A'); DROP TABLE x; --",
        "key_rank",
        "source_row",
        "1st",
        "Ä",
        "ctid",
        "x" * 64,
        "dup",
        "Dup",
    ]
    shop.keboola.put_table(
        "in.c-erp.1-odd_Names", columns=odd, rows=[odd], primary_key=["select"], description="half \ud800 a */ pair"
    )
    assert shop.run("main.py", "add", "in.c-erp.wide").returncode == 0
    added = shop.run("main.py", "add", "in.c-erp.1-odd_Names", "--gold")
    assert added.returncode == 0, added.stdout
    assert "warning: 'ctid' is left out: PostgreSQL does not take this name" in added.stdout
    assert "warning: 'dup' and 'Dup' are left out: both would be 'dup' here." in added.stdout
    done = shop.run("main.py", "run", "wide", "odd_names")
    assert done.returncode == 0, done.stdout
    assert shop.database.sql("SELECT id, c298 FROM silver.wide") == [("0", 299)]
    assert shop.database.sql('SELECT "select", a_b, key_rank, source_row, "1st" FROM gold.odd_names') == [
        ("select", 'a"b', "key_rank", "source_row", "1st")
    ]


def test_without_a_table_it_lists_what_no_job_loads(shop: Morning) -> None:
    listed = shop.run("main.py", "add").stdout
    assert re.search(r"in\.c-erp +suppliers +5 +\d{4}-", listed) and "products" not in listed
    assert "main.py add in.c-erp.suppliers" in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.c-erp.\udcff"], "a table is like in.c-bucket.table, not 'in.c-erp.\\udcff'; to list them: "),
        (["suppliers"], "a table is like in.c-bucket.table, not 'suppliers'; to list them: "),
        (["in.c-erp.supliers"], "Did you mean in.c-erp.suppliers?"),
        ([TABLE, "--name", "Bad Name"], "'Bad Name' is no name for a job"),
        ([TABLE, "--columns", "nam"], "has no column 'nam'; did you mean 'name'?"),
        ([TABLE, "--rename", "name"], "--rename needs OLD=NEW, not 'name'"),
        ([TABLE, "--rename", "name=credit"], "two columns would be called 'credit'"),
        ([TABLE, "--rename", "name=Bad Name"], "'Bad Name' is no name for a column"),
        ([TABLE, "--name", "products"], "nothing was written, because this is there already: job products in"),
    ],
)
def test_a_mistake_writes_nothing(shop: Morning, arguments: list[str], message: str) -> None:
    before = files(shop)
    refused = shop.run("main.py", "add", *arguments)
    assert refused.returncode in (1, 2) and message in refused.stdout, refused.stdout
    assert files(shop) == before


#: options that do not fit the table or each other
MISTAKES = [
    (["--rename", "name=a", "--rename", "name=b"], "--rename gives 'name' two names, 'a' and 'b'"),
    (["--columns", "Supplier ID", "--rename", "name=a"], "--rename names 'name', and --columns does not"),
    (["--columns", "name", "--key", "Supplier ID"], "--key names 'Supplier ID', and --columns does not"),
    (["--columns", "name,"], "--columns needs names with commas in between, such as a,b, not 'name,'"),
    (["--key", ""], "--key needs names"),
    (["--key", "nam"], "has no column 'nam'; did you mean 'name'?"),
    (["--bronze-only", "--gold"], "--gold has no effect with --bronze-only"),
    (["--bronze-only", "--rename", "name=a"], "--rename has no effect with --bronze-only"),
    (["--name", ""], "'' is no name for a job: choose one with --name, [a-z]"),
    (["in.c-erp.123"], "'123' is no name for a job: choose one with --name, [a-z]"),
    (
        [f"in.c-erp.{'x' * 51}"],
        f"'{'x' * 51}' is no name for a job: choose one with --name, [a-z][a-z0-9_]*, at most 50",
    ),
    (["--name", "rejected_values"], "silver.rejected_values holds the values that jobs cannot read: use another"),
    (["--name", "data_quality_issues"], "silver.data_quality_issues of sql_scripts/silver/data_quality_rules.sql. Use"),
]


def test_options_that_do_not_fit_are_refused(checkout: Checkout) -> None:
    before = files(checkout)
    with KeboolaServer(polls=0) as keboola:
        for table in (TABLE, "in.c-erp.123", f"in.c-erp.{'x' * 51}"):
            keboola.put_table(table, columns=COLUMNS, rows=ROWS, primary_key=["Supplier ID"])
        settings = Settings(checkout.folder, keboola.url, keboola_token=Secret(keboola.token))
        for typed, message in MISTAKES:
            table = [] if typed[0].startswith("in.") else [TABLE]
            with pytest.raises(SettingsError, match=re.escape(message)):
                add(settings, Console(), main_parser().parse_args(["add", *table, *typed]))
    assert files(checkout) == before


def test_the_registry_keeps_its_order_and_formatting(shop: Morning) -> None:
    registry = shop.folder / "elt_jobs.json"
    before = registry.read_text()
    assert shop.run("main.py", "add", TABLE, "--bronze-only").returncode == 0
    after = registry.read_text()
    assert after.startswith(before.rstrip().removesuffix("}").rstrip())
    assert json.loads(after)["suppliers"] == {
        "extract": {"keboola_table": TABLE},
        "load": {"table": "bronze.suppliers"},
        "transform": ["bronze/suppliers.sql"],
    }


def test_line_ends_of_the_registry_stay(shop: Morning) -> None:
    registry = shop.folder / "elt_jobs.json"
    before = registry.read_bytes().replace(b"\n", b"\r\n")
    registry.write_bytes(before)
    assert shop.run("main.py", "add", TABLE).returncode == 0
    added = registry.read_bytes()
    assert b"suppliers" in added and added.count(b"\n") == added.count(b"\r\n")
    assert shop.run("main.py", "remove", "suppliers", "--yes").returncode == 0
    assert registry.read_bytes() == before


def test_a_removed_last_job_leaves_a_project_that_takes_a_new_one(shop: Morning) -> None:
    shop.keboola.put_table("in.c-erp.log", columns=["a"], rows=[["1"]], primary_key=["a"])
    (shop.folder / "elt_jobs.json").write_text("{}")
    assert shop.run("main.py", "add", "in.c-erp.log").returncode == 0
    assert shop.run("main.py", "remove", "log", "--yes").returncode == 0
    for command in (["check"], ["run"]):
        refused = shop.run("main.py", *command)
        assert refused.returncode == 2
        assert "elt_jobs.json:1: holds no job: to add one, type `python main.py add`\n" in refused.stdout
    assert "suppliers" in shop.run("main.py", "add").stdout
    added = shop.run("main.py", "add", TABLE)
    assert added.returncode == 0, added.stdout
    assert [*json.loads(files(shop)["elt_jobs.json"])] == ["suppliers"]


def test_several_that_add_and_remove_at_once_lose_nothing(checkout: Checkout) -> None:
    """Threads have files, and so locks, of their own, as processes have."""
    (checkout.folder / "elt_jobs.json").write_text(json.dumps({name: job_of(name).entry for name in "abcd"}))
    for name in "abcd":
        (checkout.folder / "sql_scripts/bronze" / f"{name}.sql").write_text("SELECT 1;\n")
    work = [partial(remove_job, checkout.folder, name) for name in "abcd"]
    work += [partial(add_job, checkout.folder, job_of(f"new_{name}")) for name in "abcd"]
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(each) for each in work]:
            done.result()
    assert {*json.loads(files(checkout)["elt_jobs.json"])} == {f"new_{name}" for name in "abcd"}


def test_remove_takes_the_query_of_a_source_unless_another_job_uses_it(checkout: Checkout) -> None:
    checkout.folder.joinpath("sql_scripts/extract").mkdir(exist_ok=True)
    query = checkout.folder / "sql_scripts/extract/costs.sql"
    query.write_text("SELECT 1 AS a;\n")
    for name in "ab":
        add_job(checkout.folder, job_of(name, {"duckdb": "extract/costs.sql"}))
    assert [file.name for file in remove_job(checkout.folder, "a")[0]] == ["a.sql"] and query.exists()
    assert [file.name for file in remove_job(checkout.folder, "b")[0]] == ["b.sql", "costs.sql"]
    assert not query.exists()


def test_the_demo_adds_a_table_of_its_keboola(checkout: Checkout) -> None:
    before = files(checkout)
    added = checkout.run("main.py", "demo", "add", "in.c-erp.unit_costs", "--key", "sku")
    assert added.returncode == 0 and "main.py demo run unit_costs\n" in added.stdout, added.stdout
    assert "sql_scripts/silver/unit_costs.sql" in files(checkout)
    assert checkout.run("main.py", "demo", "remove", "unit_costs", "--yes").returncode == 0
    assert files(checkout) == before


def job_of(name: str, extract: dict[str, str] | None = None) -> NewJob:
    entry = {
        "extract": extract or {"keboola_table": f"in.c-x.{name}"},
        "load": {"table": f"bronze.{name}"},
        "transform": [f"bronze/{name}.sql"],
    }
    return NewJob(name, {f"bronze/{name}.sql": f"CREATE TABLE IF NOT EXISTS bronze.{name} (a text);\n"}, entry)
