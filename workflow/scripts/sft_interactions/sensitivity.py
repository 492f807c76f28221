"""Counts and quality of the three classes under other choices than the study's own."""

from collections.abc import Mapping, Sequence

import polars as pl

from sft_interactions.dynamics import add_generalizability, classify
from sft_interactions.metrics import compute_metrics
from sft_interactions.salience import select_salient

SHOWN = ["count", "mean_order", "gamma", "rho"]

Checkpoint = tuple[pl.DataFrame | pl.LazyFrame, pl.DataFrame]


def vary_salience(
    checkpoints: Mapping[int, Checkpoint],
    baseline: Checkpoint | None,
    choices: Sequence[Mapping[str, object]],
    n_players: int,
) -> pl.DataFrame:
    """Metrics of every class and checkpoint under several salience rules.

    A threshold relative to the sample's largest effect can change counts by itself when that effect
    changes, so findings should not hang on one rule.

    Args:
        checkpoints: step to the rows of its ``interactions`` and ``solve`` tables.
        baseline: the same two tables of the baseline LLM, or None.
        choices: ``rule`` and ``threshold`` of each variant.

    Returns:
        Rows (rule, threshold, step, class, count, mean_order, gamma, rho), means as in ``metrics``.
    """
    samples = sorted(checkpoints[min(checkpoints)][1]["sample_id"])
    parts = []
    for choice in choices:
        classes = classify(
            {step: select_salient(*tables, **choice) for step, tables in checkpoints.items()}
        )
        reference = None if baseline is None else select_salient(*baseline, **choice)
        metrics = compute_metrics(
            add_generalizability(classes, reference, n_players),
            samples,
            sorted(checkpoints),
            n_players,
            resamples=0,
            level=0.95,
            seed=0,
        )
        chosen = metrics.filter(
            pl.col("metric").is_in(SHOWN), pl.col("order").is_null(), pl.col("kind") == "both"
        )
        parts.append(
            chosen.pivot("metric", index=["step", "class"], values="value").select(
                pl.lit(choice["rule"]).alias("rule"),
                pl.lit(float(choice["threshold"])).alias("threshold"),
                "step",
                "class",
                *SHOWN,
            )
        )
    return pl.concat(parts)
