"""Which interactions count as salient (arXiv 2605.17967 leaves the threshold open)."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from sft_interactions import tables


def select_salient(
    interactions: pl.DataFrame | pl.LazyFrame, solve: pl.DataFrame, rule: str, threshold: float
) -> pl.DataFrame:
    """Salient AND and OR interactions of orders >= 1, sample by sample, sorted.

    Args:
        interactions: rows of an ``interactions`` table (the bias is left out). A lazy frame is read in
            pieces, so that no more than the salient rows is in memory; ``top_k`` reads it whole.
        solve: rows of the ``solve`` table of the same checkpoint; gives \\|v(N) - v(empty)\\|.
        rule: ``max_effect`` keeps \\|effect\\| >= threshold x the sample's largest \\|effect\\|;
            ``log_odds_difference`` >= threshold x \\|v(N) - v(empty)\\|; ``absolute`` >= threshold;
            ``top_k`` the ``threshold`` largest, ties by kind and pattern.
        threshold: tau of the rule.

    Raises:
        ValueError: unknown rule.
    """
    effects = interactions.lazy().filter(pl.col("kind") != "bias")
    size = pl.col("effect").abs()
    if rule in ("max_effect", "log_odds_difference"):
        if rule == "max_effect":
            scale = _collect(effects.group_by("sample_id").agg(size.max().alias("scale")))
        else:
            scale = solve.select("sample_id", pl.col("log_odds_difference").alias("scale"))
        salient = (
            effects.join(scale.lazy(), on="sample_id")
            .filter(size >= threshold * pl.col("scale"))
            .drop("scale")
        )
    elif rule == "absolute":
        salient = effects.filter(size >= threshold)
    elif rule == "top_k":
        ranked = effects.sort("sample_id", -size, "kind", "pattern")
        salient = ranked.filter(pl.int_range(pl.len()).over("sample_id") < threshold)
    else:
        raise ValueError(f"unknown salience rule {rule!r}")
    kind = pl.col("kind").cast(pl.String).cast(tables.KIND)
    return _collect(salient).with_columns(kind).sort("sample_id", "kind", "pattern")


def _collect(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming")


def read_salient(
    interactions_path: str | Path, solve_path: str | Path, salience: Mapping[str, object]
) -> pl.DataFrame:
    """Salient interactions of one checkpoint, from its two tables.

    Args:
        salience: ``rule`` and ``threshold``.
    """
    return select_salient(
        tables.scan(interactions_path, tables.INTERACTIONS),
        tables.read(solve_path, tables.SOLVE),
        **salience,
    )
