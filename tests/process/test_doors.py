"""The scripts as cron or a person runs them: as processes with an empty environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sandbox.faults import Fault
from sandbox.inventory import put_inventory
from tests.support.checkout import TOKEN, Checkout, Morning
from tests.support.databases import sql

SUMMARY = "SELECT * FROM gold.product_status_summary ORDER BY product_sku"


def test_the_daily_load_under_cron_gives_the_same_rows_as_anywhere(morning: Morning, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    under_cron = morning.run("elt_daily_load.py", cwd=elsewhere)
    assert under_cron.returncode == 0, under_cron.stdout
    assert re.fullmatch(r"daily load: 4 jobs published, \d+\.\d s", under_cron.stdout.splitlines()[-1])
    assert "\x1b" not in under_cron.stdout
    assert list(elsewhere.iterdir()) == []
    rows = morning.database.sql(SUMMARY)
    assert len(rows) > 40
    at_a_desk = morning.run("elt_daily_load.py", environ=dict(os.environ) | morning.environ, cwd=morning.folder)
    assert at_a_desk.returncode == 0, at_a_desk.stdout
    assert morning.database.sql(SUMMARY) == rows


def test_a_quiet_load_says_nothing_when_all_is_well_and_everything_when_not(morning: Morning) -> None:
    assert morning.run("elt_daily_load.py", "--quiet").stdout == ""
    put_inventory(morning.keboola, day=2, odd_names=True)
    morning.keboola.delete_table("in.c-interview_de.products")
    failed = morning.run("elt_daily_load.py", "--quiet")
    assert failed.returncode == 1
    assert "1 failed: products (" in failed.stdout.splitlines()[-1]


def test_a_second_run_at_the_same_time_exits_75_and_names_the_first(morning: Morning) -> None:
    morning.keboola.faults.add(Fault("slice", "stall"))
    with morning.start("elt_daily_load.py") as first:
        assert morning.keboola.faults.stalled.wait(30)
        second = morning.run("elt_daily_load.py")
        assert second.returncode == 75
        assert re.search(rf"elt pid {first.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\dZ", second.stdout)
        assert "Nothing was done" in second.stdout
        morning.keboola.faults.release()
        output, _ = first.communicate(timeout=60)
    assert first.returncode == 0, output


def test_the_script_for_one_job_runs_its_list_and_names_on_the_command_line_win(morning: Morning) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    listed = morning.run("elt_run_job.py")
    assert listed.returncode == 0, listed.stdout
    jobs_run = "SELECT job FROM elt.job_runs WHERE run_id = (SELECT max(run_id) FROM elt.runs) AND is_unchanged"
    assert morning.database.sql(jobs_run) == [("products",)]
    assert morning.run("elt_run_job.py", "products_inventory_locations").returncode == 0
    assert morning.database.sql(jobs_run) == [("products_inventory_locations",)]


def test_one_job_after_keboola_moved_on_is_refused_with_the_command_that_works(morning: Morning) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    put_inventory(morning.keboola, day=200, odd_names=True)
    before = morning.database.sql(SUMMARY)
    refused = morning.run("elt_run_job.py", "products")
    assert refused.returncode == 1
    remedy = re.search(r"python\S* (main\.py run (?:\w+ ?)+)", refused.stdout)
    assert remedy and morning.database.sql(SUMMARY) == before
    repaired = morning.run(*remedy[1].split())
    assert repaired.returncode == 0, repaired.stdout
    assert morning.database.sql(SUMMARY) != before


def test_an_analyst_who_edits_thresholds_does_not_hold_up_the_load(morning: Morning) -> None:
    assert morning.run("elt_daily_load.py").returncode == 0
    analyst = morning.database.connect()
    analyst.autocommit = False
    sql(analyst, "UPDATE silver.stock_thresholds SET low_stock_threshold = 7")
    put_inventory(morning.keboola, day=2, odd_names=True)
    loaded = morning.run("elt_daily_load.py")
    assert loaded.returncode == 0, loaded.stdout
    analyst.commit()
    assert morning.database.sql("SELECT low_stock_threshold FROM silver.stock_thresholds") == [(7,)]


def test_an_unknown_job_suggests_the_nearest(morning: Morning) -> None:
    mistyped = morning.run("elt_run_job.py", "prodcts")
    assert mistyped.returncode == 2
    assert mistyped.stdout.startswith("error: no job is named 'prodcts'; did you mean 'products'?")


def test_nothing_set_up_is_told_what_to_write_and_offered_the_demo(checkout: Checkout) -> None:
    nothing = checkout.run("elt_daily_load.py")
    assert nothing.returncode == 2
    assert "[postgres]" in nothing.stdout and "python main.py demo" in nothing.stdout
    assert "Traceback" not in nothing.stdout


def test_missing_packages_name_the_interpreter_and_the_command(checkout: Checkout) -> None:
    bare = checkout.run("elt_daily_load.py", environ={"PGHOST": "x"}, flags=("-S",))
    assert bare.returncode == 2
    assert "is not installed for" in bare.stdout and "-m pip install -r requirements.txt" in bare.stdout


def test_a_refused_token_ends_the_run_with_one_message(morning: Morning) -> None:
    refused = morning.run("elt_daily_load.py", environ={"KEBOOLA_TOKEN": "815-4711-mistyped"})
    assert refused.returncode == 2
    assert "401" in refused.stdout and "The token came from KEBOOLA_TOKEN: correct it there" in refused.stdout
    assert "mistyped" not in refused.stdout and "Traceback" not in refused.stdout


def test_a_database_that_cannot_be_reached_ends_the_run_with_one_message(morning: Morning) -> None:
    morning.settings(f'[keboola]\nurl = "{morning.keboola.url}"\n[postgres]\nhost = "127.0.0.1"\nport = 1\n')
    lost = morning.run("elt_daily_load.py")
    assert lost.returncode == 1
    assert "cannot connect to PostgreSQL" in lost.stdout and "port 1" in lost.stdout


def test_no_secret_is_seen_in_output_arguments_or_history(morning: Morning) -> None:
    morning.keboola.faults.add(Fault("slice", "status", status=403, nth=None))
    with morning.start("elt_daily_load.py") as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    history = morning.database.sql("SELECT concat(runs, job_runs) FROM elt.runs LEFT JOIN elt.job_runs USING (run_id)")
    for text in (output, str(history)):
        assert TOKEN not in text and "aVerySecret" not in text


@pytest.mark.parametrize(
    "words", [("elt_daily_load.py",), ("elt_run_job.py",), ("main.py", "run"), ("main.py", "demo", "run")]
)
def test_every_door_has_help_with_examples_of_its_own(checkout: Checkout, words: tuple[str, ...]) -> None:
    helped = checkout.run(*words, "--help")
    assert helped.returncode == 0
    examples = re.findall(r"^  python (.*?)(?:  |$)", helped.stdout.partition("examples:")[2], re.M)
    typed = " ".join(words)
    assert examples == [typed, f"{typed} products", f"{typed} --accept products:shrink"]
    assert "--accept-shrink" in helped.stdout and max(map(len, helped.stdout.splitlines())) <= 120


#: Runs the daily load with a hook on cursor.execute. For each silver script it prints the deepest call stack of our
#: functions: those of the main thread, which waits, and those of the thread that works.
COUNT_FRAMES = """
import atexit, runpy, sys, threading
from pathlib import Path
HERE, MAIN = str(Path(__file__).parent), threading.main_thread().ident
deepest = {}

def functions(frame):
    found = []
    while frame:
        if frame.f_code.co_filename.startswith(HERE) and frame.f_code.co_filename != __file__:
            found.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return found[::-1]

def hook(frame, event, called):
    script = frame.f_locals.get("script")
    if event == "c_call" and called.__name__ == "execute" and getattr(script, "layer", "") == "silver":
        found = functions(frame) if threading.get_ident() == MAIN else functions(sys._current_frames()[MAIN])
        found += functions(frame) if threading.get_ident() != MAIN else []
        deepest[script.path] = max(deepest.get(script.path, []), found, key=len)

def say():
    threading.setprofile(None)
    for path, found in deepest.items():
        print("frames:", path, len(found), *found)

# also called if the process ends at once because a thread is left
atexit.register(say)
threading.setprofile(hook)
sys.argv = [str(Path(HERE) / "elt_daily_load.py")]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_at_most_twelve_functions_lead_from_the_daily_load_to_the_driver(morning: Morning) -> None:
    (morning.folder / "count_frames.py").write_text(COUNT_FRAMES)
    counted = morning.run("count_frames.py")
    found = re.findall(r"^frames: (\S+) (\d+) (.*)", counted.stdout, re.MULTILINE)
    assert len(found) > 5, counted.stdout
    for path, number, functions in found:
        assert int(number) <= 12, f"{path}: {functions}"
        assert functions.startswith("<module> run_job ") and functions.endswith(" run_script run_statement")
