"""Which verdicts the data determine.

Two kinds of choices stand behind a verdict. Most say what is asked: what counts as noise, what as
salient, how γ is measured; another answer there is the answer to another question. A tie-break and a
reading only choose among answers that are as sparse and as close to the log-odds: a verdict that changes
with them is one of the choice, and the data do not determine it.
"""

import polars as pl

from sft_interactions.analysis.choices import READING, TIE_BREAK

# Labels of the choices that the data say nothing about.
UNDETERMINED = (TIE_BREAK, READING)


def determined(sensitivity: pl.DataFrame) -> dict[int, bool | None]:
    """Whether the verdict of a finding is the same under every tie-break and reading.

    Args:
        sensitivity: rows of a run's ``sensitivity`` table; position 0 is the study's own choice.

    Returns:
        Finding to the answer, None where no other tie-break or reading was tried.
    """
    label = pl.col("choice").str.split(": ").list.first()
    tried = _others(sensitivity).filter(label.is_in(list(UNDETERMINED)))
    answers = dict(tried.group_by("finding").agg(pl.col("same").all()).iter_rows())
    return {finding: answers.get(finding) for finding in sensitivity["finding"].unique().sort()}


def tabulate(sensitivity: pl.DataFrame) -> pl.DataFrame:
    """One row a finding: its verdict, and what it changes to under which other choice.

    Args:
        sensitivity: as for :func:`determined`.

    Returns:
        Rows (finding, statement, verdict, determined, n_choices, n_same, other_verdicts), in the order of
        the findings. ``n_choices`` counts the other choices, ``n_same`` those with the same verdict;
        ``other_verdicts`` names the rest, with theirs.
    """
    own = sensitivity.filter(pl.col("position") == 0).select("finding", "statement", "verdict")
    counted = (
        _others(sensitivity)
        .group_by("finding")
        .agg(
            n_choices=pl.len().cast(pl.UInt32),
            n_same=pl.col("same").sum().cast(pl.UInt32),
            other_verdicts=pl.format("{} ({})", "choice", "verdict")
            .filter(~pl.col("same"))
            .str.join("; "),
        )
    )
    answers = determined(sensitivity)
    return (
        own.sort("finding")
        .join(counted, on="finding", how="left", maintain_order="left")
        .select(
            "finding",
            "statement",
            "verdict",
            pl.Series("determined", list(answers.values()), pl.Boolean),
            pl.col("n_choices", "n_same").fill_null(0),
            pl.col("other_verdicts").fill_null(""),
        )
    )


def _others(sensitivity: pl.DataFrame) -> pl.DataFrame:
    """Rows of the other choices by position, with ``same``: the study's own has that verdict too."""
    own = sensitivity.filter(pl.col("position") == 0).select("finding", own="verdict")
    return (
        sensitivity.filter(pl.col("position") > 0)
        .sort("position")
        .join(own, on="finding", maintain_order="left")
        .with_columns(same=pl.col("verdict") == pl.col("own"))
    )
