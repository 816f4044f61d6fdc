"""The story of the demo: gold, the demo's questions and README show what each product of its cast stands for."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from datetime import timedelta

import pytest

from lib.report.questions import read_questions
from sandbox.demo import DAYS, MORE_QUESTIONS, tour
from sandbox.inventory import CAST, STORY_DAYS
from tests.support import ROOT
from tests.support.databases import EmptyDatabase
from tests.support.mornings import VIEWS, Mornings
from tests.support.readme import ANSWERS, DOCUMENTS, section
from tests.support.story import TODAY, bronze, days
from tests.support.warehouse import CHECKS

FIRST = TODAY - timedelta(days=STORY_DAYS - 1)


@pytest.fixture(scope="module")
def told(module_database: EmptyDatabase) -> Mornings:
    """The warehouse of the demo after its last morning."""
    mornings = Mornings(module_database.connect())
    for day in days(DAYS, TODAY):
        mornings.morning(day, *bronze(day, TODAY))
    return mornings


# ---- what each product of the cast shows ----------------------------------------------------------------------------


def test_the_product_that_runs_out_is_the_first_of_the_forecast_and_is_ordered_today(told: Mornings) -> None:
    forecast = told.sql(
        "SELECT product_sku, days_of_cover FROM gold.stock_forecast ORDER BY expected_stock_out_date LIMIT 1"
    )
    assert forecast == [("KES-ONE-BK", 11)]
    assert told.sql(
        "SELECT product_sku, reorder_quantity, order_by, reason FROM gold.reorder_proposals ORDER BY 1"
    ) == [
        ("KES-ONE-BK", 3 * (14 + 28) - 33, TODAY, "runs out before a delivery arrives"),
        ("KES-ONE-WH", 2 * (14 + 28), TODAY, "below its threshold"),
        ("KES-PRO-GR", 2, TODAY + timedelta(days=14), "below its threshold"),
    ]


def test_one_falls_to_low_stock_and_one_runs_out_in_the_middle(told: Mornings) -> None:
    low = "SELECT product_sku, stock_status, low_since FROM gold.low_stock_products ORDER BY 1"
    assert told.sql(low) == [
        ("KES-ONE-WH", "Out of Stock", FIRST + timedelta(days=14)),
        ("KES-PRO-GR", "Low Stock", FIRST + timedelta(days=21)),
    ]
    changes = "SELECT status_entered, date_key FROM gold.status_changes WHERE product_sku = 'KES-ONE-WH' ORDER BY 2"
    assert told.sql(changes) == [
        ("Low Stock", FIRST + timedelta(days=14)),
        ("Out of Stock", FIRST + timedelta(days=15)),
    ]


def test_one_is_restocked(told: Mornings) -> None:
    came = (
        "SELECT date_key, stock_change FROM gold.stock_movements WHERE product_sku = 'KES-PRO-BK' AND stock_change > 0"
    )
    assert told.sql(came) == [(FIRST + timedelta(days=16), 120 - 2)]


def test_one_lies_in_quarantine_for_three_weeks(told: Mornings) -> None:
    held = "SELECT product_sku, warehouse_name, quarantined_quantity, days_in_quarantine FROM gold.quarantined_stock"
    assert told.sql(held) == [("CAS-LTH-BN", "Brno Slatina", 24, 21)]


def test_one_does_not_move(told: Mornings) -> None:
    assert told.sql("SELECT product_sku, total_stock, last_decrease FROM gold.slow_movers") == [
        ("BCK-STL-24", 140, None)
    ]


def test_one_is_renamed_and_one_is_retired(told: Mornings) -> None:
    versions = (
        "SELECT product_name, product_status, valid_from FROM gold.dim_product WHERE product_sku = '{}' ORDER BY 3"
    )
    assert told.sql(versions.format("CAS-SIL-BK")) == [
        ("Silicone sleeve, black", "Active", FIRST),
        ("Silicone case, black", "Active", FIRST + timedelta(days=12)),
    ]
    assert told.sql(versions.format("KES-MIN-BK")) == [
        ("Kestrel Mini, black", "Active", FIRST),
        ("Kestrel Mini, black", "Inactive", FIRST + timedelta(days=20)),
    ]


def test_what_is_wrong_with_the_data_is_what_the_cast_brings(told: Mornings) -> None:
    summary = "SELECT rule, rows_today, rows_yesterday, pieces FROM gold.data_quality_summary ORDER BY rule"
    assert told.sql(summary) == [
        ("duplicate_sku", 1, 1, 27),
        ("duplicate_stock_row", 3, 3, 27),
        ("missing_dimensions", 1, 1, 26),
        ("on_hand_above_available", 2, 2, 4 + 6),
        ("stock_without_product", 1, 1, 6),
    ]
    assert told.sql(
        "SELECT row_key FROM silver.data_quality_issues WHERE rule ~ 'dimensions|sku|above' ORDER BY 1"
    ) == [
        ("BCK-TTN-24 / 102",),
        ("BND-FAM-02",),
        ("BND-STA-01",),
        ("CBL-CC-1M / 101",),
    ]


def test_products_are_plausible(told: Mornings) -> None:
    """No test names, and sizes that such products really have."""
    limits = {"hardware wallet": 60, "cable": 400, "case": 250, "seed plate": 20, "accessory": 100, "bundle": 3000}
    rows = told.sql(
        "SELECT product_name, product_type, volume_cm3, weight_g FROM gold.dim_product"
        " WHERE is_current AND product_key > 0"
    )
    assert len(rows) == len(CAST) == 15
    for name, kind, volume, weight in rows:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9 ,:-]+", name)
        assert volume is None or 1 < volume < limits[kind], name
        assert 10 < weight < 600, name
        assert ("cable" in name) >= (kind == "cable") and ("case" in name) == (kind == "case"), name


# ---- the demo's answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_every_gold_view_has_rows_in_the_demo(told: Mornings, view: str) -> None:
    assert told.rows(view)


@pytest.mark.parametrize("question, sql", tour())
def test_every_question_of_the_demo_has_an_answer(told: Mornings, question: str, sql: str) -> None:
    assert told.sql(sql), question


def test_the_demos_answers_are_right_and_its_checks_pass(told: Mornings) -> None:
    told.assert_answers_are_right()
    assert [told.broken(check) for check in CHECKS] == [[]] * len(CHECKS)


# ---- README and docs/inventory.md -----------------------------------------------------------------------------------

#: queries that the demo does not run, typed in psql
TYPED = [
    (sql, answer)
    for sql, answer in ANSWERS.items()
    if sql.startswith("SELECT") and sql not in [asked for _, asked in MORE_QUESTIONS]
]


def cells_of(answer: str) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of an answer as the demo prints it."""
    headers, dashes, *lines = answer.splitlines()
    spans = [match.span() for match in re.finditer("-+", dashes)]
    ends = [*(start for start, _ in spans[1:]), None]
    cells = [[line[start:end].strip() for (start, _), end in zip(spans, ends, strict=True)] for line in lines]
    return headers.split(), cells


def without_days(rows: Sequence[Sequence[object]]) -> list[list[str]]:
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    return [[re.sub(r"\d{4}-\d\d-\d\d", "a day", cell) for cell in row] for row in texts]


SHOWN = [
    *((question.title, question.sql, ANSWERS.get(question.name, "")) for question in read_questions(ROOT)),
    *((title, sql, ANSWERS[sql]) for title, sql in MORE_QUESTIONS),
]


@pytest.mark.parametrize("question, sql, answer", SHOWN)
def test_the_documents_show_what_the_demo_answers(told: Mornings, question: str, sql: str, answer: str) -> None:
    """All cells except days: the story starts on another day of the week, and no run has loaded this warehouse. Of a
    long answer the documents show the first rows."""
    headers, cells = cells_of(answer)
    with told.connection.cursor() as cursor:
        cursor.execute(sql)
        rows = cursor.fetchall()
        assert headers == [column.name for column in cursor.description]
    if "load_status" not in sql:
        assert without_days(cells) == without_days(rows)[: len(cells)]
    assert any(question in text for text in DOCUMENTS.values())


@pytest.mark.parametrize("sql, answer", TYPED)
def test_the_documents_show_what_psql_prints(
    told: Mornings, servers, module_database: EmptyDatabase, sql: str, answer: str
) -> None:
    address = " ".join(f"{name}={value}" for name, value in module_database.connect_args.items())
    printed = subprocess.run(
        [servers[18].psql, "-X", "-d", address, "-c", sql], capture_output=True, text=True, check=True
    )
    assert [line.rstrip() for line in printed.stdout.strip("\n").splitlines()] == answer.splitlines()


def test_the_documents_state_the_owners_decisions_with_the_numbers_of_the_demo(told: Mornings) -> None:
    prose = " ".join(section("Data quality").split())
    counts = {
        rule: (rows, pieces)
        for rule, rows, pieces in told.sql("SELECT rule, rows_today, pieces FROM gold.data_quality_summary")
    }
    rows, pieces = counts["on_hand_above_available"]
    assert f"this changes {rows} rows today and takes {pieces} pieces off" in prose
    assert f"In the demo {counts['missing_dimensions'][0]} product has none today" in prose
    assert "`quantity_on_hand` is higher than `quantity_available`, it is set to `quantity_available`" in prose
    assert "**Missing dimensions** are tolerated, because what matters is whether a product is in stock" in prose
