"""How well the logical model gives the log-odds of the LLM back, on every masking (faithfulness)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables
from sft_interactions.analysis.metrics import bootstrap_weights, summarize
from sft_interactions.analysis.salience import read_salient
from sft_interactions.extraction.interactions import to_values
from sft_interactions.extraction.program import reconstruct


@dataclass(frozen=True)
class LogOdds:
    """Log-odds of the LLM and of its logical models at one checkpoint.

    Attributes:
        samples: sample ids.
        llm: (samples, 2^n) v.
        logical: (samples, 2^n) φ of all interactions.
        salient: (samples, 2^n) φ of the bias and the salient interactions alone.
    """

    samples: Sequence[str]
    llm: NDArray[np.float64]
    logical: NDArray[np.float64]
    salient: NDArray[np.float64]


def read_log_odds(folder: str | Path, step: int, salience: Mapping[str, object]) -> LogOdds:
    """Read the log-odds of one checkpoint and rebuild them from its interactions.

    Args:
        folder: folder of the run.
        salience: rule and threshold of :func:`~sft_interactions.analysis.salience.select_salient`.
    """
    folder = Path(folder)
    path = folder / "log_odds" / f"step-{step}.parquet"
    samples, llm = to_values(tables.read(path, tables.LOG_ODDS), str(path))
    stem = folder / "interactions" / f"step-{step}"
    path = stem.with_suffix(".parquet")
    rows = tables.read(path, tables.INTERACTIONS)
    kept = read_salient(path, stem.with_suffix(".solve.parquet"), salience)
    bias = rows.filter(pl.col("kind") == "bias")
    kept = pl.concat([bias, kept.cast({"kind": tables.KIND_OR_BIAS})])
    logical = [logical_log_odds(part, samples, llm.shape[1]) for part in (rows, kept)]
    return LogOdds(samples, llm, *logical)


def logical_log_odds(
    interactions: pl.DataFrame, samples: Sequence[str], size: int
) -> NDArray[np.float64]:
    """φ(S) of Eq. 2-3 of arXiv 2605.17967 for every masking, in log-odds.

    Args:
        interactions: rows of an ``interactions`` table; what is not in it has no effect.
        samples: sample ids, in the order of the rows returned.
        size: 2^n.

    Returns:
        (samples, 2^n).
    """
    dense = {kind: np.zeros((len(samples), size)) for kind in ("bias", "and", "or")}
    index = {sample_id: row for row, sample_id in enumerate(samples)}
    for sample_id, kind, pattern, effect in interactions.select(
        "sample_id", "kind", "pattern", "effect"
    ).iter_rows():
        dense[kind][index[sample_id], pattern] = effect
    return reconstruct(dense["bias"][:, 0], dense["and"], dense["or"])


def relative_errors(phi: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(φ − v) / |v(N) − v(∅)|, (samples, 2^n); NaN where the two log-odds are the same."""
    size = np.abs(values[:, -1] - values[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size[:, None] > 0, (phi - values) / size[:, None], np.nan)


def summarize_errors(
    errors: NDArray[np.float64], *, resamples: int, level: float, seed: int
) -> dict[str, float | int | None]:
    """Mean over samples of their mean |error|, with its bootstrap interval; and the largest |error|.

    Args:
        errors: what :func:`relative_errors` returns.
    """
    known = np.isfinite(errors[:, 0])
    size = np.abs(np.where(known[:, None], errors, 0))
    weights = bootstrap_weights(len(errors), resamples, seed)
    value, low, high, used = summarize(size.mean(axis=1), known.astype(float), weights, level)
    return {
        "mean_error": value,
        "ci_low": low,
        "ci_high": high,
        "largest_error": float(size.max()) if used else None,
        "n_samples": used,
    }
