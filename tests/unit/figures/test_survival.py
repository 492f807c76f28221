from random_runs import CHOICES, VERDICTS, make_sensitivity

from sft_interactions.figures import survival


def test_every_choice_and_finding_has_a_cell_with_its_verdict():
    figure = survival.draw(
        {"A": make_sensitivity(), "B": make_sensitivity(CHOICES[:1])}, level=0.95
    )
    for axes, choices in zip(figure.axes, (CHOICES, CHOICES[:1]), strict=True):
        cells = {patch.get_gid() for patch in axes.patches}
        assert cells == {
            f"{choice}:{finding}:{verdict}"
            for choice in choices
            for finding, verdict in enumerate(VERDICTS, start=1)
        }
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert [name.splitlines()[1] for name in names] == [
        "few",
        "many",
        "most are",
        "removed",
        "preserved",
    ]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == list(CHOICES)


def test_findings_are_named_under_columns_that_are_too_narrow_for_that():
    figure = survival.draw({name: make_sensitivity() for name in "ABCD"}, level=0.95)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list("12345")
    assert "3: most are removed early" in figure.texts[0].get_text()
