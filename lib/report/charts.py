"""Draws the answer to a question as SVG. pygal computes the shapes; the page's own CSS colours them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

import pygal  # type: ignore[import-untyped]
from pygal.etree import etree  # type: ignore[import-untyped]

from lib.report.answers import Answer
from lib.report.questions import Chart, columns_of

# pygal adds a hook for its plugins to Python's import, in a form that Python 3.12 no longer knows and 3.11 warns of
sys.meta_path[:] = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]

#: lines or sets of bars that one chart has at most, and labels below it
MOST_SERIES, MOST_LABELS = 8, 6
#: characters of a label, and the largest number that can be drawn
LABEL, LARGEST = 20, Decimal("1e100")
WIDTH, HEIGHT = 900, 340


@dataclass(frozen=True)
class Drawing:
    """A chart as an SVG element with a text alternative, and what it leaves out."""

    svg: str
    note: str = ""


def draw(chart: Chart, answer: Answer, title: str) -> Drawing:
    """Draw an answer. Raises ValueError if it does not fit the chart."""
    names = [column.name for column in answer.columns]
    for key, column in columns_of(chart).items():
        if column not in names:
            raise ValueError(f"the chart's {key} names {column!r}, but the answer has {', '.join(names)}")
    labels = _in_order(chart, list(dict.fromkeys(map(_label, answer.values(chart.x)))))
    found, left_out = _series(chart, answer, labels)
    largest = sorted(found, key=lambda name: -max(abs(value or Decimal()) for value in found[name]))[:MOST_SERIES]
    series = {name: found[name] for name in found if name in largest}
    drawing = {"line": pygal.Line, "bar": pygal.Bar}[chart.kind](
        width=WIDTH,
        height=HEIGHT,
        explicit_size=False,
        show_dots=False,
        show_legend=bool(chart.color),
        legend_at_bottom=True,
        truncate_legend=-1,
        truncate_label=-1,
        show_minor_x_labels=False,
        include_x_axis=True,
        allow_interruptions=True,
        margin=12,
        js=[],
        css=[],
    )
    drawing.x_labels = [label if len(label) <= LABEL else label[: LABEL - 1] + "…" for label in labels]
    step = -(-len(labels) // (MOST_LABELS if chart.kind == "line" else 2 * MOST_LABELS))
    drawing.x_labels_major = drawing.x_labels[::step] if step else []
    for name, values in series.items():
        numbers = [None if value is None else float(value) for value in values]
        # a line needs two points; one alone is drawn as a dot
        drawing.add(name, numbers, show_dots=sum(number is not None for number in numbers) == 1)
    notes = [f"The {MOST_SERIES} largest of {len(found)} are drawn."] if len(found) > len(series) else []
    if left_out:
        notes.append(f"Not drawn, because no finite number: {left_out:,}.")
    if answer.total > len(answer.rows):
        notes.append(f"Drawn from the first {len(answer.rows):,} of {answer.total:,} rows.")
    return Drawing(_plain_svg(drawing.render_tree(), _in_words(chart, labels, series, title)), " ".join(notes))


def _label(value: str | None) -> str:
    return "NULL" if value is None else value or "(empty)"


def _in_order(chart: Chart, labels: list[str]) -> list[str]:
    """Numbers and days of a line in their order; everything else in the order of the answer."""
    if chart.kind == "line":
        with suppress(InvalidOperation):
            return sorted(labels, key=Decimal)
        if all(re.match(r"\d{4}-\d\d-\d\d(?!.*BC)", label) for label in labels):
            return sorted(labels)
    return labels


def _series(chart: Chart, answer: Answer, labels: Sequence[str]) -> tuple[dict[str, list[Decimal | None]], int]:
    """The values of each line or set of bars, and how many values cannot be drawn."""
    colors = map(_label, answer.values(chart.color)) if chart.color else [chart.y] * len(answer.rows)
    places = {label: place for place, label in enumerate(labels)}
    series: dict[str, list[Decimal | None]] = {}
    seen: set[tuple[str, str]] = set()
    left_out = 0
    for color, x, y in zip(colors, map(_label, answer.values(chart.x)), answer.values(chart.y), strict=True):
        if (color, x) in seen:
            which = f" and {chart.color} = {color}" if chart.color else ""
            raise ValueError(
                f"several rows have {chart.x} = {x}{which}: name another color, or add them up in the query"
            )
        seen.add((color, x))
        number = _number(y, chart.y)
        left_out += y is not None and number is None
        series.setdefault(color, [None] * len(labels))[places[x]] = number
    return series, left_out


def _number(text: str | None, column: str) -> Decimal | None:
    """The number; None for NULL, NaN, infinity, and what no drawing can show. Raises ValueError for any other text."""
    try:
        number = None if text is None else Decimal(text)
    except InvalidOperation:
        raise ValueError(f"the chart's y names {column!r}, but {(text or '')[:40]!r} there is no number") from None
    return number if number is not None and number.is_finite() and abs(number) < LARGEST else None


def _in_words(chart: Chart, labels: Sequence[str], series: dict[str, list[Decimal | None]], title: str) -> str:
    """The text alternative: what is drawn, and where each line begins and ends."""
    if not labels:
        return f"{title} The chart is empty."
    parts = []
    for name, values in series.items():
        known = [value for value in values if value is not None]
        if known and chart.kind == "line":
            parts.append(f"{name} from {known[0]:f} to {known[-1]:f}")
        elif known:
            parts += [f"{label} {value:f}" for label, value in zip(labels, values, strict=True) if value is not None]
    kind = "Line chart" if chart.kind == "line" else "Bar chart"
    return f"{title} {kind} of {chart.y} by {chart.x}, {labels[0]} to {labels[-1]}: {'; '.join(parts)}."


def _plain_svg(root: etree.Element, words: str) -> str:
    """The drawing without pygal's styles, scripts and tooltips."""
    for parent in list(root.iter()):
        for child in list(parent):
            unwanted = not isinstance(child.tag, str) or child.tag.rpartition("}")[2] in (
                "defs",
                "desc",
                "title",
                "script",
            )
            if unwanted or child.get("class") in ("tooltip-overlay", "plot text-overlay", "plot tooltip-overlay"):
                parent.remove(child)
    for name in [name for name in root.attrib if name == "id"]:
        del root.attrib[name]
    root.set("role", "img")
    root.set("aria-label", words)
    text: str = etree.tostring(root, encoding="unicode")
    return text
