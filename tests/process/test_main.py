"""main.py as a person types it: overview, check, status, psql, secrets and the demo."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import requests

from lib.cli.arguments import main_parser
from lib.postgres.embedded.server import remove
from sandbox.faults import Fault
from sandbox.inventory import PRODUCT_COLUMNS, products, put_inventory
from tests.support.checkout import TOKEN, Checkout, Morning
from tests.support.readme import blocks
from tests.support.roles import Role

#: variables that a developer may have set, and that the demo must ignore
MISLEADING = {"PGHOST": "nowhere.invalid", "PGSERVICE": "none", "KEBOOLA_TOKEN": "wrong", "POSTGRES_PASSWORD": "wrong"}


# ---- a project ------------------------------------------------------------------------------------------------------


def test_without_a_command_it_says_where_things_stand_and_what_to_type(checkout: Checkout) -> None:
    told = checkout.run("main.py")
    assert told.returncode == 0
    assert "Keboola     not set up" in told.stdout and "PostgreSQL  not set up" in told.stdout
    assert "main.py demo" in told.stdout


def test_it_tells_how_the_last_run_ended(morning: Morning) -> None:
    assert "last run    none yet" in morning.run("main.py").stdout
    assert morning.run("main.py", "run").returncode == 0
    assert "last run    1, done, " in morning.run("main.py").stdout


def test_a_server_that_is_down_does_not_keep_it_from_telling_the_rest(morning: Morning) -> None:
    morning.settings('[postgres]\nhost = "127.0.0.1"\nport = 1\n')
    told = morning.run("main.py")
    assert told.returncode == 0 and "PostgreSQL  cannot connect to PostgreSQL" in told.stdout


def test_check_finds_every_mistake_at_once(checkout: Checkout) -> None:
    jobs = checkout.folder / "elt_jobs.json"
    jobs.write_text(jobs.read_text().replace("silver/products.sql", "silver/product.sql"))
    found = checkout.run("main.py", "check")
    assert found.returncode == 2
    for mistake in (
        "did you mean 'silver/products.sql'?",
        "no Keboola project is configured",
        "no Keboola token",
        "no PostgreSQL",
    ):
        assert mistake in found.stdout
    assert found.stdout.splitlines()[-1] == "error: 4 problems found"


def test_check_warns_of_a_secret_that_other_users_can_read(morning: Morning) -> None:
    token = morning.folder / "token"
    token.chmod(0o644)
    checked = morning.run("main.py", "check")
    assert checked.returncode == 0
    assert (
        f"warning: {token} holds a secret, and other users can read or change it: chmod 600 {token}" in checked.stdout
    )


def test_check_finds_a_script_that_must_not_commit(checkout: Checkout) -> None:
    (checkout.folder / "sql_scripts/silver/products.sql").write_text("SELECT 1;\nCOMMIT;\n")
    assert "silver/products.sql:2: COMMIT is transaction control" in checkout.run("main.py", "check").stdout


def test_check_online_asks_keboola_and_postgresql(morning: Morning) -> None:
    well = morning.run("main.py", "check", "--online")
    assert well.returncode == 0, well.stdout
    assert "job products: in.c-interview_de.products, 11 columns, 50 rows" in well.stdout
    assert well.stdout.splitlines()[-1] == "all is well"


def test_check_online_warns_of_a_token_that_soon_ends_and_names_typed_timestamps(morning: Morning) -> None:
    table = "in.c-interview_de.products"
    hints = {name: {"KBC.datatype.basetype": "TIMESTAMP"} for name in ("name", "not_loaded")}
    columns = (*PRODUCT_COLUMNS, "not_loaded")
    rows = [(*row, None) for row in products(50, 0)]
    morning.keboola.put_table(table, columns=columns, rows=rows, typed=True, hints=hints)
    expires = datetime.now(UTC) + timedelta(days=3)
    verify = requests.get(
        f"{morning.keboola.url}/v2/storage/tokens/verify", headers={"X-StorageApi-Token": TOKEN}, timeout=10
    ).json()
    body = json.dumps({**verify, "expires": expires.isoformat()})
    morning.keboola.faults.add(Fault("verify", "status", nth=None, status=200, body=body))
    checked = morning.run("main.py", "check", "--online")
    assert checked.returncode == 0, checked.stdout
    assert f", expires {expires:%Y-%m-%d %H:%M} UTC" in checked.stdout
    assert f"warning: the Keboola token expires on {expires:%Y-%m-%d at %H:%M} UTC. Make a new one" in checked.stdout
    assert (
        "50 rows; not in bronze.products: 'not_loaded'; typed timestamps: 'name'. The export has no" in checked.stdout
    )


def test_check_online_names_missing_rights_with_the_statement_to_run(morning: Morning) -> None:
    name = morning.database.name
    morning.database.sql(f"CREATE ROLE {name}_poor LOGIN")
    try:
        settings = (morning.folder / "elt_settings.toml").read_text()
        morning.settings(settings.replace('user = "postgres"', f'user = "{name}_poor"'))
        found = morning.run("main.py", "check", "--online")
        assert found.returncode == 2
        statements = [line.strip() for line in found.stdout.splitlines() if line.startswith("    ")]
        assert f"CREATE SCHEMA bronze AUTHORIZATION {name}_poor;" in statements
        for statement in statements:
            morning.database.sql(statement)
        assert morning.run("main.py", "check", "--online").returncode == 0
        assert morning.run("elt_daily_load.py").returncode == 0
    finally:
        morning.database.sql(f"DROP OWNED BY {name}_poor CASCADE")
        morning.database.sql(f"DROP ROLE {name}_poor")


def test_check_finds_silver_scripts_that_write_nothing(checkout: Checkout) -> None:
    silver = checkout.folder / "sql_scripts/silver"
    (silver / "products.sql").write_text("CREATE TEMP TABLE products_now AS SELECT * FROM silver.product_rows;\n")
    (silver / "loaded_days.sql").write_text("CREATE TABLE IF NOT EXISTS silver.loaded_days (day date);\n")
    found = checkout.run("main.py", "check")
    assert found.returncode == 2
    assert "error: silver/products.sql reads rows and writes none: end it with SELECT * FROM elt.pub" in found.stdout
    assert "warning: silver/loaded_days.sql makes a table, and no script writes to it." in found.stdout


def test_check_online_names_a_table_that_keboola_lacks_and_one_that_differs_from_its_script(morning: Morning) -> None:
    morning.database.sql("CREATE SCHEMA silver; CREATE TABLE silver.products (product_sku integer)")
    morning.keboola.delete_table("in.c-interview_de.products")
    found = morning.run("main.py", "check", "--online")
    assert found.returncode == 2 and "in.c-interview_de.products" in found.stdout
    assert "silver/products.sql:5: product_sku is text NOT NULL here, but silver.products has integer:" in found.stdout


def test_status_shows_runs_jobs_and_the_error_of_a_failed_one(morning: Morning) -> None:
    assert "no run yet" in morning.run("main.py", "status").stdout
    morning.run("main.py", "run")
    morning.keboola.delete_table("in.c-interview_de.products")
    morning.run("main.py", "run")
    shown = morning.run("main.py", "status")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    rows = {tuple(line.split()[:2]) for line in lines}
    assert {("2", "failed"), ("1", "done"), ("products", "failed"), ("inventory_gold", "held")} <= rows
    assert re.match(
        r"gold holds \d{4}-\d\d-\d\d, loaded .* UTC; the last run failed: table in.c-interview_de.products", lines[0]
    )
    tables, _, errors = shown.stdout.partition("\nerrors, the newest first\n")
    assert "what took longest when each job was last published" in tables and ".sql" in tables
    assert errors.startswith("run 2: products: table in.c-interview_de.products: HTTP 404")
    # a table begins after a line of dashes and ends at an empty line
    widths = [len(line) for line in tables.partition("\nruns, the newest first")[2].splitlines()]
    assert max(widths) <= 80
    assert re.search(r"  1  done    \d\d-\d\d \d\d:\d\d +[0-9.]+  4 of 4 +[\d,]+  \+[1-9]\d* ~\d+ -0$", tables, re.M)


def test_changes_says_what_a_run_changed_or_why_there_is_nothing_to_say(morning: Morning) -> None:
    def changes(*words: str, exit_code: int = 0) -> str:
        done = morning.run("main.py", "changes", *words)
        assert done.returncode == exit_code, done.stdout
        return done.stdout

    assert changes().startswith("no run has published anything yet; to load everything: ")
    assert json.loads(changes("--json")) == {"runs": []}
    assert morning.run("elt_daily_load.py").returncode == 0
    assert "only counts, because they were empty before: bronze.products," in changes()
    ((sku,),) = morning.database.sql("SELECT min(product_sku) FROM silver.products")
    assert morning.database.sql(
        "UPDATE silver.products SET product_name = NULL WHERE product_sku = %s RETURNING 1", sku
    )
    assert morning.run("elt_daily_load.py", "--full").returncode == 0
    told = changes("--table", "silver.products")
    assert f"  updated   product_sku '{sku}'\n              product_name  NULL -> '" in told and "[" not in told
    assert changes("--key", sku).splitlines()[2:] == told.splitlines()[2:], "only that table has changed"
    since = changes("--since", f"{date.today()}")
    assert told in since and "run 1 of" in since
    (run,) = json.loads(changes("2", "--key", sku, "--json"))["runs"]
    assert (run["run_id"], run["tables"][0]["rows"][0]["key"]) == (2, {"product_sku": sku})
    nothing = changes("--table", "silver.stock_levels").splitlines()[-1]
    assert nothing == "it changed nothing in silver.stock_levels"
    assert "it changed no row with key E'\\x1b[2J'; --since YYYY-MM-DD searches more runs" in changes(
        "--key", "\x1b[2J"
    )
    assert "nobody can say whether it changed a row with key 'x'\n" in changes("1", "--key", "x")
    nowhere = changes("--since", f"{date.today()}", "--key", "it's")
    assert nowhere == (
        f"no run since {date.today()} changed a row with key 'it''s'\n\n"
        "not searched, because rows are not kept or not readable: some tables of run 1\n"
    )
    for words, message in (
        (["3"], "error: there is no run 3; `status` lists the last runs"),
        (["--table", "silver.product"], "error: there is no table 'silver.product'; did you mean 'silver.products'?"),
        (["2", "--since", "2026-01-31"], "error: name a run or --since, not both"),
    ):
        assert changes(*words, exit_code=2) == f"{message}\n"


def test_changes_refuses_what_is_no_run_no_day_and_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["x"], "argument RUN: 'x' is not the number of a run: `status` lists them"),
        (["--since", "yesterday"], "argument --since: 'yesterday' is not a date: write it as 2026-01-31"),
        (["--limit", "-1"], "argument --limit: '-1' is not a number of rows: write 0 or more"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main_parser().parse_args(["changes", *words])
        assert capsys.readouterr().err.splitlines()[-1] == f"main.py changes: error: {message}"


def test_a_reader_sees_changes_with_the_documented_grants_alone(morning: Morning, elt: Role) -> None:
    toml = morning.folder / "elt_settings.toml"
    toml.write_text(toml.read_text().replace('user = "postgres"', f'user = "{elt.name}"'))
    assert morning.run("elt_daily_load.py").returncode == 0
    morning.database.sql(
        "UPDATE silver.products SET product_name = NULL; UPDATE silver.warehouses SET warehouse_name = ''"
    )
    assert morning.run("elt_daily_load.py", "--full").returncode == 0
    reader = Role(morning.database, "reader")
    toml.write_text(toml.read_text().replace(f'user = "{elt.name}"', f'user = "{reader.name}"'))
    refused = morning.run("main.py", "changes")
    assert refused.returncode == 1 and "has the grants that a reader needs" in refused.stdout, refused.stdout
    *_, grants = blocks("sql", "What a run changed")
    morning.database.sql(grants.replace("analyst", reader.name))
    morning.database.sql(
        f"GRANT USAGE ON SCHEMA silver TO {reader.name}; GRANT SELECT ON silver.products TO {reader.name}"
    )
    told = morning.run("main.py", "changes")
    assert told.returncode == 0 and "product_name  NULL -> '" in told.stdout, told.stdout
    assert "your role may not read them, or they were made anew since:\n    silver.warehouses\n" in told.stdout
    assert "warehouse_name" not in told.stdout
    reader.drop()


def test_psql_opens_on_the_configured_database_with_its_own_arguments(morning: Morning) -> None:
    answer = morning.run("main.py", "psql", "-XAtc", "SELECT current_database()", environ={"PATH": "/usr/bin:/bin"})
    assert answer.returncode == 0
    assert answer.stdout.strip() == morning.database.name


def test_a_machine_without_psql_uses_the_one_of_the_wheel(morning: Morning) -> None:
    answer = morning.run("main.py", "psql", "-XAtc", "SELECT 1", environ={"PATH": "/nowhere"})
    assert answer.stdout.strip() == "1"


def test_a_secret_is_set_from_standard_input_shown_without_it_and_deleted(checkout: Checkout, tmp_path: Path) -> None:
    with checkout.start("main.py", "credentials", "set", "keboola") as nothing:
        assert "no secret on standard input" in nothing.communicate()[0] and nothing.returncode == 2
    typed = tmp_path / "typed"
    typed.write_text(TOKEN + "\n")
    with typed.open() as file:
        stored = checkout.run("main.py", "credentials", "set", "keboola", stdin=file)
    assert stored.returncode == 0, stored.stdout
    kept = checkout.folder / ".elt/secrets/keboola_token"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    shown = checkout.run("main.py", "credentials", "show", "keboola")
    assert shown.returncode == 0 and "815-4711-****" in shown.stdout and TOKEN not in shown.stdout
    assert checkout.run("main.py", "credentials", "delete", "keboola").returncode == 0
    assert checkout.run("main.py", "credentials", "show", "keboola").returncode == 2


def helps(parser: argparse.ArgumentParser, typed: str) -> Iterator[tuple[str, str]]:
    """Each command as it is typed, and the examples in its help."""
    yield typed, parser.format_help().partition("example")[2]
    # argparse has no public way to list the commands of a parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from helps(command, f"{typed} {name}")


def test_the_help_of_every_command_has_an_example_of_its_own() -> None:
    _, *commands = helps(main_parser(), "python main.py")
    assert len(commands) == 25
    for typed, examples in commands:
        assert re.search(rf"(^|: +| ){typed}( |$)", examples, re.M), (typed, examples)


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_status_refuses_a_number_of_runs_that_is_none(checkout: Checkout, count: str) -> None:
    refused = checkout.run("main.py", "status", "--runs", count)
    assert refused.returncode == 2
    assert f"argument --runs: '{count}' is not a number of runs: write 1 or more" in refused.stdout


def test_status_knows_a_killed_run_a_removed_job_and_what_a_run_of_some_jobs_left_alone(morning: Morning) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    before = jobs_in(morning.run("main.py", "status").stdout)
    registry = morning.folder / "elt_jobs.json"
    jobs = json.loads(registry.read_text())
    jobs["inventory_gold"]["checks"].append({"script": "checks/x.sql", "on_failure": "warn"})
    (morning.folder / "sql_scripts/checks/x.sql").write_text("SELECT 1 AS one FROM gold.dim_date LIMIT 1;")
    jobs["other"] = {"transform": ["silver/other.sql"], "checks": [{"script": "checks/y.sql", "on_failure": "warn"}]}
    (morning.folder / "sql_scripts/silver/other.sql").write_text("CREATE TABLE IF NOT EXISTS silver.other (id int);")
    (morning.folder / "sql_scripts/checks/y.sql").write_text("SELECT 1 AS one;")
    registry.write_text(json.dumps(jobs))
    ran = morning.run("main.py", "run", "inventory_gold")
    assert ran.returncode == 0, ran.stdout
    assert morning.run("main.py", "run", "other").returncode == 0
    told = morning.run("main.py", "status").stdout
    slowest, _, warning = told.partition("what took longest")[2].partition("checks that warn")
    assert re.search(r"silver/(?!other)", slowest), "also those that the newest run did not have"
    assert "checks/x.sql" in warning and "checks/y.sql" in warning
    assert {job: row[-4:] for job, row in jobs_in(told).items() if "products" in job} == {
        job: row[-4:] for job, row in before.items() if "products" in job
    }
    del jobs["other"]
    registry.write_text(json.dumps(jobs))
    morning.database.sql("UPDATE elt.runs SET status = 'running', finished_at = NULL WHERE run_id = 3")
    told = morning.run("main.py", "status").stdout
    assert jobs_in(told)["other"][0] == "removed" and "\nno longer in elt_jobs.json: other\n" in told
    assert "checks/y.sql" not in told.partition("checks that warn")[2]
    assert re.search(r"^ +3  lost ", told, re.M) and "the last run was killed" in told
    assert re.search(r"^last run    3, lost, \d{4}-\d\d-\d\d \d\d:\d\d UTC$", morning.run("main.py").stdout, re.M)
    morning.database.sql("DROP TABLE elt.job_runs CASCADE")
    assert "The next run repairs schema elt, or says what to do." in morning.run("main.py", "status").stdout


def jobs_in(status: str) -> dict[str, list[str]]:
    """The rows of the table of jobs, by job."""
    table = status.partition("jobs, as of their last run\n")[2].partition("\n\n")[0]
    return {line.split()[0]: line.split()[1:] for line in table.splitlines()[2:]}


# ---- undo -----------------------------------------------------------------------------------------------------------


def test_undo_asks_and_says_when_there_is_nothing(morning: Morning) -> None:
    nothing = "nothing to undo: no run has published a change that was not taken back\n"
    assert (done := morning.run("main.py", "undo")).returncode == 0 and done.stdout == nothing
    assert morning.run("elt_daily_load.py").returncode == 0
    put_inventory(morning.keboola, day=200, odd_names=True)
    assert morning.run("elt_daily_load.py").returncode == 0
    assert morning.run("elt_daily_load.py", "--full").returncode == 0
    master, terminal = os.openpty()
    for answer, exit_code, said in ((b"n\n", 0, "nothing was done"), (b"y\n", 0, "took back run 2")):
        os.write(master, answer)
        with morning.start("main.py", "undo", stdin=terminal) as process:
            shown = process.communicate(timeout=60)[0]
        assert process.returncode == exit_code and said in shown and "Take run 2 back? [y/N]" in shown, shown
        assert "run 3 published later and changed no row. It is taken back with run 2; its scripts stay" in shown
    os.close(terminal)
    os.close(master)
    status = morning.run("main.py", "status").stdout
    assert len(re.findall(r"^ +[23]  done .* undone\b", status, re.MULTILINE)) == 2, status
    refused = morning.run("elt_daily_load.py")
    assert refused.returncode == 1 and "by run 2 was taken back" in refused.stdout, refused.stdout
    # scripts add these rows with plain INSERT
    refused = morning.run("main.py", "undo", "--yes")
    assert refused.returncode == 1 and "run 1 cannot be taken back. Nothing was done." in refused.stdout, refused.stdout
    left = re.findall(r"--except (\S+)$", refused.stdout, re.MULTILINE)
    assert left == ["silver.product_history", "silver.stock_thresholds", "silver.warehouses"]
    excepted = [word for name in left for word in ("--except", name)]
    done = morning.run("main.py", "undo", "--yes", *excepted)
    assert done.returncode == 0 and "took back run 1" in done.stdout, done.stdout
    assert (
        morning.database.sql("SELECT FROM silver.products") == morning.database.sql("SELECT FROM bronze.products") == []
    )
    assert morning.run("main.py", "undo", "--yes").stdout == nothing


# ---- the demo -------------------------------------------------------------------------------------------------------

#: loaded days, days from the first to the last, and whether they are enough for a forecast
DEMO_DAYS = (
    "SELECT count(*), max(day) - min(day), (SELECT count(average_daily_decrease) > 0 FROM gold.stock_forecast)"
    " FROM silver.loaded_days"
)


@contextmanager
def demo_in(folder: Path) -> Iterator[Checkout]:
    """A checkout in this folder; its demo server is removed afterwards."""
    place = Path(tempfile.mkdtemp(dir=folder))
    place.chmod(0o711)
    demo = Checkout(place / "project")
    yield demo
    remove(demo.folder / ".elt/demo/postgres")
    shutil.rmtree(place)


@pytest.fixture
def demo(server_folders: Path) -> Iterator[Checkout]:
    with demo_in(server_folders) as demo:
        yield demo


@dataclass
class Played:
    """The demo of a project without settings: stopped halfway through its mornings, and started again."""

    demo: Checkout
    files_before: dict[Path, bytes]
    stopped: subprocess.CompletedProcess[str]
    finished: subprocess.CompletedProcess[str]
    #: what the commands in the documents print then: the document's text, and the output
    examples: list[tuple[str, str]]


@pytest.fixture(scope="module")
def played(server_folders: Path) -> Iterator[Played]:
    """The demo, played in an environment with variables that it must ignore."""
    with demo_in(server_folders) as demo:
        before = {
            path: path.read_bytes() for path in demo.folder.rglob("*") if path.is_file() and path.suffix != ".pyc"
        }
        with demo.start("main.py", "demo", environ=MISLEADING) as process:
            for line in process.stdout:
                if line.startswith("Loading 29 mornings"):
                    break
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
        stopped = subprocess.CompletedProcess(process.args, process.returncode, rest)
        finished = demo.run("main.py", "demo", environ=MISLEADING)
        yield Played(demo, before, stopped, finished, [*examples(demo)])


def examples(demo: Checkout) -> Iterator[tuple[str, str]]:
    """Each example of `changes` in the documents, and what it prints here. Its day is nine days before today."""
    for block in blocks("", "What a run changed"):
        command, _, shown = block.partition("\n\n")
        nine_days_ago = f"{date.today() - timedelta(days=9)}"
        typed = re.sub(r"\d{4}-\d\d-\d\d", nine_days_ago, command).split()[1:]
        done = demo.run(*typed, environ=MISLEADING)
        assert done.returncode == 0, done.stdout
        yield shown, done.stdout
    yield example_of_preview(demo)


def example_of_preview(demo: Checkout) -> tuple[str, str]:
    """The same for the preview of a script that is changed as the document says."""
    (wanted,) = blocks("sql", "Preview a run")
    (block,) = blocks("", "Preview a run")
    command, _, shown = block.partition("\n\n")
    script = demo.folder / "sql_scripts/silver/stock_thresholds.sql"
    text = script.read_text()
    script.write_text(re.sub(r"^ *WHEN .* THEN 'Low Stock'$", wanted.rstrip("\n"), text, flags=re.M))
    done = demo.run(*command.split()[1:], environ=MISLEADING)
    script.write_text(text)
    assert done.returncode == 0, done.stdout
    printed = done.stdout.partition("\n\n")[2]
    # the view of the history differs by times, which are cut to fit
    without = [re.sub(r"gold.load_status: .*?\n\n", "", text, flags=re.S) for text in (shown, printed)]
    return without[0], without[1]


def test_the_demo_plays_its_mornings_beside_a_job_that_it_knows_nothing_of(demo: Checkout) -> None:
    story = demo.folder / "sandbox/demo.py"
    story.write_text(story.read_text().replace("DAYS = 30", "DAYS = 4"))  # the other tests play all of it
    registry = demo.folder / "elt_jobs.json"
    jobs = json.loads(registry.read_text())
    jobs["stocktaking"] = jobs.pop("products_inventory_locations")
    jobs["inventory_history"]["depends_on"] = ["products", "stocktaking"]
    jobs["suppliers"] = {
        "extract": {"keboola_table": "in.c-main.suppliers"},
        "load": {"table": "bronze.suppliers"},
        "transform": ["bronze/suppliers.sql"],
    }
    # with the job that README adds; the demo has its table
    jobs |= json.loads("{" + "".join(blocks("json", "Add a job")) + "}")
    registry.write_text(json.dumps(jobs))
    (demo.folder / "sql_scripts/bronze/suppliers.sql").write_text(
        "CREATE TABLE IF NOT EXISTS bronze.suppliers (id text);"
    )
    for text in blocks("sql", "Add a job"):
        (demo.folder / text.partition("-- file: ")[2].partition("\n")[0]).write_text(text)
    played = demo.run("main.py", "demo")
    assert played.returncode == 1, played.stdout
    assert "2 held back" not in played.stdout and "suppliers" in played.stdout.splitlines()[-1]
    answer = demo.run("main.py", "demo", "psql", "-XAtc", DEMO_DAYS)
    assert answer.stdout.strip() == "4|3|f", answer.stdout
    worth = "SELECT count(*), count(stock_value), sum(stock_value) > 10000 FROM gold.stock_value"
    assert demo.run("main.py", "demo", "psql", "-XAtc", worth).stdout.strip() == "15|15|t"


def test_the_demo_names_the_morning_that_fails_and_status_knows_the_run(demo: Checkout) -> None:
    script = demo.folder / "sql_scripts/silver/loaded_days.sql"
    script.write_text(script.read_text().replace("elt.run_date()", "elt.run_dat()"))
    played = demo.run("main.py", "demo")
    assert played.returncode == 1, played.stdout
    assert re.search(r"^inventory_history failed: silver/loaded_days.sql:\d+: .*run_dat", played.stdout, re.M)
    summary = r"the morning of \d{4}-\d\d-\d\d: 0 jobs published, 1 failed: inventory_history \("
    assert re.match(summary, played.stdout.splitlines()[-1])
    assert re.search(r"^ +1  failed ", demo.run("main.py", "demo", "status").stdout, re.M)


def test_a_demo_that_is_stopped_goes_on_where_it_was(played: Played) -> None:
    demo, stopped = played.demo, played.stopped
    assert stopped.returncode == 130 and "stopped by Ctrl-C" in stopped.stdout, stopped.stdout
    assert played.finished.returncode == 0, played.finished.stdout
    answer = demo.run("main.py", "demo", "psql", "-XAtc", DEMO_DAYS)
    assert answer.stdout.strip() == "30|29|t", answer.stdout

    # products that an older version of the demo left
    demo.run("main.py", "demo", "psql", "-XAtc", "UPDATE silver.products SET product_sku = 'HW-' || product_sku")
    refused = demo.run("main.py", "demo")
    assert refused.returncode == 1 and "products of another version of the demo" in refused.stdout, refused.stdout
    assert f"rm -r {demo.folder / '.elt/demo'}" in refused.stdout
    demo.run("main.py", "demo", "psql", "-XAtc", "UPDATE silver.products SET product_sku = substr(product_sku, 4)")


def test_the_demo_shows_what_its_runs_changed_as_the_documents_say(played: Played) -> None:
    assert len(played.examples) == 3
    for in_the_document, printed in played.examples:
        # the demo was stopped in between, so the numbers of its runs are others
        assert [re.sub(r"^run \d+", "run", line) for line in without_times(printed)] == [
            re.sub(r"^run \d+", "run", line) for line in without_times(in_the_document)
        ]


def test_the_demo_takes_its_last_load_back_as_the_documents_say(played: Played) -> None:
    demo = played.demo
    shown_in_document, *_ = [text for text in blocks("", "Take back a load") if "demo undo" in text]
    command, _, shown = shown_in_document.partition("\n\n")
    total = "SELECT sum(total_stock), max(date_key) FROM gold.product_status_summary, gold.load_status"
    today = demo.run("main.py", "demo", "psql", "-XAtc", total).stdout
    refused = demo.run("main.py", "demo", "undo")
    assert refused.returncode == 2 and refused.stdout.splitlines()[-1].endswith("without being asked, add --yes")
    done = demo.run(*command.split()[1:], environ=MISLEADING)
    assert done.returncode == 0, done.stdout
    printed = [re.sub(r"(run|changes) \d+", "run", line) for line in without_times(done.stdout)]
    for part in re.split(r"^\.\.\.$", shown, flags=re.MULTILINE):
        lines = [re.sub(r"(run|changes) \d+", "run", line) for line in without_times(part)]
        assert "\n".join(lines) in "\n".join(printed)
    # the next load is held back, and its message has the command that loads it all the same
    held_back = demo.run("main.py", "demo", "run")
    assert held_back.returncode == 1
    (again,) = {line.split("main.py ")[1] for line in held_back.stdout.splitlines() if "--accept" in line}
    assert demo.run("main.py", "demo", "psql", "-XAtc", total).stdout != today
    assert demo.run("main.py", *again.split()).returncode == 0
    assert demo.run("main.py", "demo", "psql", "-XAtc", total).stdout == today


def test_the_demo_needs_nothing_follows_nothing_and_leaves_the_project_alone(played: Played) -> None:
    demo, before, shown = played.demo, played.files_before, played.finished.stdout
    assert played.finished.returncode == 0, shown
    assert "daily load: 4 jobs published" in shown
    assert "gold.product_status_summary" in shown and "KES-ONE-BK" in shown
    after = {path: path.read_bytes() for path in before}
    assert after == before
    made = {path.relative_to(demo.folder).parts[:2] for path in demo.folder.rglob("*") if path not in before}
    assert {parts for parts in made if "__pycache__" not in parts and parts[0] == ".elt"} == {
        (".elt",),
        (".elt", "demo"),
    }
    commands = [
        line.split("main.py ")[1].split("  ")[0].split() for line in shown.splitlines() if "main.py demo" in line
    ]
    assert [words[1] for words in commands] == ["psql", "run", "status", "changes", "fail", "stop"]
    for words in commands:
        extra = ["-XAtc", DEMO_DAYS] if words[1] == "psql" else []
        typed = demo.run("main.py", *words, *extra, environ=MISLEADING)
        assert typed.returncode == 0, typed.stdout
        assert words[1] != "psql" or typed.stdout.split() == ["30|29|t"], typed.stdout
        if words[1] == "fail":
            assert_it_was_a_bad_morning(demo, typed.stdout)


def without_times(text: str) -> list[str]:
    """Lines without days, times and the path of this Python."""
    text = re.sub(r"\S*python\S* main.py", "python main.py", text)
    return re.sub(r"\d{4}-\d\d-\d\d|\d\d:\d\d|\d+\.\d s", "..", text).strip().splitlines()


def assert_it_was_a_bad_morning(demo: Checkout, shown: str) -> None:
    """The mail has the output of a quiet load, and its last command repairs the load."""
    assert "has no column 'quantity_available'; did you mean 'available_quantity'?" in shown
    mailed = [line for line in shown.splitlines() if line.startswith("daily load: ")]
    assert len(mailed) == 1 and "1 failed: products_inventory_locations (" in mailed[0]
    assert "The exit code is 1. Everybody still reads what was loaded before:" in shown
    assert "the last run failed: " in shown
    shown_in_readme, *_ = blocks("", "The mail, line by line")
    assert without_times(shown) == without_times(shown_in_readme)
    healing = shown.splitlines()[-1].split("main.py ")[1].split()
    healed = demo.run("main.py", *healing)
    assert healed.returncode == 0 and "4 jobs published" in healed.stdout
