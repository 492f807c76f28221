"""What the text of the rules must keep to."""

import re
from pathlib import Path

import pytest

RULES = sorted((Path(__file__).parents[2] / "workflow" / "rules").glob("*.smk"))


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_logs_and_benchmarks_lie_in_the_folder_of_the_study(path):
    """Two studies in one working folder would replace each other's."""
    text = path.read_text()
    places = re.findall(r"^    (log|benchmark):\n        (.+)$", text, re.MULTILINE)
    assert len(places) == len(re.findall(r"^    (?:log|benchmark):", text, re.MULTILINE))
    for key, place in places:
        assert place.startswith(f'f"{{RESULTS}}/{key}s/'), place
