"""The count of refused inputs that docs/reliability*.md gives, and the assertion itself."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bad_input import KINDS, assert_one_line

ROOT = Path(__file__).parents[2]
COUNT = """
import collections, json, pytest, sys
class Counter:
    def pytest_collection_finish(self, session):
        kinds = (item.get_closest_marker("bad_input").kwargs["of"] for item in session.items)
        print("counted", json.dumps(collections.Counter(kinds)))
pytest.main(["--collect-only", "-m", "bad_input", *sys.argv[1:]], plugins=[Counter()])
"""


@pytest.mark.slow
def test_each_kind_of_bad_input_has_the_cases_that_the_page_says():
    # To load all tests takes twice as long.
    tests = [
        path for path in ROOT.glob("tests/**/test_*.py") if "mark.bad_input" in path.read_text()
    ]
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *tests], cwd=ROOT, capture_output=True, text=True, check=True
    )
    counted = json.loads(re.search(r"^counted (.+)$", done.stdout, re.M)[1])
    pages = "".join(path.read_text("utf-8") for path in ROOT.glob("docs/reliability*.md"))
    rows = re.findall(r"\| (\d+) \| `pytest .*bad_input\(of='(\w+)'\)", pages)
    said = {kind: int(number) for number, kind in rows}
    assert set(said) == set(counted) == set(KINDS)
    for kind, number in said.items():
        assert number <= counted[kind] < number + 50, kind
    assert sum(said.values()) >= 150
    assert min(said.values()) >= 25


@pytest.mark.parametrize(
    ("message", "missing"),
    [
        ("a.b: is 3;\nset it to 2", "not one line"),
        ("a.b: is 3; set it\u2028to 2", "not one line"),
        ("something is 3; set it to 2", "names no place"),
        ("a.b: is 3", "says no mend"),
        ("a.b: is 3; this is bad", "says no mend"),
    ],
)
def test_what_is_no_good_message_is_noticed(message, missing):
    with pytest.raises(AssertionError, match=missing):
        assert_one_line(message)
    assert_one_line("a.b: is 3; set it to 2")
