"""Strength of the interactions of a run by order, as figure 1 of arXiv 2605.17967 shows it."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import KEY


def strengths_by_order(
    dynamics: pl.DataFrame, steps: Sequence[int], orders: Sequence[int], n_samples: int
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Strength of the salient interactions by group, sign, checkpoint and order.

    Those salient at a checkpoint are the preserved ones that stay so to the last checkpoint (kept),
    the preserved ones that do not (lost), and the emerged ones.

    Args:
        dynamics: rows of a ``dynamics`` table.
        steps: checkpoints to take, a part of those in ``dynamics``.
        orders: all orders, 1 to the number of players.
        n_samples: number of analysed samples.

    Returns:
        (group, sign) to float64 (checkpoints, orders): sums of effects in log-odds, means over samples.
        Groups are ``kept``, ``lost`` and ``emerged``, signs ``positive`` and ``negative``.
    """
    last = dynamics["step"].max()
    survivors = dynamics.filter(pl.col("step") == last, pl.col("class") == "preserved")
    preserved = dynamics.filter(pl.col("class") == "preserved")
    groups = {
        "kept": preserved.join(survivors, on=KEY, how="semi"),
        "lost": preserved.join(survivors, on=KEY, how="anti"),
        "emerged": dynamics.filter(pl.col("class") == "emerged"),
    }
    found = {}
    for group, rows in groups.items():
        for sign, part in (
            ("positive", rows.filter(pl.col("effect") > 0)),
            ("negative", rows.filter(pl.col("effect") < 0)),
        ):
            table = np.zeros((len(steps), len(orders)))
            sums = part.group_by("step", "order").agg(pl.col("effect").sum())
            for step, order, total in sums.iter_rows():
                if step in steps:
                    table[steps.index(step), orders.index(order)] = total / n_samples
            found[group, sign] = table
    return found
