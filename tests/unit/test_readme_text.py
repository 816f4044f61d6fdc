"""README and the documents as texts: what they name exists, and the first screen shows what the project is about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sandbox.demo import tour
from tests.support import ROOT
from tests.support.readme import ANSWERS, DOCUMENTS, README


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_line_of_prose_is_too_wide_to_read(path: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", DOCUMENTS[path], flags=re.MULTILINE | re.DOTALL)
    wide = [line for line in prose.splitlines() if len(line) > 140 and not line.lstrip().startswith(("|", "<http"))]
    assert wide == []


def test_readme_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 200


def anchors(text: str) -> set[str]:
    """The targets of links after #: headings in lower case, with a dash for each blank."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target, heading in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", DOCUMENTS[path]):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        assert not heading or heading in anchors(file.read_text(encoding="utf-8")), f"{target}#{heading}"


def test_code_cites_only_sections_that_a_document_has() -> None:
    cited: set[tuple[str, str]] = set()
    for folder in ("lib", "sandbox", "tests", "benchmarks", "sql_scripts"):
        for file in (file for kind in ("*.py", "*.sql") for file in (ROOT / folder).rglob(kind)):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"API note|design section|postgres_notes|design\.md", text) or file == Path(__file__)
            cited |= set(re.findall(r"(docs/\w+\.md) (\d[\d.]*\d|\d)", text))
    assert len(cited) > 20
    for document, number in cited:
        assert re.search(rf"^#+ {re.escape(number)}\.? ", (ROOT / document).read_text(), re.MULTILINE), (
            document,
            number,
        )


def test_make_knows_the_targets_that_it_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_demo_asks_first_what_to_order_and_asks_the_query_that_people_know() -> None:
    assert "gold.reorder_proposals" in tour()[0][1]
    assert "SELECT * FROM gold.product_status_summary WHERE stock_status = 'Low Stock'" in [sql for _, sql in tour()]


def test_the_first_screen_of_readme_is_about_stock() -> None:
    """It has the title, the promise, the two commands, and what to order."""
    screen = "\n".join(README.splitlines()[:40])
    assert screen.startswith("# Inventory analysis: ") and "never a mix" in screen
    assert "```\nmake demo\nmake test\n```" in screen
    assert tour()[0][0] in screen and ANSWERS["10_what_to_reorder"] in screen
