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


@pytest.mark.parametrize(
    ("run", "called"),
    [
        ({}, "none"),
        ({"reference_run": "b-x", "reference_checkpoint": "first"}, "B on x"),
        ({"reference_run": "b-x", "reference_checkpoint": "last"}, "B on x, after SFT"),
    ],
)
def test_the_other_model_is_called_what_it_is(run, called):
    text = next(path for path in RULES if path.name == "common.smk").read_text()
    (function,) = re.findall(r"^def other_model.*?(?=^def )", text, re.MULTILINE | re.DOTALL)
    names = {"RUNS": {"a-x": run, "b-x": {"label": "B on x"}}}
    exec(function, names)
    assert names["other_model"]("a-x") == called
