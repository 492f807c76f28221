"""From the table of log-odds to the table of interactions."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.extraction.program import Extraction
from sft_interactions.extraction.transforms import n_players, orders

_INTERACTIONS = {
    "sample_id": pl.String,
    "kind": pl.String,
    "pattern": pl.UInt32,
    "order": pl.UInt8,
    "effect": pl.Float64,
}
# Residuals may exceed their bound by this part of the objective, and by this much in any case.
_EXCESS_OF_L1, _EXCESS = 1e-7, 1e-12


def to_values(log_odds: pl.DataFrame, name: str) -> tuple[list[str], NDArray[np.float64]]:
    """Values v(S) of every sample, in the order of the bit masks.

    Args:
        log_odds: rows (sample_id, mask, log_odds) of one checkpoint, in any order.
        name: file name, for messages.

    Returns:
        Sample ids in sorted order, (B,), and v float64 (B, 2^n).

    Raises:
        ValueError: a mask is missing or repeated, samples differ in their number of masks, their
            number is no power of two, or a value is NaN or infinite. The message names `name` and
            the sample.
    """
    log_odds = log_odds.sort("sample_id", "mask")
    samples: list[str] = log_odds["sample_id"].unique(maintain_order=True).to_list()
    size = int(log_odds.select(pl.col("mask").max()).item()) + 1
    if size & (size - 1):
        raise ValueError(f"{name}: the largest mask is {size - 1}, not 2^n - 1; rebuild this table")
    counts = log_odds.group_by("sample_id", maintain_order=True).agg(
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
                f"{name}: sample {sample_id} holds a log_odds that is NaN or infinite; the "
                "checkpoint may have diverged"
            )
    v = log_odds["log_odds"].cast(pl.Float64).to_numpy().reshape(len(samples), size)
    return samples, v


def from_extraction(
    samples: list[str], v: NDArray[np.float64], solved: Extraction
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of the ``interactions`` and of the ``solve`` table.

    Args:
        samples: (B,) sample ids.
        v: (B, 2^n) log-odds.
        solved: their solutions.

    Returns:
        The interactions that are not 0, with the bias of every sample, and one row a sample of
        its certificate. Effects and bounds are in the units of v.
    """
    ids = np.array(samples)
    parts = [
        pl.DataFrame(
            {"sample_id": ids, "kind": "bias", "pattern": 0, "order": 0, "effect": solved.bias},
            schema_overrides=_INTERACTIONS,
        ),
        _rows_of_effects(ids, "and", solved.and_effects),
        _rows_of_effects(ids, "or", solved.or_effects),
    ]
    solve = pl.DataFrame(
        {
            "sample_id": ids,
            "n_players": np.full(len(ids), n_players(v.shape[1])),
            "l1": solved.l1,
            "l1_lower_bound": solved.l1_lower_bound,
            "l1_plain": solved.l1_plain,
            "log_odds_difference": np.abs(v[:, -1] - v[:, 0]),
            "log_odds_range": np.ptp(v, axis=1),
            "noise_bound": solved.noise_bound,
            "max_residual": solved.max_residual,
            "iterations": solved.iterations,
        }
    )
    return pl.concat(parts), solve


def _rows_of_effects(
    ids: NDArray[np.str_], kind: str, effects: NDArray[np.float64]
) -> pl.DataFrame:
    """Rows of the effects of a kind, (B, 2^n), that are not 0."""
    row, pattern = np.nonzero(effects)
    order = orders(n_players(effects.shape[1]))
    return pl.DataFrame(
        {
            "sample_id": ids[row],
            "kind": np.full(len(row), kind),
            "pattern": pattern,
            "order": order[pattern],
            "effect": effects[row, pattern],
        },
        schema_overrides=_INTERACTIONS,
    )


def to_extraction(
    samples: Sequence[str], interactions: pl.DataFrame, solve: pl.DataFrame
) -> Extraction:
    """The solutions that two tables hold, the inverse of :func:`from_extraction`.

    Args:
        samples: (B,) sample ids, the order of the solutions.
        interactions: rows of the ``interactions`` table.
        solve: rows of the ``solve`` table.

    Raises:
        ValueError: the tables have other samples, or samples differ in their number of players.
    """
    order = pl.DataFrame({"sample_id": list(samples), "row": range(len(samples))})
    solved = order.join(solve, on="sample_id", how="left", maintain_order="left")
    placed = interactions.join(order, on="sample_id", how="left")
    n = solve["n_players"].unique()
    if len(n) != 1 or len(solve) != len(samples) or solved["l1"].has_nulls():
        raise ValueError(
            f"the tables hold {len(solve)} samples of {sorted(n)} players, {len(samples)} are asked for; "
            "rebuild the interactions"
        )
    if placed["row"].has_nulls():
        raise ValueError("the interactions are of other samples; rebuild them")
    arrays = {}
    for kind in ("and", "or", "bias"):
        rows = placed.filter(pl.col("kind") == kind)
        arrays[kind] = np.zeros((len(samples), 1 << int(n[0])))
        arrays[kind][rows["row"].to_numpy(), rows["pattern"].to_numpy()] = rows["effect"].to_numpy()
    return Extraction(
        and_effects=arrays["and"],
        or_effects=arrays["or"],
        bias=arrays["bias"][:, 0],
        l1=solved["l1"].to_numpy(),
        l1_lower_bound=solved["l1_lower_bound"].to_numpy(),
        l1_plain=solved["l1_plain"].to_numpy(),
        noise_bound=solved["noise_bound"].to_numpy(),
        max_residual=solved["max_residual"].to_numpy(),
        iterations=solved["iterations"].to_numpy().astype(np.int64),
    )


def check_certificates(solve: pl.DataFrame, gap_tolerance: float, name: str) -> None:
    """Refuse solutions that are not certified.

    Args:
        solve: rows of the ``solve`` table.
        gap_tolerance: largest (l1 − l1_lower_bound) / l1.
        name: run and step, for messages.

    Raises:
        ValueError: the duality gap of a sample is larger, or its residual |φ − v| exceeds the noise
            bound by more than 1e-7 of the objective.
    """
    checked = solve.with_columns(
        gap=(pl.col("l1") - pl.col("l1_lower_bound")) / pl.max_horizontal("l1", pl.lit(1e-300)),
        excess=pl.col("max_residual") - pl.col("noise_bound") - _EXCESS_OF_L1 * pl.col("l1"),
    )
    for row in checked.iter_rows(named=True):
        if row["gap"] > gap_tolerance:
            raise ValueError(
                f"{name}, sample {row['sample_id']}: the solver stopped at a duality gap of "
                f"{row['gap']:.1e}, above extraction.gap_tolerance = {gap_tolerance:g}; raise it "
                "or lower players.n"
            )
        if row["excess"] > _EXCESS:
            raise ValueError(
                f"{name}, sample {row['sample_id']}: |phi - v| reaches {row['max_residual']:.3e}, "
                f"above its bound of {row['noise_bound']:.3e}; this is a defect of the solver, "
                "report it"
            )
