"""Reads report/questions/*.sql: each file is one question of the page.

The first comment line is the title, the next ones explain, a line `chart: ..` draws, and the SELECT answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.config.spelling import did_you_mean
from lib.transform.statements import statements

FOLDER = Path("report/questions")
CHART_KINDS = ("line", "bar")
#: what a chart line must and may name
CHART_COLUMNS = {"x": True, "y": True, "color": False}


@dataclass(frozen=True)
class Chart:
    """How the answer is drawn: its kind, and columns of the answer."""

    kind: str
    x: str
    y: str
    #: one line or set of bars for each value of this column; empty: only one
    color: str = ""


@dataclass(frozen=True)
class Question:
    """One file of report/questions."""

    #: the file's name without .sql; also the address of the question in the page
    name: str
    title: str
    explanation: str
    #: the SELECT, without its semicolon; empty if there is none
    sql: str
    chart: Chart | None = None
    #: why there is no answer, as `file:line: ..`
    mistake: str = ""
    #: why there is no chart, as `file:line: ..`
    chart_mistake: str = ""
    #: where the SELECT begins
    line: int = 1

    @property
    def file(self) -> str:
        return f"{FOLDER}/{self.name}.sql"

    @property
    def mistakes(self) -> list[str]:
        return [text for text in (self.mistake, self.chart_mistake) if text]


def read_questions(root: Path) -> list[Question]:
    """The questions of a project in the order of their file names. A mistake is kept in the question."""
    return [_read(file) for file in sorted((root / FOLDER).glob("*.sql"))]


def _read(file: Path) -> Question:
    name, place = file.stem, f"{FOLDER}/{file.name}"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return Question(name, name, "", "", mistake=f"{place}:1: cannot be read: save it as UTF-8 text")
    lines: list[str] = []
    chart, chart_mistake = None, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("--"):
            if line.strip():
                break
            continue
        words = line.removeprefix("--").strip()
        if not words.lower().startswith("chart:"):
            lines.append(words)
            continue
        try:
            if chart is not None:
                raise ValueError("a question has one chart")
            chart = _chart(words[len("chart:") :])
        except ValueError as error:
            chart_mistake = chart_mistake or f"{place}:{number}: {error}"
    title, *explanation = [line for line in lines if line] or [name]
    parts = statements(text)
    sql, mistake = parts[0].text if len(parts) == 1 else "", ""
    if not sql or parts[0].words[:1] not in (("select",), ("with",), ("values",), ("table",)):
        line_number = parts[1].line if len(parts) > 1 else parts[0].line if parts else 1
        sql, mistake = "", f"{place}:{line_number}: a question is one SELECT, and nothing else"
    return Question(
        name, title, " ".join(explanation), sql, chart, mistake, chart_mistake, parts[0].line if parts else 1
    )


def _chart(words: str) -> Chart:
    """Raises ValueError that says what is wrong and shows a line that is right."""
    example = "write it as: chart: line x=date_key y=pieces color=product_type"
    kind, *pairs = re.sub(r"\s*=\s*", "=", words).split() or [""]
    if kind not in CHART_KINDS:
        raise ValueError(f"a chart is one of {', '.join(CHART_KINDS)}, not {kind!r}{did_you_mean(kind, CHART_KINDS)}")
    columns: dict[str, str] = {}
    for pair in pairs:
        key, equals, column = pair.rstrip(",").partition("=")
        if not equals or not column or key not in CHART_COLUMNS or key in columns:
            raise ValueError(f"{pair!r} is not understood{did_you_mean(key, CHART_COLUMNS)}; {example}")
        columns[key] = column
    if lacking := [key for key, is_needed in CHART_COLUMNS.items() if is_needed and key not in columns]:
        raise ValueError(f"the chart has no {lacking[0]}; {example}")
    return Chart(kind, **columns)


def columns_of(chart: Chart) -> Mapping[str, str]:
    """The columns that the chart needs, by what they are for."""
    return {key: column for key, column in (("x", chart.x), ("y", chart.y), ("color", chart.color)) if column}
