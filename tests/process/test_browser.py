"""The page in a real browser: Chromium from the system's packages, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from sandbox.inventory import put_inventory
from sandbox.keboola_server import KeboolaServer
from tests.support.checkout import TOKEN, Morning
from tests.support.databases import EmptyDatabase

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="the page is not opened: no Chromium here (apt-get install chromium)"),
]
DESKTOP, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, module_database: EmptyDatabase) -> Iterator[Path]:
    """The page of a morning whose names are as wide and as odd as names get."""
    folder = tmp_path_factory.mktemp("browser")
    with KeboolaServer(token=TOKEN, polls=0) as keboola:
        put_inventory(keboola, day=1, products=150, odd_names=True)
        morning = Morning(folder / "project", keboola, module_database)
        assert morning.run("elt_daily_load.py").returncode == 0
        (morning.folder / "report/questions/05_odd.sql").write_text(
            "-- <script>alert(1)</script>\n-- chart: line x=n y=m color=name\n"
            "SELECT n, n * n AS m, repeat('wide <b> ', 20) AS name FROM generate_series(1, 150) AS n;"
        )
        (morning.folder / "report/questions/06_mixed.sql").write_text(
            "-- Mixed\nSELECT * FROM (VALUES ('b', 10, '=1+1'), ('a;\"', 9, '-2'), (NULL, NULL, 'x'),"
            " ('c', 100.5, 'y'), ('d', -1, ''), ('e', 2, ''), ('f', 3, ''), ('g', 4, '')) AS v (name, pieces, note);"
        )
        assert morning.run("main.py", "report").returncode == 0
        yield morning.folder / ".elt/report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # as root, Chromium needs --no-sandbox
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def scheme() -> str:
    """Whether the page is light or dark."""
    return "light"


@pytest.fixture
def page(scheme: str, browser: Browser, file: Path) -> Iterator[Page]:
    context = browser.new_context(
        viewport=DESKTOP, color_scheme=scheme, offline=True, locale="cs-CZ", accept_downloads=True
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(file.as_uri())
    yield page
    assert complaints == []
    context.close()


#: where the page is dark, only its colours differ
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}


@pytest.mark.parametrize("scheme, sizes, rules", [("light", (DESKTOP, PHONE), {}), ("dark", (DESKTOP,), COLOURS)])
def test_axe_finds_no_serious_violation_and_nothing_scrolls_sideways(
    page: Page, sizes: Sequence[ViewportSize], rules: dict
) -> None:
    for size in sizes:
        page.set_viewport_size(size)
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        found = Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
        assert [
            (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
        ] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def cells(page: Page, table: str, column: int) -> list[str]:
    rows = page.locator(f"table[data-name='{table}'] tbody tr:visible td:nth-child({column})")
    return rows.all_inner_texts()


def test_tables_are_sorted_filtered_and_saved(page: Page) -> None:
    name, pieces = (page.locator("table[data-name='06_mixed'] th button").nth(number) for number in (0, 1))
    pieces.click()
    assert cells(page, "06_mixed", 2) == ["-1", "2", "3", "4", "9", "10", "100.5", "–"]
    pieces.press("Enter")
    assert cells(page, "06_mixed", 2) == ["100.5", "10", "9", "4", "3", "2", "-1", "–"]
    name.click()
    assert cells(page, "06_mixed", 1)[:3] == ['a;"', "b", "c"]
    page.get_by_role("searchbox", name="Filter rows: Mixed").fill("1")
    assert cells(page, "06_mixed", 1) == ["b", "c", "d"]
    page.get_by_role("searchbox", name="Filter rows: Mixed").fill("")
    with page.expect_download() as download:
        page.locator("article", has_text="Mixed").get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename == "06_mixed.csv"
    saved = Path(download.value.path()).read_bytes().decode("utf-8-sig")
    # as a Czech Excel expects it; a text that Excel would run as a formula is quoted
    assert saved.split("\r\n")[:3] == ["name;pieces;note", '"a;""";9;\'-2', "b;10;'=1+1"]
    assert "c;100,5;y" in saved


def test_a_box_of_the_graph_opens_the_description_of_its_table(page: Page) -> None:
    description = page.locator("[id='table-silver.products']")
    assert description.get_attribute("open") is None
    page.locator(".graph-of-tables a[data-name='silver.products']").focus()
    assert page.locator(".arrow.on").count() > 3
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('table-silver.products').open")
    assert description.get_by_text(
        "Stock keeping unit (SKU), without the invisible characters around it."
    ).first.is_visible()


def test_the_page_says_how_old_it_is(page: Page) -> None:
    assert "minute" in page.locator("#age").inner_text()
