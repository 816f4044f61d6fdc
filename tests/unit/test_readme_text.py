"""README as a text: what it names is there, and its first screen says what this is about."""

from __future__ import annotations

import re

from sandbox.demo import TOUR
from tests.support import ROOT
from tests.support.readme import ANSWERS, README


def test_no_line_of_prose_is_too_wide_to_read() -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", README, flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > 140 and not line.lstrip().startswith("|")] == []


def test_every_file_that_it_names_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_knows_the_targets_that_it_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_demo_asks_first_what_to_order_and_asks_the_query_that_people_know() -> None:
    assert "gold.reorder_proposals" in TOUR[0][1]
    assert "SELECT * FROM gold.product_status_summary WHERE stock_status = 'Low Stock'" in [sql for _, sql in TOUR]


def test_the_first_screen_of_readme_is_about_stock() -> None:
    """Title, the two commands, what to order, and the two queries that people know, before the first section."""
    screen, _, _ = README.partition("\n## ")
    assert screen.startswith("# Inventory analysis: ") and len(screen.rstrip().splitlines()) <= 50
    assert "```\nmake demo\nmake test\n```" in screen
    asked = [sql for sql in ANSWERS if f"{sql};" in screen]
    assert asked[:2] == [sql for _, sql in TOUR[:2]]
    assert "WHERE product_status = 'Active'" in asked[2]
