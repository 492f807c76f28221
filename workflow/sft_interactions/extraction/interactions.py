"""From the table of outputs to the table of interactions."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.extraction.program import Extraction
from sft_interactions.extraction.transforms import orders


def to_values(outputs: pl.DataFrame, name: str) -> tuple[list[str], NDArray[np.float64]]:
    """Values v(S) of every sample, in the order of the bit masks.

    Args:
        outputs: rows (sample_id, mask, log_odds) of one checkpoint.
        name: file name, for messages.

    Returns:
        Sample ids in sorted order, and float64 (samples, 2^n).

    Raises:
        ValueError: a mask is missing or repeated, samples differ in their number of masks, their
            number is no power of two, or a value is NaN or infinite. The message names ``name`` and
            the sample.
    """
    outputs = outputs.sort("sample_id", "mask")
    samples = outputs["sample_id"].unique(maintain_order=True).to_list()
    size = outputs["mask"].max() + 1
    if size & (size - 1):
        raise ValueError(f"{name}: the largest mask is {size - 1}, not 2^n - 1; rebuild this table")
    counts = outputs.group_by("sample_id", maintain_order=True).agg(
        pl.len(), pl.col("mask").n_unique().alias("distinct"), pl.col("log_odds").is_finite().all()
    )
    for sample_id, rows, distinct, finite in counts.iter_rows():
        if rows != distinct:
            raise ValueError(f"{name}: sample {sample_id} repeats a mask; rebuild this table")
        if rows != size:
            raise ValueError(
                f"{name}: sample {sample_id} has {rows} of {size} masks; rebuild this table"
            )
        if not finite:
            raise ValueError(
                f"{name}: sample {sample_id} holds a log_odds that is NaN or infinite; the checkpoint "
                "may have diverged"
            )
    values = outputs["log_odds"].cast(pl.Float64).to_numpy().reshape(len(samples), size)
    return samples, values


def from_extraction(
    samples: list[str], values: NDArray[np.float64], solved: Extraction
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of the ``interactions`` and of the ``solve`` table.

    Args:
        samples: (B,) sample ids.
        values: (B, 2^n) v.
        solved: their solutions.
    """
    size = values.shape[1]
    n = size.bit_length() - 1
    order = orders(n)
    ids = np.array(samples)
    parts = [
        pl.DataFrame(
            {
                "sample_id": ids,
                "kind": "bias",
                "pattern": np.uint32(0),
                "order": np.uint8(0),
                "effect": solved.bias,
            }
        )
    ]
    for kind, effects in (("and", solved.and_effects), ("or", solved.or_effects)):
        row, pattern = np.nonzero(effects)
        parts.append(
            pl.DataFrame(
                {
                    "sample_id": ids[row],
                    "pattern": pattern.astype(np.uint32),
                    "order": order[pattern],
                    "effect": effects[row, pattern],
                }
            ).select("sample_id", pl.lit(kind).alias("kind"), "pattern", "order", "effect")
        )
    schema = {"sample_id": pl.String, "pattern": pl.UInt32, "order": pl.UInt8, "effect": pl.Float64}
    interactions = pl.concat([part.cast(schema) for part in parts])
    solve = pl.DataFrame(
        {
            "sample_id": ids,
            "n_players": [n] * len(ids),
            "l1": solved.l1,
            "l1_lower_bound": solved.l1_lower_bound,
            "l1_plain": solved.l1_plain,
            "log_odds_difference": np.abs(values[:, -1] - values[:, 0]),
            "noise_bound": solved.noise_bound,
            "max_residual": solved.max_residual,
            "iterations": solved.iterations,
        }
    )
    return interactions, solve


def check_certificates(solve: pl.DataFrame, gap_tolerance: float, name: str) -> None:
    """Refuse solutions that are not certified.

    Args:
        solve: rows of the ``solve`` table.
        gap_tolerance: largest (l1 - l1_lower_bound) / l1.
        name: run and step, for messages.

    Raises:
        ValueError: the duality gap of a sample is larger, or its residual |phi - v| exceeds the noise
            bound by more than 1e-7 of the objective.
    """
    checked = solve.with_columns(
        gap=(pl.col("l1") - pl.col("l1_lower_bound")) / pl.max_horizontal("l1", pl.lit(1e-300)),
        excess=pl.col("max_residual") - pl.col("noise_bound") - 1e-7 * pl.col("l1"),
    )
    for row in checked.iter_rows(named=True):
        if row["gap"] > gap_tolerance:
            raise ValueError(
                f"{name}, sample {row['sample_id']}: the solver stopped at a duality gap of "
                f"{row['gap']:.1e}, above extraction.gap_tolerance = {gap_tolerance:g}; raise it or "
                "lower players.n"
            )
        if row["excess"] > 1e-12:
            raise ValueError(
                f"{name}, sample {row['sample_id']}: |phi - v| reaches {row['max_residual']:.3e}, above "
                f"its bound of {row['noise_bound']:.3e}; this is a defect of the solver, report it"
            )
