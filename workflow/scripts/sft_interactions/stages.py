"""Boundary between the denoising and the overfitting stage."""

import numpy as np
import polars as pl

from sft_interactions.metrics import bootstrap_weights

DETECTOR = "removed_share"


def find_boundary(counts: np.ndarray, share: float) -> int:
    """Index of the first checkpoint whose count of removed interactions is ``share`` of the largest.

    The denoising stage is the short period in which most removals happen (arXiv 2605.17967,
    section 4, reads it off by eye).

    Args:
        counts: (checkpoints,) mean counts; the first is before SFT.
    """
    if counts.max() <= 0:
        return 0
    return int(np.argmax(counts >= share * counts.max()))


def detect_stages(
    dynamics: pl.DataFrame,
    training: pl.DataFrame | None,
    samples: list[str],
    steps: list[int],
    *,
    share: float,
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, object]:
    """Stage boundary of a run with a bootstrap interval over samples.

    Args:
        dynamics: rows of a ``dynamics`` table.
        training: rows of the ``training`` table; None for a run that brought its own checkpoints.

    Returns:
        boundary_step, ci_low_step, ci_high_step, best_checkpoint_step (the end of the denoising
        stage), detector and evidence.
    """
    counts = np.zeros((len(samples), len(steps)))
    removed = dynamics.filter(pl.col("class") == "removed").group_by("sample_id", "step").len()
    for sample_id, step, count in removed.iter_rows():
        counts[samples.index(sample_id), steps.index(step)] = count
    boundary = steps[find_boundary(counts.mean(0), share)]
    weights = bootstrap_weights(len(samples), resamples, seed)
    drawn = [steps[find_boundary(w @ counts, share)] for w in weights if w.size] or [boundary]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    losses = [] if training is None else training.drop_nulls("validation_loss").to_dicts()
    lowest = min(losses, key=lambda row: row["validation_loss"], default=None)
    return {
        "boundary_step": boundary,
        "ci_low_step": int(low),
        "ci_high_step": int(high),
        "best_checkpoint_step": boundary,
        "detector": DETECTOR,
        "evidence": {
            "removed_share": share,
            "removed_count": dict(zip(map(str, steps), counts.mean(0).tolist(), strict=True)),
            "lowest_validation_loss_step": lowest and lowest["step"],
        },
    }
