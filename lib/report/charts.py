"""Draws the answer to a question as SVG. pygal computes the shapes; the page's own CSS colours them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
    labels = list(dict.fromkeys(value or "" for value in answer.values(chart.x)))
    if chart.kind == "line":
        labels.sort()
    found = _series(chart, answer, labels)
    largest = sorted(found, key=lambda name: -max(abs(value or Decimal()) for value in found[name]))[:MOST_SERIES]
    series = {name: found[name] for name in found if name in largest}
    drawing = {"line": pygal.Line, "bar": pygal.Bar}[chart.kind](
        width=WIDTH,
        height=HEIGHT,
        explicit_size=False,
        show_dots=len(labels) == 1,
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
    drawing.x_labels = labels
    step = -(-len(labels) // MOST_LABELS)
    drawing.x_labels_major = labels[::step] if step else []
    for name, values in series.items():
        drawing.add(name, [None if value is None else float(value) for value in values])
    notes = [f"The {MOST_SERIES} largest of {len(found)} are drawn."] if len(found) > len(series) else []
    if answer.total > len(answer.rows):
        notes.append(f"Drawn from the first {len(answer.rows):,} of {answer.total:,} rows.")
    return Drawing(_plain_svg(drawing.render_tree(), _in_words(chart, labels, series, title)), " ".join(notes))


def _series(chart: Chart, answer: Answer, labels: Sequence[str]) -> dict[str, list[Decimal | None]]:
    """The values of each line or set of bars."""
    colors = answer.values(chart.color) if chart.color else [chart.y] * len(answer.rows)
    places = {label: place for place, label in enumerate(labels)}
    series: dict[str, list[Decimal | None]] = {}
    for color, x, y in zip(colors, answer.values(chart.x), answer.values(chart.y), strict=True):
        values = series.setdefault(color or "none", [None] * len(labels))
        values[places[x or ""]] = _number(y, chart.y)
    return series


def _number(text: str | None, column: str) -> Decimal | None:
    try:
        number = None if text is None else Decimal(text)
    except InvalidOperation:
        raise ValueError(f"the chart's y names {column!r}, but {(text or '')[:40]!r} there is no number") from None
    return number if number is not None and number.is_finite() else None


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
