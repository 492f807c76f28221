"""The paper's numbers beside those of a study."""

from collections.abc import Sequence

import polars as pl

from sft_interactions.analysis.runs import Run

KEY = ["metric", "class", "stage"]


def compare(paper: pl.DataFrame, runs: Sequence[Run]) -> pl.DataFrame:
    """Put the paper's numbers and those of the study side by side.

    The runs differ in LLM, data and number of players, so it is the course that can be compared, not
    the size.

    Args:
        paper: rows (llm, dataset, stage, class, metric, value) of ``paper_values.csv``; those without
            a stage are left out.

    Returns:
        a row a metric, class and stage, a column a run: the paper's first, named by LLM and data set.
    """
    paper = paper.filter(pl.col("stage").is_not_null())
    rows = paper.select(KEY).unique(maintain_order=True)
    theirs = paper.with_columns(
        name=pl.format("paper: {} on {}", pl.col("llm"), pl.col("dataset"))
    ).pivot("name", index=KEY, values="value")
    ours = {run.label: [_value(run, *row) for row in rows.iter_rows()] for run in runs}
    return rows.join(theirs, on=KEY, maintain_order="left").with_columns(
        pl.Series(label, values, dtype=pl.Float64) for label, values in ours.items()
    )


def _value(run: Run, metric: str, label: str, stage: str) -> float | None:
    index = {"before SFT": 0, "end of denoising": run.boundary, "last checkpoint": -1}[stage]
    value = run.series(label, metric)[0, index]
    return None if value != value else float(value)
