"""How well the logical model gives the log-odds of the LLM back, on every masking (faithfulness)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables
from sft_interactions.analysis.metrics import summarize
from sft_interactions.analysis.runs import Checkpoint
from sft_interactions.analysis.salience import Salience, read_salient
from sft_interactions.extraction.interactions import to_values
from sft_interactions.extraction.program import reconstruct


@dataclass(frozen=True)
class LogOdds:
    """Log-odds of the LLM and of its logical models at one checkpoint.

    Attributes:
        samples: sample ids.
        llm: float64 (samples, 2^n), v(S) for every masking S.
        logical: float64 (samples, 2^n), φ(S) of all interactions.
        salient: float64 (samples, 2^n), φ(S) of the bias and the salient interactions alone.
    """

    samples: Sequence[str]
    llm: NDArray[np.float64]
    logical: NDArray[np.float64]
    salient: NDArray[np.float64]


@dataclass(frozen=True)
class Faithfulness:
    """A run at one checkpoint.

    Attributes:
        label: title of the run.
        step: the checkpoint.
        log_odds: those of the LLM and of its logical models.
        shown: id of the sample whose maskings a figure draws one by one.
    """

    label: str
    step: int
    log_odds: LogOdds
    shown: str

    @property
    def n_samples(self) -> int:
        """Number of analysed samples."""
        return len(self.log_odds.samples)

    def errors(self, phi: NDArray[np.float64]) -> NDArray[np.float64]:
        """Relative errors of φ on all maskings of all samples, where they are defined.

        Args:
            phi: ``logical`` or ``salient`` of ``log_odds``.

        Returns:
            float64 (maskings,).
        """
        errors = relative_errors(phi, self.log_odds.llm).ravel()
        return errors[np.isfinite(errors)]


def read_log_odds(checkpoint: Checkpoint, salience: Salience) -> LogOdds:
    """Read the log-odds of one checkpoint and rebuild them from its interactions.

    Args:
        checkpoint: with its ``log_odds``, ``interactions`` and ``solve`` table.
        salience: rule and threshold of :func:`~sft_interactions.analysis.salience.select_salient`.
    """
    paths = checkpoint.tables
    samples, llm = to_values(
        tables.read(paths["log_odds"], tables.LOG_ODDS), str(paths["log_odds"])
    )
    rows = tables.read(paths["interactions"], tables.INTERACTIONS)
    bias = rows.filter(pl.col("kind") == "bias")
    salient = read_salient(paths["interactions"], paths["solve"], salience)
    kept = pl.concat([bias, salient.cast({"kind": tables.KIND_OR_BIAS})])
    size = llm.shape[1]
    return LogOdds(
        samples, llm, logical_log_odds(rows, samples, size), logical_log_odds(kept, samples, size)
    )


def read_faithfulness(
    checkpoint: Checkpoint, sample_id: str | None, salience: Salience
) -> Faithfulness:
    """Read what a figure shows of one checkpoint.

    Args:
        checkpoint: as for :func:`read_log_odds`.
        sample_id: the sample whose maskings are drawn one by one; the first by id where it is None or
            not one of the run's, since runs may be on other data sets.
        salience: as for :func:`read_log_odds`.
    """
    log_odds = read_log_odds(checkpoint, salience)
    samples = log_odds.samples
    shown = sample_id if sample_id is not None and sample_id in samples else samples[0]
    return Faithfulness(checkpoint.label, checkpoint.step, log_odds, shown)


def logical_log_odds(
    interactions: pl.DataFrame, samples: Sequence[str], size: int
) -> NDArray[np.float64]:
    """φ(S) of Eq. 2-3 of arXiv 2605.17967 for every masking, in log-odds.

    Args:
        interactions: rows of an ``interactions`` table; what is not in it has no effect.
        samples: sample ids, in the order of the rows returned.
        size: 2^n.

    Returns:
        float64 (samples, 2^n).
    """
    dense = {kind: np.zeros((len(samples), size)) for kind in ("bias", "and", "or")}
    index = {sample_id: row for row, sample_id in enumerate(samples)}
    for sample_id, kind, pattern, effect in interactions.select(
        "sample_id", "kind", "pattern", "effect"
    ).iter_rows():
        dense[kind][index[sample_id], pattern] = effect
    return reconstruct(dense["bias"][:, 0], dense["and"], dense["or"])


def relative_errors(phi: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(φ − v) / |v(N) − v(∅)|, NaN where v(N) and v(∅) are the same.

    Args:
        phi: float64 (samples, 2^n), log-odds of a logical model.
        values: float64 (samples, 2^n), log-odds of the LLM.

    Returns:
        float64 (samples, 2^n), without unit.
    """
    size = np.abs(values[:, -1] - values[:, 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size[:, None] > 0, (phi - values) / size[:, None], np.nan)


def summarize_errors(errors: NDArray[np.float64], *, level: float) -> dict[str, float | int | None]:
    """Mean over samples of their mean |error|, with its interval; and the largest |error|.

    Args:
        errors: what :func:`relative_errors` returns.
        level: confidence level of the interval.

    Returns:
        ``mean_error``, ``ci_low``, ``ci_high``, ``largest_error`` (None where no error is defined) and
        ``n_samples``, the number of samples with one.
    """
    known = np.isfinite(errors[:, 0])
    size = np.abs(np.where(known[:, None], errors, 0))
    value, low, high, used = summarize(size.mean(axis=1), known.astype(float), level)
    return {
        "mean_error": value,
        "ci_low": low,
        "ci_high": high,
        "largest_error": float(size.max()) if used else None,
        "n_samples": used,
    }


def tabulate(
    runs: Sequence[Mapping[int, Checkpoint]],
    salience: Salience,
    *,
    level: float,
) -> pl.DataFrame:
    """Errors of the logical models at all checkpoints of some runs.

    Args:
        runs: for each run step to checkpoint, with its tables as for :func:`read_log_odds`.
        salience: as for :func:`read_log_odds`.
        level: as for :func:`summarize_errors`.

    Returns:
        Rows (run, step, interactions, mean_error, ci_low, ci_high, largest_error, n_samples);
        ``interactions`` is ``all`` or ``salient``.
    """
    records = []
    for checkpoints in runs:
        for step, checkpoint in checkpoints.items():
            log_odds = read_log_odds(checkpoint, salience)
            for interactions, phi in (("all", log_odds.logical), ("salient", log_odds.salient)):
                errors = relative_errors(phi, log_odds.llm)
                summary = summarize_errors(errors, level=level)
                about = {"run": checkpoint.label, "step": step, "interactions": interactions}
                records.append({**about, **summary})
    return pl.DataFrame(records)
