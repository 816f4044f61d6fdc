"""main.py report, and the page that each run writes."""

from __future__ import annotations

import re
import subprocess
from html import unescape
from pathlib import Path

import pytest

from lib.report.questions import read_questions
from tests.support import ROOT
from tests.support.checkout import Checkout, Morning


@pytest.fixture
def loaded(morning: Morning) -> Morning:
    assert morning.run("elt_daily_load.py").returncode == 0
    return morning


def table_of(page: str, name: str) -> list[list[str]]:
    """The cells of the table with this name, NULL as an empty text."""
    body = re.search(rf'<table data-name="{name}" .*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert body, name
    rows = re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)
    return [
        [
            unescape(re.sub(r'<span class="null".*?</span>', "", cell))
            for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)
        ]
        for row in rows
    ]


def test_the_figures_of_each_question_are_those_of_psql(loaded: Morning) -> None:
    done = loaded.run("main.py", "report")
    path = loaded.folder / ".elt/report.html"
    assert (done.returncode, done.stdout) == (0, f"page        {path}\n")
    page = path.read_text(encoding="utf-8")
    address = " ".join(f"{name}={value}" for name, value in loaded.database.connect_args.items())
    for question in read_questions(ROOT):
        file = loaded.folder / "report/questions" / f"{question.name}.sql"
        command = [loaded.database.server.psql, "-X", "-q", "-A", "-t", "-F", "\x1f", "-d", address, "-f", file]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        expected = [line.split("\x1f") for line in printed.splitlines()]
        assert table_of(page, question.name) == expected[:100], question.name
    assert len(page.encode()) < 2_000_000


def test_a_run_writes_the_page_where_the_settings_say_so_a_failed_one_too(loaded: Morning) -> None:
    page = loaded.folder / ".elt/report.html"
    assert not page.exists()
    settings = (loaded.folder / "elt_settings.toml").read_text()
    loaded.settings(settings + "[run]\nreport = true\n")
    loaded.keboola.delete_table("in.c-interview_de.products")
    assert loaded.run("elt_daily_load.py").returncode == 1
    assert "<strong>Not sound:</strong> gold holds " in page.read_text()
    page.unlink()
    page.mkdir()
    failed = loaded.run("elt_daily_load.py", "--quiet")
    assert failed.returncode == 1
    assert f"warning: the page was not written: the page cannot be written to {page}: " in failed.stdout


def test_a_fault_of_a_template_is_one_line_and_none_of_the_run(loaded: Morning) -> None:
    (loaded.folder / "report/page.html.j2").write_text("{{ 1 / 0 }}")
    refused = loaded.run("main.py", "report")
    fault = f"{loaded.folder}/report: ZeroDivisionError: division by zero"
    assert refused.returncode == 2 and refused.stdout == f"error: {fault}\n"
    loaded.settings((loaded.folder / "elt_settings.toml").read_text() + "[run]\nreport = true\n")
    warned = loaded.run("elt_daily_load.py", "--quiet")
    assert warned.returncode == 0
    assert warned.stdout == f"warning: the page was not written: {fault}\n"


def test_the_page_is_no_part_of_a_run_that_does_not_ask_for_it(loaded: Morning, tmp_path: Path) -> None:
    """Its packages may be missing."""
    for package in ("jinja2", "pygal"):
        (tmp_path / package).mkdir()
        text = f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')"
        (tmp_path / package / "__init__.py").write_text(text)
    environ = {"PYTHONPATH": str(tmp_path)}
    assert loaded.run("main.py", "run", environ=environ).returncode == 0
    refused = loaded.run("main.py", "report", environ=environ)
    assert refused.returncode == 2
    assert re.search("needs the package '(jinja2|pygal)': python -m pip install -r requirements-report", refused.stdout)
    loaded.settings((loaded.folder / "elt_settings.toml").read_text() + "[run]\nreport = true\n")
    warned = loaded.run("main.py", "run", environ=environ)
    assert warned.returncode == 0 and "warning: the page was not written: the page needs the package" in warned.stdout


def test_an_own_question_with_a_chart_is_one_file(loaded: Morning) -> None:
    """As docs/operations.md shows it."""
    document = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```sql\n(-- How many pieces.*?)```", document, re.DOTALL)
    (loaded.folder / "report/questions/90_own.sql").write_text(example)
    output = loaded.folder / "own.html"
    assert loaded.run("main.py", "report", "--output", str(output)).returncode == 0
    page = output.read_text(encoding="utf-8")
    article = page[page.index('id="question-90_own"') :]
    assert "How many pieces does each warehouse hold?" in article and 'aria-label="How many pieces' in article


def test_check_names_mistakes_in_questions(checkout: Checkout) -> None:
    (checkout.folder / "report/questions/90_own.sql").write_text("-- Own\n-- chart: pie x=a y=b\nSELECT 1;")
    found = checkout.run("main.py", "check")
    assert found.returncode == 2 and "report/questions/90_own.sql:2: a chart is one of line, bar" in found.stdout
