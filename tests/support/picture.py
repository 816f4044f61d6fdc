"""Makes docs/report.png, the picture of the demo's page in README. `make picture` runs it; it needs Chromium."""

from __future__ import annotations

import shutil

from playwright.sync_api import sync_playwright

from tests.support import ROOT


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 960, "height": 800}, device_scale_factor=0.75)
        page = context.new_page()
        page.goto((ROOT / ".elt/demo/report.html").as_uri())
        # the questions in between would make the picture too high
        page.add_style_tag(content="article:nth-of-type(n + 2):nth-of-type(-n + 4) { display: none; }")
        bottom = page.evaluate("document.getElementById('question-50_stock_by_type').getBoundingClientRect().bottom")
        page.screenshot(
            path=ROOT / "docs/report.png",
            full_page=True,
            clip={"x": 0, "y": 0, "width": 960, "height": bottom + 16},
        )
        browser.close()


if __name__ == "__main__":
    main()
