from pathlib import Path

import pytest

from sft_interactions.analysis.metrics import FEWEST_SAMPLES
from sft_interactions.report_page.captions import render

CAPTIONS = Path(__file__).parents[3] / "workflow" / "report"
LABELS = [
    "*a* **b** `c` d_ |e| :f:`g`",
    "a\\b",
    "<script>alert(1)</script> & more",
    "two\nlines .. image:: x.png",
    "$x$ 例 हिन्दी 👩‍👩‍👧",
    "`a <https://example.org>`_ [1]_ {{ 7 * 7 }}",
]


def test_a_caption_is_markup_and_its_params_are_filled_in():
    text = "**Title.** Level {{ '%g' | format(100 * snakemake.params.level) }} %, \\|I\\|."
    assert render(text, {"level": 0.95}, "c.rst").strip() == (
        "<p><strong>Title.</strong> Level 95 %, |I|.</p>"
    )


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_shown_as_it_is(label):
    shown = render('({{ snakemake.params.labels | join(", ") }})', {"labels": [label] * 2}, "c.rst")
    one = " ".join(label.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert shown.strip() == f"<p>({one}, {one})</p>"


@pytest.mark.parametrize(
    "caption",
    ["{{ snakemake.params.nothing }}", "{% if %}", "*open", ".. raw:: html\n\n   <b>", "|x|"],
)
def test_a_caption_that_cannot_be_shown_is_refused(caption):
    with pytest.raises(ValueError, match=r"c.rst: this caption cannot be shown .* mend it"):
        render(caption, {}, "c.rst")


@pytest.mark.parametrize("path", sorted(CAPTIONS.glob("*.rst")), ids=lambda path: path.stem)
def test_no_caption_tells_of_intervals_that_are_not_there(path):
    """With ``bootstrap.resamples: 0``, and of fewer samples than ``FEWEST_SAMPLES``."""
    text = path.read_text("utf-8")
    if "bootstrap interval" not in text.replace("\n", " "):
        return
    params = {"labels": ["a"], "level": 0.95, "n_players": 8, "removed_share": 0.9}
    drawn = {"has_intervals": True, "bootstrap": {"level": 0.95, "resamples": 1000}}
    none = {"has_intervals": False, "bootstrap": {"level": 0.95, "resamples": 0}}
    told = " ".join(render(text, {**params, **drawn}, path.name).split())
    assert "resamples is 0" not in told
    assert "95 % bootstrap interval" in told
    of_verdicts = {"findings", "finding-parts", "sensitivity", "stages", "survival"}
    if path.stem not in of_verdicts:
        assert "where there are five" in told
        assert FEWEST_SAMPLES == 5
    told = " ".join(render(text, {**params, **none}, path.name).split())
    assert "since bootstrap.resamples is 0" in told
