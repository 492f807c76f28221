"""Open the page of several studies in Chromium, offline, and each study in it: by tests/page/run.

python tests/page/browse_several.py several.html screenshots node_modules/axe-core/axe.min.js
"""

import os
import sys
from pathlib import Path

from browse import SCHEMES, WIDTHS, check_width, faults_of_accessibility, open_page
from playwright.sync_api import expect, sync_playwright


def main(page_file, folder, axe):
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        executable = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for width, scheme in zip(WIDTHS, SCHEMES, strict=True):
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            problems = []
            page = open_page(context, page_file, problems)
            check_width(page, width)
            problems += faults_of_accessibility(page, axe)
            buttons = page.locator("button[aria-controls]")
            assert buttons.count() > 1
            for number in range(buttons.count()):
                open_study(page, buttons.nth(number))
            check_width(page, width)
            page.screenshot(path=folder / f"several-{width}-{scheme}.png", full_page=True)
            assert problems == [], problems
            context.close()
        browser.close()
    print(f"all is well; look at the screenshots in {folder}")


def open_study(page, button):
    """A study opens by the keyboard, its explorer works in the frame, and it closes again."""
    button.focus()
    page.keyboard.press("Enter")
    frame = page.locator(f"#{button.get_attribute('aria-controls')} iframe").content_frame
    expect(frame.locator("body[data-ready=all]")).to_be_attached(timeout=30_000)
    frame.locator("#samples tbody button").first.click()
    expect(frame.locator("#samples tbody tr.chosen")).to_have_count(1)
    assert frame.locator("#interactions tbody tr").count()
    button.click()
    expect(page.locator(f"#{button.get_attribute('aria-controls')}")).to_be_hidden()
    button.click()
    expect(frame.locator("#samples tbody tr.chosen")).to_have_count(1)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("give the page, a folder for the screenshots, and the file of axe-core")
    main(*map(Path, sys.argv[1:]))
