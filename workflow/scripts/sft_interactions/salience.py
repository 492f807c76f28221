"""Which interactions count as salient (arXiv 2605.17967 leaves the threshold open)."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from sft_interactions import tables


def select_salient(
    interactions: pl.DataFrame, solve: pl.DataFrame, rule: str, threshold: float
) -> pl.DataFrame:
    """Salient AND and OR interactions of orders >= 1, sample by sample.

    Args:
        interactions: rows of an ``interactions`` table (the bias is left out).
        solve: rows of the ``solve`` table of the same checkpoint; gives the range of the outputs.
        rule: ``max_effect`` keeps \\|effect\\| >= threshold x the sample's largest \\|effect\\|;
            ``output_range`` >= threshold x \\|v(N) - v(empty)\\|; ``absolute`` >= threshold;
            ``top_k`` the ``threshold`` largest, ties by kind and pattern.
        threshold: tau of the rule.

    Raises:
        ValueError: unknown rule.
    """
    effects = interactions.filter(pl.col("kind") != "bias").with_columns(
        pl.col("kind").cast(pl.String).cast(pl.Enum(["and", "or"]))
    )
    size = pl.col("effect").abs()
    if rule == "max_effect":
        return effects.filter(size >= threshold * size.max().over("sample_id"))
    if rule == "output_range":
        ranges = solve.select("sample_id", "output_range")
        return (
            effects.join(ranges, on="sample_id", maintain_order="left")
            .filter(size >= threshold * pl.col("output_range"))
            .drop("output_range")
        )
    if rule == "absolute":
        return effects.filter(size >= threshold)
    if rule == "top_k":
        ranked = effects.sort("sample_id", -size, "kind", "pattern")
        return ranked.filter(pl.int_range(pl.len()).over("sample_id") < threshold)
    raise ValueError(f"unknown salience rule {rule!r}")


def read_salient(
    interactions_path: str | Path, solve_path: str | Path, salience: Mapping[str, object]
) -> pl.DataFrame:
    """Salient interactions of one checkpoint, from its two tables.

    Args:
        salience: ``rule`` and ``threshold``.
    """
    return select_salient(
        tables.read(interactions_path, tables.INTERACTIONS),
        tables.read(solve_path, tables.SOLVE),
        **salience,
    )
