from pathlib import Path

import pytest

from sft_interactions.analysis.intervals import FEWEST_SAMPLES
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
    """Of fewer samples than ``FEWEST_SAMPLES``; of the stages with ``bootstrap.resamples: 0``."""
    text = path.read_text("utf-8")
    params = {"labels": ["a"], "level": 0.95, "n_players": 8, "removed_share": 0.9}
    of_verdicts = {"findings", "finding-parts", "sensitivity", "stages", "survival"}
    of_others = {
        "protocol",
        "protocol-parts",
        "seed-verdicts",
        "seeds",
        "seed-agreement",
        "turnover",
    }
    if path.stem == "stages":
        told = render(text, {**params, "has_intervals": True}, path.name)
        assert "resamples is 0" not in told
        told = render(text, {**params, "has_intervals": False}, path.name)
        assert "since bootstrap.resamples is 0" in told
    elif "interval" in text and "snakemake.params.level" in text:
        told = " ".join(render(text, params, path.name).split())
        assert "95 % interval" in told
        if path.stem not in of_verdicts | of_others:
            assert "where there are five" in told
            assert FEWEST_SAMPLES == 5
