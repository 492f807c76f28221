"""Metrics of one fine-tuning that was repeated with several seeds."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import polars as pl

from sft_interactions import tables
from sft_interactions.analysis.dynamics import CLASSES, PRESERVED
from sft_interactions.analysis.intervals import interval_over_seeds, leave_one_out
from sft_interactions.analysis.metrics import Cells, Ratio, ratios
from sft_interactions.analysis.protocol import FEWEST_SEEDS


def compute_metrics_over_seeds(
    dynamics: Sequence[pl.DataFrame],
    samples: Sequence[str],
    steps: Sequence[int],
    n_players: int,
    *,
    level: float,
) -> pl.DataFrame:
    """Metrics of every checkpoint and class, AND and OR together, as means over seeds.

    The metric of a seed is that of :func:`~sft_interactions.analysis.metrics.compute_metrics`; one that a
    seed lacks is null. The interval takes samples and seeds as drawn
    (:func:`~sft_interactions.analysis.intervals.interval_over_seeds`). A bootstrap of three seeds
    reaches from the least to the largest of them, and holds the true value too seldom.

    Args:
        dynamics: rows of the ``dynamics`` table of each seed.
        samples: all analysed samples, the same in all seeds.
        steps: analysed checkpoints.
        n_players: number of players of a prompt.
        level: confidence level of the intervals, between 0 and 1; of fewer than ``FEWEST_SEEDS`` seeds
            there is none.

    Returns:
        Rows (step, class, metric, value, ci_low, ci_high, n_pairs); ``n_pairs`` counts the pairs of a seed
        and a sample that the metric is defined for.
    """
    seeds = [Cells(rows, samples) for rows in dynamics]
    records: list[tuple[object, ...]] = []
    for step, label in product(steps, CLASSES):
        if label != PRESERVED and step == min(steps):
            continue
        of_seeds = [
            [
                ratio
                for ratio in ratios(cells.rows(step, label), "both", len(samples), n_players)
                if ratio.order is None
            ]
            for cells in seeds
        ]
        for metric in zip(*of_seeds, strict=True):
            records.append((step, label, metric[0].metric, *_summarize(metric, level)))
    columns = ("step", "class", "metric", "value", "ci_low", "ci_high")
    schema = {name: tables.METRICS.columns[name] for name in columns}
    return pl.DataFrame(records, schema={**schema, "n_pairs": pl.UInt32}, orient="row")


def _summarize(
    of_seeds: Sequence[Ratio], level: float
) -> tuple[float | None, float | None, float | None, int]:
    """Value, interval and number of pairs of one metric, a ratio of sums for each seed."""
    tops = np.stack([leave_one_out(one.numerator) for one in of_seeds])
    bottoms = np.stack([leave_one_out(one.denominator) for one in of_seeds])
    is_defined = np.stack([one.denominator > 0 for one in of_seeds])
    values = np.divide(tops, bottoms, out=np.full_like(tops, np.nan), where=bottoms > 0)
    there = np.append(True, is_defined.any(axis=0))
    value, low, high = interval_over_seeds(values[:, there], level)
    if len(of_seeds) < FEWEST_SEEDS:
        low = high = None
    return value, low, high, int(is_defined.sum())
