"""README as a newcomer follows it: run its commands and SQL, create its files, compare its output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg2
import pytest

from sandbox.inventory import put_inventory
from tests.support import ROOT
from tests.support.checkout import TOKEN, Checkout, Morning
from tests.support.databases import sql_once
from tests.support.keyrings import BACKEND as KEYRING
from tests.support.readme import DOCUMENTS, blocks, blocks_in, typed_commands


def psql(morning: Morning, sql: str, user: str = "", folder: Path | None = None) -> str:
    """Run SQL of the README in psql, with roles renamed for this test."""
    server = morning.database.server
    address = dict(morning.database.connect_args)
    if user:
        address["user"] = own_roles(morning, user)
    done = subprocess.run(
        [
            server.psql,
            "-Xq",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            " ".join(f"{name}={value}" for name, value in address.items()),
        ],
        input=own_roles(morning, sql),
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def own_roles(morning: Morning, sql: str) -> str:
    name = morning.database.name
    sql = re.sub(r"\banalyst\b", f"{name}_analyst", re.sub(r"\belt\b(?!\.)", f"{name}_elt", sql))
    return re.sub(r"\bwarehouse\b", name, sql)


def put_cast(morning: Morning, day: int = 740_000) -> None:
    """Put the products of the demo into Keboola, as on the last day of the story."""
    put_inventory(morning.keboola, products=0, day=day, story_ends=day)


class Listener:
    """A web server that records requests."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, bytes]] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                heard.append((self.command, self.path, self.rfile.read(length)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    thread = threading.Thread(target=listener.server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    yield listener
    listener.server.shutdown()
    listener.server.server_close()


@pytest.fixture
def as_readme_says(morning: Morning) -> Iterator[Morning]:
    """Create the role of README and the settings that name it."""
    (create_role,) = blocks("sql", "A real project")
    psql(morning, create_role)
    text = (morning.folder / "elt_settings.toml").read_text()
    morning.settings(text.replace('user = "postgres"', f'user = "{morning.database.name}_elt"'))
    yield morning
    for role in ("analyst", "elt"):
        name = f"{morning.database.name}_{role}"
        if morning.database.sql("SELECT FROM pg_roles WHERE rolname = %s", name):
            morning.database.sql(f"DROP OWNED BY {name} CASCADE")
            morning.database.sql(f"DROP ROLE {name}")


def test_its_settings_and_its_commands_are_what_a_real_project_needs(as_readme_says: Morning) -> None:
    morning = as_readme_says
    commands = [words for words in typed_commands("A real project") if "credentials" not in words]
    assert commands == [["main.py", "check", "--online"], ["elt_daily_load.py"]]
    for words in [*commands, *typed_commands("Run one job"), ["main.py", "status"]]:
        done = morning.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}"
    (settings,) = blocks("toml", "A real project")
    morning.settings(settings)
    assert "elt_settings.toml:" not in morning.run("main.py", "check").stdout


def test_its_lines_for_the_keyring_set_what_is_read(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "ourkeyring.py").write_text(KEYRING)
    environ = {"PYTHONPATH": str(tmp_path), "PYTHON_KEYRING_BACKEND": "ourkeyring.Kept"}
    (lines,) = blocks("python", "Secrets")
    subprocess.run([sys.executable, "-c", lines.replace("...", TOKEN)], env=environ, check=True)
    checkout.settings('[postgres]\nuser = "postgres"\n')
    shown = checkout.run("main.py", "credentials", "show", environ=environ).stdout
    assert "keyring ('KEBOOLA', 'keboola')" in shown and "keyring ('POSTGRES', 'postgres')" in shown

    (settings,) = blocks("toml", "A real project")
    checkout.settings(settings)
    assert "keyring ('POSTGRES'" not in checkout.run("main.py", "credentials", "show", environ=environ).stdout
    of_elt = lines.replace("...", TOKEN).replace('"postgres"', '"elt"')
    subprocess.run([sys.executable, "-c", of_elt], env=environ, check=True)
    assert "keyring ('POSTGRES', 'elt')" in checkout.run("main.py", "credentials", "show", environ=environ).stdout


def typed_by_cron(morning: Morning, line: str) -> subprocess.CompletedProcess[str]:
    """Run the command of a crontab line, with the environment of cron and the shell of the crontab."""
    python = morning.folder / ".venv/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        python.symlink_to(Path(sys.executable))
    found = re.search(r"^\S+ \S+ \S+ \S+ \S+\s+(.*)$", line, re.MULTILINE)
    assert found
    site = Path(psycopg2.__file__).parent.parent
    return subprocess.run(
        [
            "/bin/bash" if "SHELL=/bin/bash" in line else "/bin/sh",
            "-c",
            found[1].replace("/srv/elt", str(morning.folder)),
        ],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site), **morning.environ},
        capture_output=True,
        text=True,
        cwd="/",
    )


def test_the_crontab_line_says_nothing_when_all_is_well_and_keeps_the_exit_code(morning: Morning) -> None:
    (crontab,) = blocks("", "Run daily")
    done = typed_by_cron(morning, crontab)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert morning.database.sql("SELECT status FROM elt.runs") == [("done",)]
    morning.keboola.delete_table("in.c-interview_de.products")
    failed = typed_by_cron(morning, crontab)
    assert failed.returncode == 1 and "1 failed: products" in failed.stdout
    assert (morning.folder / "elt.log").read_text() == failed.stdout


def test_the_lines_for_a_chat_and_a_dead_mans_switch_tell_them(morning: Morning, listener: Listener) -> None:
    chat, switch = (re.sub(r"https://[\w.]+example.com", listener.url, line) for line in blocks("", "Tell somebody"))
    assert typed_by_cron(morning, chat).returncode == 0 and listener.heard == []
    assert typed_by_cron(morning, switch).returncode == 0
    assert listener.heard == [("GET", "/inventory", b"")]
    morning.keboola.delete_table("in.c-interview_de.products")
    assert typed_by_cron(morning, switch).returncode == 1
    typed_by_cron(morning, chat)
    _, (method, path, body) = listener.heard
    assert (method, path) == ("POST", "/hooks/inventory")
    assert "1 failed: products" in json.loads(body)["text"]


def test_the_job_that_it_adds_says_what_the_stock_is_worth_and_its_columns_can_change(as_readme_says: Morning) -> None:
    morning, sql = as_readme_says, as_readme_says.database.sql
    put_cast(morning)
    assert morning.run("elt_daily_load.py").returncode == 0
    for text in blocks("sql", "Add a job"):
        path = re.match(r"-- file: (\S+)", text)
        assert path
        (morning.folder / path[1]).write_text(text)
    (entry,) = blocks("json", "Add a job")
    registry = morning.folder / "elt_jobs.json"
    registry.write_text(json.dumps(json.loads(registry.read_text()) | json.loads("{" + entry + "}"), indent=2))
    costs = [
        (" KES-PRO-GR\n", "61.505", "eur"),
        ("BCK-STL-24", " 9 ", "EUR"),
        ("KES-ONE-BK", "n/a", ""),
        ("OLD", "1", "CZK"),
    ]
    morning.keboola.put_table("in.c-erp.unit_costs", columns=["sku", "cost", "currency"], rows=costs)
    assert morning.run("main.py", "check", "--online").returncode == 0
    loaded = morning.run("elt_run_job.py", "unit_costs")
    assert loaded.returncode == 0, loaded.stdout
    value = (
        "SELECT product_sku, total_stock, unit_cost, currency, stock_value FROM gold.stock_value"
        " WHERE stock_value IS NOT NULL OR product_sku = 'KES-ONE-BK' ORDER BY 1"
    )
    worth = [
        ("BCK-STL-24", 140, 9, "EUR", 1260),
        ("KES-ONE-BK", 33, None, None, None),
        ("KES-PRO-GR", 4, Decimal("61.505"), "EUR", Decimal("246.02")),
    ]
    assert sql(value) == worth
    assert sql("SELECT count(*) FROM gold.stock_value") == sql("SELECT count(*) FROM gold.product_status_summary")

    add_column, retype = blocks("sql", "Change a silver column")
    script = morning.folder / "sql_scripts/silver/unit_costs.sql"
    script.write_text(script.read_text().replace("\nDROP TABLE", f"\n{add_column}\nDROP TABLE"))
    psql(morning, retype)
    again = morning.run("elt_run_job.py", "unit_costs")
    assert again.returncode == 0, again.stdout
    assert sql(value) == worth
    assert sql(
        "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'silver.unit_costs'::regclass AND attname IN ('unit_cost', 'supplier') ORDER BY 1"
    ) == [("supplier", "text"), ("unit_cost", "numeric(12,4)")]

    morning.keboola.put_table("in.c-erp.unit_costs", columns=["sku", "cost"], rows=[("BCK-STL-24", "9")])
    held = morning.run("elt_daily_load.py")
    assert held.returncode == 1
    for job in ("products", "products_inventory_locations", "inventory_history", "inventory_gold"):
        assert re.search(rf"held back: .*\b{job}\b", held.stdout), held.stdout
    assert sql(value) == worth

    jobs = json.loads(registry.read_text())
    del jobs["unit_costs"]
    registry.write_text(json.dumps(jobs))
    for path in ("bronze/unit_costs.sql", "silver/unit_costs.sql", "gold/stock_value.sql"):
        (morning.folder / "sql_scripts" / path).unlink()
    drop, drop_all = blocks("sql", "Add and remove a job")
    psql(morning, drop)
    assert morning.run("main.py", "check", "--online").returncode == 0
    assert morning.run("elt_daily_load.py").returncode == 0

    registry.write_text(json.dumps({"products": {**jobs["products"], "checks": []}}))
    for path in re.findall(r"sql_scripts/(\S+) is used by no job", morning.run("main.py", "check").stdout):
        (morning.folder / "sql_scripts" / path).unlink()
    psql(morning, drop_all)
    alone = morning.run("elt_daily_load.py")
    assert alone.returncode == 0 and "1 job published" in alone.stdout, alone.stdout
    assert sql("SELECT count(*) FROM silver.products") == [(15,)]


def test_its_reader_keeps_its_grants_and_edits_thresholds(as_readme_says: Morning) -> None:
    morning = as_readme_says
    assert morning.run("elt_daily_load.py").returncode == 0
    make_role, edit_thresholds = blocks("sql", "Readers")
    psql(morning, make_role)
    morning.database.sql("DROP VIEW gold.product_status_summary")
    put_inventory(morning.keboola, day=2, odd_names=True, changing=0.5)
    assert morning.run("elt_daily_load.py").returncode == 0
    psql(morning, "SELECT * FROM product_status_summary; SELECT * FROM products;", user="analyst")
    listed = psql(morning, r"\d", user="analyst")
    assert "reorder_proposals" in listed and "stock_thresholds" in listed and "bronze" not in listed

    counts, history, grant = blocks("sql", "What a run changed")
    analyst = f"{morning.database.name}_analyst"
    morning.database.sql(grant.replace("analyst", analyst))
    as_analyst = morning.database.connect_args | {"user": analyst}
    assert "silver.stock_levels" in {row[1] for row in sql_once(as_analyst, counts)}
    (sku,) = morning.database.sql(
        "SELECT key ->> 'product_sku' FROM elt.row_changes WHERE relation = 'silver.stock_levels' LIMIT 1"
    )[0]
    shown = sql_once(as_analyst, history.replace("BCK-STL-24", sku))
    assert (
        shown and {row[0] for row in shown} == {2} and {row[2] for row in shown} <= {"updated", "inserted", "deleted"}
    )

    psql(morning, edit_thresholds, user="analyst")
    edited = (
        "SELECT DISTINCT product_type = 'cable', low_stock_threshold, lead_time_days, cover_days"
        " FROM gold.reorder_proposals ORDER BY 1"
    )
    assert morning.database.sql(edited) == [(False, 5, 21, 35), (True, 20, 30, 35)]
    assert morning.run("elt_daily_load.py").returncode == 0
    assert morning.database.sql(edited) == [(False, 5, 21, 35), (True, 20, 30, 35)]


def test_its_files_for_excel_hold_every_letter(morning: Morning, tmp_path: Path) -> None:
    put_cast(morning)
    assert morning.run("elt_daily_load.py").returncode == 0
    plain, czech, any_letter = blocks("", "A file for Excel")
    for line in (plain, czech, any_letter):
        assert line.count("\n") == 1
        psql(morning, line, folder=tmp_path)
    columns, *rows = (tmp_path / "reorder.csv").read_text(encoding="utf-8").splitlines()
    assert columns.startswith("product_sku,product_name,") and len(rows) == 2

    text = (tmp_path / "warehouses.csv").read_bytes().decode("cp1250")
    assert text.startswith("warehouse_name;quantity_available\n") and "Plzeň Borská pole" in text
    with_bom = (tmp_path / "orders.csv").read_bytes()
    assert with_bom.startswith(b"\xef\xbb\xbfproduct_sku;product_name;")

    emoji = re.sub(r"SELECT .*? FROM [\w.]+", "SELECT '\N{CACTUS}' AS name", czech)
    with pytest.raises(AssertionError, match='no equivalent in encoding "WIN1250"'):
        psql(morning, emoji, folder=tmp_path)
    psql(morning, re.sub(r"SELECT .*? FROM [\w.]+", "SELECT '\N{CACTUS}' AS name", any_letter), folder=tmp_path)
    assert (tmp_path / "orders.csv").read_text(encoding="utf-8-sig") == "name\n\N{CACTUS}\n"


def test_the_sql_of_docs_postgresql_runs(morning: Morning) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    for text in blocks_in(DOCUMENTS[ROOT / "docs/postgresql.md"], "sql"):
        psql(morning, text)
