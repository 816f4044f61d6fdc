"""Questions of the page are read from files; charts are drawn from answers; the graph is read from the SQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lib.report.answers import Answer, Column
from lib.report.charts import draw
from lib.report.lineage import lay_out, read_by, read_lineage
from lib.report.questions import Chart, Question, read_questions
from lib.run.plan import read_project
from tests.support import ROOT

Ask = Callable[[str], Question]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    folder = tmp_path / "report/questions"
    folder.mkdir(parents=True)

    def ask(text: str) -> Question:
        (folder / "q.sql").write_text(text, encoding="utf-8")
        (question,) = read_questions(tmp_path)
        return question

    return ask


def test_a_question_has_a_title_words_a_chart_and_a_query(ask: Ask) -> None:
    asked = ask(
        "-- How many?\n-- Pieces,\n-- in all.\n-- chart: line x=day y=pieces color=kind\nSELECT 1 AS day;\n-- end\n"
    )
    assert asked == Question(
        "q", "How many?", "Pieces, in all.", "SELECT 1 AS day", Chart("line", "day", "pieces", "kind"), line=5
    )
    assert ask("-- T\n\n-- Chart: bar x = day, y = pieces\nSELECT 1").chart == Chart("bar", "day", "pieces")
    assert ask("SELECT 1").title == "q", "a file without a comment is called like its file"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "-- T\n-- chart: lines x=a y=b\nSELECT 1",
            "2: a chart is one of line, bar, not 'lines'; did you mean 'line'?",
        ),
        ("-- T\n-- chart:\nSELECT 1", "2: a chart is one of line, bar, not ''"),
        ("-- T\n-- chart: bar x=a\nSELECT 1", "2: the chart has no y; write it as: chart: line x=date_key"),
        ("-- T\n-- chart: bar x=a y=b colour=c\nSELECT 1", "2: 'colour=c' is not understood; did you mean 'color'?"),
        ("-- T\n-- chart: bar x=a y\nSELECT 1", "2: 'y' is not understood"),
        ("-- T\n-- chart: bar x=a x=b y=c\nSELECT 1", "2: 'x=b' is not understood"),
        ("-- T\nSELECT 1;\nSELECT 2;", "3: a question is one SELECT, and nothing else"),
        ("-- T\nDELETE FROM silver.products;", "2: a question is one SELECT, and nothing else"),
        ("-- T\n", "1: a question is one SELECT, and nothing else"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(ask: Ask, text: str, mistake: str) -> None:
    assert ask(text).mistakes[0].startswith(f"report/questions/q.sql:{mistake}")


def test_both_mistakes_of_a_file_are_told(ask: Ask) -> None:
    asked = ask("-- T\n-- chart: bar x=a y=b\n-- chart: pie\nSELECT 1;\nSELECT 2;")
    assert [text.split(": ", 1)[1][:25] for text in asked.mistakes] == [
        "a question is one SELECT,",
        "a question has one chart",
    ]
    assert asked.sql == ""


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "report/questions").mkdir(parents=True)
    (tmp_path / "report/questions/q.sql").write_bytes(b"SELECT '\xff'")
    assert "q.sql:1: cannot be read: save it as UTF-8 text" in read_questions(tmp_path)[0].mistake


def test_the_shipped_questions_have_no_mistake_and_come_in_this_order() -> None:
    questions = read_questions(ROOT)
    assert [question.mistakes for question in questions] == [[]] * 8
    assert [question.name.partition("_")[2] for question in questions] == [
        "what_to_reorder",
        "stock_in_quarantine",
        "what_never_moves",
        "how_reliable_are_the_data",
        "stock_by_type",
        "what_runs_out_next",
        "status_changes",
        "warehouses",
    ]


def answer(*rows: tuple[str | None, ...], total: int | None = None) -> Answer:
    columns = (Column("day"), Column("kind"), Column("pieces", True))
    return Answer(columns, rows, len(rows) if total is None else total)


def test_a_chart_says_in_words_what_it_draws() -> None:
    drawn = draw(
        Chart("line", "day", "pieces", "kind"),
        answer(("10", "a", "7"), ("9", "a", "5.5"), ("9", "<b>", "1"), ("10", "<b>", None)),
        "How many?",
    )
    assert 'role="img"' in drawn.svg and "<b>" not in drawn.svg and "<script" not in drawn.svg
    words = "How many? Line chart of pieces by day, 9 to 10: a from 5.5 to 7; &lt;b&gt; from 1 to 1."
    assert f'aria-label="{words}"' in drawn.svg
    assert drawn.note == ""
    assert "a 7; " not in draw(Chart("bar", "kind", "pieces"), answer(("1", "a", "7")), "T").svg


def test_a_chart_leaves_nothing_out_silently() -> None:
    rows = [("1", f"kind {number}", str(number)) for number in range(12)]
    drawn = draw(Chart("line", "day", "pieces", "kind"), answer(*rows, total=500), "T")
    assert drawn.note == "The 8 largest of 12 are drawn. Drawn from the first 12 of 500 rows."
    assert "kind 11" in drawn.svg and "kind 3" not in drawn.svg


def test_what_cannot_be_drawn_is_counted_and_what_is_alone_is_a_dot() -> None:
    drawn = draw(
        Chart("line", "day", "pieces", "kind"), answer(("1", "a", "NaN"), ("2", "a", "1"), ("1", None, "2")), "T"
    )
    assert drawn.note == "Not drawn, because no finite number: 1."
    assert drawn.svg.count("<circle") == 2 and "NULL from 2 to 2" in drawn.svg


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "-3"], "-3 to 10"),
        (["2026-01-02", "2026-01-01"], "2026-01-01 to 2026-01-02"),
        (["Jan", "Feb", "Apr"], "Jan to Apr"),
    ],
)
def test_a_line_goes_in_the_order_of_numbers_days_or_the_answer(labels: list[str], order: str) -> None:
    rows = [(label, "a", "1") for label in labels]
    assert f"by day, {order}: " in draw(Chart("line", "day", "pieces"), answer(*rows), "T").svg


def test_an_answer_that_does_not_fit_its_chart_is_told() -> None:
    with pytest.raises(ValueError, match="the chart's x names 'date', but the answer has day, kind, pieces"):
        draw(Chart("line", "date", "pieces"), answer(), "T")
    with pytest.raises(ValueError, match="the chart's y names 'kind', but 'a' there is no number"):
        draw(Chart("line", "day", "kind"), answer(("1", "a", "7")), "T")
    with pytest.raises(ValueError, match="several rows have day = 1 and kind = a: name another color, or add them up"):
        draw(Chart("bar", "day", "pieces", "kind"), answer(("1", "a", "7"), ("1", "a", "8")), "T")
    for values in (
        [],
        [("1", "a", None)],
        [("1", "a", "1e290")],
        [("1", "a", "NaN")],
        [(None, None, "1")],
        [("1", "a", "-3")],
    ):
        assert "<svg" in draw(Chart("bar", "day", "pieces", "kind"), answer(*values), "T").svg


def test_the_graph_of_the_shipped_project_is_read_from_its_scripts() -> None:
    registry = read_project(ROOT)
    relations = {script.relation for job in registry.jobs.values() for script in job.transform}
    nodes = read_lineage(registry, {*relations, "silver.data_quality_issues"})
    assert nodes["bronze.products"].reads == ("in.c-interview_de.products",)
    assert nodes["silver.product_rows"].reads == ("bronze.products",)
    assert nodes["gold.reorder_proposals"].reads == (
        "gold.stock_forecast",
        "silver.loaded_days",
        "silver.stock_thresholds",
    )
    assert nodes["silver.data_quality_issues"].scripts == ("silver/product_issues.sql", "silver/stock_issues.sql")
    assert nodes["silver.data_quality_rules"].reads == ()
    assert "gold.reorder_proposals" in read_by(nodes)["gold.stock_forecast"]
    graph = lay_out(nodes)
    places = {box.node.name: box.x for box in graph.boxes}
    assert places["in.c-interview_de.products"] < places["bronze.products"] < places["silver.product_rows"]
    assert places["silver.product_rows"] < places["silver.products"] < places["gold.stock_forecast"]
    assert places["gold.stock_forecast"] < places["gold.reorder_proposals"] < graph.width
    assert len({(box.x, box.y) for box in graph.boxes}) == len(nodes)
