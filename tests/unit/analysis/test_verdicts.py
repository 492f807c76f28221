"""Which verdicts the data determine."""

import polars as pl

from sft_interactions.analysis.verdicts import tabulate

COLUMNS = ["finding", "verdict", "determined", "n_choices", "n_same", "other_verdicts"]


def sensitivity(choices):
    """Rows of a sensitivity table, from choice to the verdicts of the findings 1, 2, ..."""
    return pl.DataFrame(
        [
            {
                "position": position,
                "choice": choice,
                "finding": number,
                "statement": f"statement {number}",
                "verdict": verdict,
            }
            for position, (choice, verdicts) in enumerate(choices.items())
            for number, verdict in enumerate(verdicts.split(), 1)
        ]
    ).sample(fraction=1.0, shuffle=True, seed=0)


def test_a_verdict_that_hangs_on_the_tie_break_or_the_reading_is_marked():
    table = tabulate(
        sensitivity(
            {
                "the study's own": "supported contradicted inconclusive supported",
                "noise bound ζ: 0.1": "supported inconclusive inconclusive supported",
                "tie-break: hash-1": "supported contradicted inconclusive contradicted",
                "reading: single": "supported contradicted supported contradicted",
            }
        )
    )
    assert table.select(COLUMNS).rows() == [
        (1, "supported", True, 3, 3, ""),
        (2, "contradicted", True, 3, 2, "noise bound ζ: 0.1 (inconclusive)"),
        (3, "inconclusive", False, 3, 2, "reading: single (supported)"),
        (
            4,
            "supported",
            False,
            3,
            1,
            "tie-break: hash-1 (contradicted); reading: single (contradicted)",
        ),
    ]
    assert table["statement"].to_list() == [f"statement {number}" for number in range(1, 5)]


def test_without_another_tie_break_or_reading_nothing_is_said():
    others = {"the study's own": "supported", "salience: absolute 0.1": "inconclusive"}
    table = tabulate(sensitivity(others))
    assert table.select(COLUMNS).rows() == [
        (1, "supported", None, 1, 0, "salience: absolute 0.1 (inconclusive)")
    ]


def test_a_study_that_varies_nothing():
    table = tabulate(sensitivity({"the study's own": "supported inconclusive"}))
    assert table.select(COLUMNS).rows() == [
        (1, "supported", None, 0, 0, ""),
        (2, "inconclusive", None, 0, 0, ""),
    ]
