import pytest

from sft_interactions.report_page.captions import render

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
