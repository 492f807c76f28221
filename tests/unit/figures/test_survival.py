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
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == list(CHOICES)
