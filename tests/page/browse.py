"""Open the page of a study in Chromium, offline, and use it as a reader does; tests/page/run does. By hand:

    pip install playwright
    npm install axe-core
    python tests/page/browse.py results/report.html screenshots node_modules/axe-core/axe.min.js

It needs /usr/bin/chromium (Debian: apt install chromium), or another one named by CHROMIUM. It stops with
the first thing that is not as it must be, and leaves screenshots to be looked at. With the file of axe-core
faults of accessibility that are serious or worse are such things too.
"""

import os
import sys
import time
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

WIDTHS = (1400, 420)
SCHEMES = ("light", "dark")
SECONDS = 2  # until prompts and interactions can be used
CHOSEN = "#{} tbody tr.chosen"
ALLOWED = ("file:", "data:", "blob:")


def main(page_file, folder, axe=None):
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        executable = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in SCHEMES:
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, color_scheme=scheme
                )
                problems = []
                page = open_page(context, page_file, problems)
                check_width(page, width)
                use_explorer(page)
                compare_runs(page)
                follow_numbers(page)
                if axe is not None:
                    problems += faults_of_accessibility(page, axe)
                page.evaluate("document.querySelector('header').style.position = 'static'")
                page.screenshot(path=folder / f"page-{width}-{scheme}.png", full_page=True)
                page.locator("#explorer").screenshot(path=folder / f"explorer-{width}-{scheme}.png")
                if (width, scheme) == (WIDTHS[0], SCHEMES[0]):
                    page.pdf(path=folder / "page.pdf")
                assert problems == [], problems
                context.close()
        browser.close()
    print(f"all is well; look at the screenshots in {folder}")


def open_page(context, page_file, problems):
    """Open the page without a network; what it logs, and every request that leaves it, is a problem."""
    context.set_offline(True)
    page = context.new_page()
    page.on("console", lambda message: problems.append(f"console: {message.type}: {message.text}"))
    page.on(
        "dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss())
    )
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: request.url.startswith(ALLOWED) or problems.append(f"asks {request.url}"),
    )
    begin = time.monotonic()
    page.goto(page_file.resolve().as_uri())
    page.wait_for_selector("body[data-ready]")
    took = time.monotonic() - begin
    print(f"usable after {took:.1f} s{'' if took < SECONDS else ', which is too long'}")
    page.wait_for_selector("body[data-ready=all]")
    return page


def check_width(page, width):
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "wider than the screen"


def use_explorer(page):
    slider, name = page.locator("#step"), page.locator("#step-name")
    last = int(slider.get_attribute("max"))
    assert slider.input_value() == str(last)
    slider.focus()
    page.keyboard.press("Home")
    for step in range(1, last + 1):
        page.keyboard.press("ArrowRight")
        assert slider.input_value() == str(step)
        assert "before SFT" not in name.inner_text()
    # Every prompt of every run, by the keyboard, shows its own text and words.
    for run in range(page.locator("#run option").count()):
        page.select_option("#run", str(run))
        page.select_option("select[aria-controls=samples]", "100")
        for row in range(page.locator("#samples tbody tr").count()):
            choose_row(page, row)
    # Filters leave what they name.
    kind = page.locator('[data-filter="kind"]')
    kind.select_option("or")
    cells = page.locator("#interactions tbody tr td:nth-child(2)").all_inner_texts()
    assert set(cells) <= {"or"}, cells
    kind.select_option("")


def choose_row(page, row):
    button = page.locator("#samples tbody tr").nth(row).locator("button")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator(CHOSEN.format("samples"))).to_have_count(1)
    begin = button.text_content().removesuffix("…")
    shown = page.locator("#prompt").text_content()
    words = page.locator("#prompt mark").all_text_contents()
    assert "".join(begin.split())[:40] in "".join(shown.split()), (begin, shown)
    chosen = page.locator("#interactions tbody button")
    if chosen.count():
        chosen.first.focus()
        page.keyboard.press("Enter")
        cells = page.locator(CHOSEN.format("interactions")).first.locator("td")
        marked = page.locator("#prompt mark.chosen").all_text_contents()
        joined = {"and": " ∧ ", "or": " ∨ "}[cells.nth(1).inner_text()].join(marked)
        assert chosen.first.text_content() == joined
        assert len(marked) == int(cells.nth(2).inner_text())
        assert set(marked) <= set(words)
        expect(page.locator("#along .scatterlayer .trace")).to_have_count(1)


def compare_runs(page):
    """A second run beside the first: the same run has the same class and the same course."""
    if page.locator("#run option").count() < 2:
        assert page.locator("#other").is_hidden()
        return
    for run in range(page.locator("#run option").count()):
        page.select_option("#run", str(run))
        page.select_option("#other", str(run))
        names = page.locator("#interactions thead th").all_inner_texts()
        own, other = names.index("Class"), names.index("In the second run")
        for row in page.locator("#interactions tbody tr").all():
            cells = row.locator("td").all_inner_texts()
            assert len(cells) == 1 or cells[own] == cells[other], cells
        values, beside = (
            page.locator(f"#{name} dd").all_inner_texts() for name in ("values", "beside-values")
        )
        assert values == beside
        if page.locator("#interactions tbody button").count():
            page.locator("#interactions tbody button").first.click()
            expect(page.locator("#along .scatterlayer .trace")).to_have_count(2)
    page.select_option("#other", "")
    expect(page.locator("#beside")).to_be_hidden()


def faults_of_accessibility(page, axe):
    """What axe finds serious, with its place."""
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"axe: {one['impact']}: {one['id']}: {one['nodes'][0]['target']} ({len(one['nodes'])} places)"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def follow_numbers(page):
    """A number of the verdict opens the table that it comes of."""
    link = page.locator("#answer a.number").first
    link.click()
    table = page.locator(f"[id='{link.get_attribute('href')[1:]}'] table")
    expect(table).to_be_visible()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("give the page, a folder for the screenshots, and the file of axe-core")
    main(*map(Path, sys.argv[1:]))
