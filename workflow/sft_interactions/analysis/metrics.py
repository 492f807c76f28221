"""Counts, strengths and quality of the three classes, with bootstrap intervals over samples.

Equations of arXiv 2605.17967.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import polars as pl

CLASSES = ("preserved", "emerged", "removed")
KINDS = ("and", "or", "both")
BY_ORDER = ("count", "strength_positive", "strength_negative", "strength_total")


def compute_metrics(
    dynamics: pl.DataFrame,
    samples: Sequence[str],
    steps: Sequence[int],
    n_players: int,
    *,
    resamples: int,
    level: float,
    seed: int,
    unchanged: Sequence[pl.DataFrame] = (),
    unchanged_samples: int | None = None,
    weights: np.ndarray | None = None,
) -> pl.DataFrame:
    """Metrics of every checkpoint, class and kind, over all samples.

    Every metric is a ratio of two sums over samples, so one bootstrap serves all:

    - ``count``, ``strength_positive``, ``strength_negative``, ``strength_total``: means over all
      samples, also by order; effects in log-odds.
    - ``gamma`` (Eq. 9), its chance level ``gamma_chance``, ``rho`` (Eq. 10) and its chance level
      ``rho_chance`` (the mean of rho if every effect drew its sign at random): means over the
      samples whose set is not empty. ``gamma_by_count`` and ``gamma_by_count_chance`` are the same
      with every interaction of weight one.
    - ``mean_order``, ``contribution``: means over all interactions of all samples, that is
      the sum of orders, or of signed effects, divided by the count.
    - ``cross_entropy``: mean over all samples of -log sigmoid(sum of the class's effects); an empty
      set predicts log-odds of 0.

    - ``churn_floor``, ``gamma_churn_floor``, ``rho_churn_floor``: what count, gamma and rho would be if
      nothing but noise had changed since the first checkpoint; means over draws and samples.

    Emerged and removed do not apply to the first checkpoint; their values there are null.

    Args:
        dynamics: rows of a ``dynamics`` table.
        samples: all analysed samples, also those without a salient interaction.
        resamples: bootstrap resamples (percentile intervals at ``level``); 0 for no intervals.
        unchanged: draws of a run in which nothing but noise changes, in the form of ``dynamics``;
            without any there is no churn floor.
        unchanged_samples: how many samples, the first of ``samples``, those draws cover; None for all.
        weights: (resamples, samples) how often each resample draws each sample; by default
            :func:`bootstrap_weights`.

    Returns:
        Rows (step, class, kind, order, metric, value, ci_low, ci_high, n_samples); ``order`` null
        means all orders.
    """
    if weights is None:
        weights = bootstrap_weights(len(samples), resamples, seed)
    runs = [by_cell(rows, samples) for rows in (dynamics, *unchanged)]
    records = []
    for step, label in product(steps, CLASSES):
        applies = label == "preserved" or step != min(steps)
        parts = [cells.get((step, label), cells[None]) for cells in runs]
        for kind in KINDS:
            for order, metric, *ratio in ratios(parts[0], kind, len(samples), n_players):
                if applies:
                    records.append(
                        (step, label, kind, order, metric, *summarize(*ratio, weights, level))
                    )
                elif order is None:
                    records.append((step, label, kind, order, metric, None, None, None, 0))
        if applies:
            covered = np.arange(len(samples)) < (unchanged_samples or len(samples))
            records += [
                (step, label, "both", None, metric, *summarize(*ratio * covered, weights, level))
                for metric, ratio in _floors(parts[1:], len(samples), n_players).items()
            ]
    return pl.DataFrame(
        records,
        schema={
            "step": pl.Int64,
            "class": pl.String,
            "kind": pl.String,
            "order": pl.UInt8,
            "metric": pl.String,
            "value": pl.Float64,
            "ci_low": pl.Float64,
            "ci_high": pl.Float64,
            "n_samples": pl.UInt32,
        },
        orient="row",
    )


def compute_metrics_over_seeds(
    dynamics: Sequence[pl.DataFrame],
    samples: Sequence[str],
    steps: Sequence[int],
    n_players: int,
    *,
    resamples: int,
    level: float,
    seed: int,
) -> pl.DataFrame:
    """Metrics of one fine-tuning repeated with several seeds, on the same samples.

    As :func:`compute_metrics`, with the sums taken over samples and seeds. The bootstrap draws seeds and,
    independently, samples, so the interval holds the spread of both.

    Args:
        dynamics: rows of the ``dynamics`` table of each seed.

    Returns:
        Rows as of :func:`compute_metrics`; ``n_samples`` counts pairs of a seed and a sample.
    """
    pairs = [f"{number}/{sample}" for number in range(len(dynamics)) for sample in samples]
    renamed = [
        rows.with_columns(sample_id=pl.lit(f"{number}/") + pl.col("sample_id"))
        for number, rows in enumerate(dynamics)
    ]
    of_seed = bootstrap_weights(len(dynamics), resamples, seed + 1)
    of_sample = bootstrap_weights(len(samples), resamples, seed)
    return compute_metrics(
        pl.concat(renamed),
        pairs,
        steps,
        n_players,
        resamples=resamples,
        level=level,
        seed=seed,
        weights=np.einsum("rs,ri->rsi", of_seed, of_sample).reshape(len(of_seed), -1),
    )


_FLOORS = {"count": "churn_floor", "gamma": "gamma_churn_floor", "rho": "rho_churn_floor"}


def by_cell(
    dynamics: pl.DataFrame, samples: Sequence[str]
) -> dict[tuple[int, str] | None, pl.DataFrame]:
    """Rows by (step, class), numbered by sample; the key None gives an empty table."""
    index = pl.DataFrame({"sample_id": list(samples), "row": range(len(samples))})
    rows = dynamics.join(index, on="sample_id", maintain_order="left")
    return {None: rows.clear(), **rows.partition_by("step", "class", as_dict=True)}


def _floors(draws: Sequence[pl.DataFrame], n_samples: int, n_players: int) -> dict[str, np.ndarray]:
    """Numerators and denominators (2, samples) of every floor, summed over the draws."""
    sums: dict[str, np.ndarray] = {}
    for rows in draws:
        for order, metric, numerator, denominator in ratios(rows, "both", n_samples, n_players):
            if order is None and metric in _FLOORS:
                ratio = np.stack([numerator, denominator])
                sums[_FLOORS[metric]] = sums.get(_FLOORS[metric], 0) + ratio
    return sums


def ratios(
    rows: pl.DataFrame, kind: str, n_samples: int, n_players: int
) -> Iterator[tuple[int | None, str, np.ndarray, np.ndarray]]:
    """Yield (order, metric, numerator by sample, denominator by sample)."""
    if kind != "both":
        rows = rows.filter(pl.col("kind") == kind)
    sample = rows["row"].to_numpy()
    order = rows["order"].to_numpy().astype(np.int64)
    effect = rows["effect"].to_numpy()
    ones = np.ones(n_samples)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(sample, values, n_samples)

    cells = sample * (n_players + 1) + order
    shape = (n_samples, n_players + 1)
    by_order = {
        "count": np.ones_like(effect),
        "strength_positive": effect.clip(min=0),
        "strength_negative": effect.clip(max=0),
        "strength_total": np.abs(effect),
    }
    for metric, values in by_order.items():
        table = np.bincount(cells, values, shape[0] * shape[1]).reshape(shape)
        yield None, metric, table.sum(1), ones
        for k in range(1, n_players + 1):
            yield k, metric, table[:, k], ones

    count, size, net = total(np.ones_like(effect)), total(np.abs(effect)), total(effect)
    filled = (size > 0).astype(float)
    yield None, "mean_order", total(order.astype(float)), count
    yield None, "contribution", net, count
    yield None, "rho", np.abs(net) / np.where(filled, size, 1), filled
    yield None, "rho_chance", _random_rho(np.abs(effect), sample, n_samples), filled
    yield None, "cross_entropy", np.logaddexp(0, -net), ones
    for metric, column in (("gamma", "generalizable"), ("gamma_chance", "chance")):
        known = rows[column].is_not_null().to_numpy()
        share = rows[column].cast(pl.Float64).fill_null(0.0).to_numpy()
        covered = filled * (total(known.astype(float)) == count)
        weighted = total(np.abs(effect) * share) / np.where(filled, size, 1)
        yield None, metric, covered * weighted, covered
        counted = total(share) / np.where(filled, count, 1)
        yield None, metric.replace("gamma", "gamma_by_count"), covered * counted, covered


_SIGN_DRAWS = 512


# Bounded and in bytes: with 12 players a class may have thousands of interactions, and every size its own.
@lru_cache(maxsize=256)
def _signs(n: int) -> np.ndarray:
    """Random signs, int8 (draws, n); all of them, up to a common sign, where they are few."""
    if 1 << (n - 1) <= _SIGN_DRAWS:
        signs = 1 - 2 * (np.arange(1 << (n - 1))[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.Generator(np.random.PCG64(n)).choice([-1, 1], (_SIGN_DRAWS, n))
    return signs.astype(np.int8)


def _random_rho(size: np.ndarray, sample: np.ndarray, n_samples: int) -> np.ndarray:
    """Mean of rho (Eq. 10) by sample if every effect had a random sign; 0 for an empty set.

    Args:
        size: |I| of every interaction.
        sample: its sample, a number below ``n_samples``.
    """
    order = np.lexsort((-size, sample))
    groups = np.split(size[order], np.searchsorted(sample[order], np.arange(1, n_samples)))
    return np.array(
        [
            np.abs(_signs(len(group)).astype(float) @ group).mean() / group.sum()
            if len(group)
            else 0.0
            for group in groups
        ]
    )


def bootstrap_weights(n_samples: int, resamples: int, seed: int) -> np.ndarray:
    """How often each resample draws each sample, float64 (resamples, n_samples)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.integers(0, n_samples, (resamples, n_samples))
    return np.stack([np.bincount(row, minlength=n_samples) for row in drawn] or [[]]).astype(float)


def summarize(
    numerator: np.ndarray, denominator: np.ndarray, weights: np.ndarray, level: float
) -> tuple[float | None, float | None, float | None, int]:
    """Ratio of sums over samples with its percentile bootstrap interval.

    Returns:
        (value, ci_low, ci_high, number of samples with a denominator); None where undefined.
    """
    used = int((denominator > 0).sum())
    if not used:
        return None, None, None, 0
    value = float(numerator.sum() / denominator.sum())
    if not weights.size:
        return value, None, None, used
    bottoms = weights @ denominator
    drawn = bottoms > 0
    ratios = (weights @ numerator)[drawn] / bottoms[drawn]
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return value, float(low), float(high), used
