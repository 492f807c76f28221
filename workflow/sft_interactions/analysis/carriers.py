"""Which interactions carry the prediction: what one class of interactions alone does.

The numbers of figure 4 of arXiv 2605.17967.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.runs import Run

METRICS = ("cross_entropy", "contribution")
GROUPS = ("removed", "preserved", "emerged in 1st stage", "emerged in 2nd stage")


def values_by_group(run: Run, metric: str) -> NDArray[np.float64]:
    """Value and interval of a metric for the four groups of interactions.

    Removed and preserved are those at the last checkpoint. Emerged in the 1st stage are those at the
    end of the denoising stage, emerged in the 2nd stage those at the last checkpoint, if it lies
    beyond that end.

    Args:
        metric: one of ``METRICS``; cross-entropy in nats, contribution in log-odds.

    Returns:
        float64 (3, 4): value, ci_low, ci_high by group of ``GROUPS``; NaN where a group does not apply.
    """
    removed, preserved, emerged = (
        run.series(label, metric) for label in ("removed", "preserved", "emerged")
    )
    has_second_stage = run.boundary < len(run.steps) - 1
    second_stage = emerged[:, -1] if has_second_stage else np.full(3, np.nan)
    groups = [removed[:, -1], preserved[:, -1], emerged[:, run.boundary], second_stage]
    return np.stack(groups, axis=1)


def tabulate(runs: Sequence[Run]) -> pl.DataFrame:
    """The numbers of :func:`values_by_group` for all runs and metrics.

    Returns:
        Rows (run, metric, class, value, ci_low, ci_high), ``class`` one of ``GROUPS``; null where a
        group does not apply.
    """
    records = [
        (run.label, metric, group, *column)
        for run in runs
        for metric in METRICS
        for group, column in zip(GROUPS, values_by_group(run, metric).T.tolist(), strict=True)
    ]
    columns = ["run", "metric", "class", "value", "ci_low", "ci_high"]
    return pl.DataFrame(records, schema=columns, orient="row").fill_nan(None)
