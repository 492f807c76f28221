"""Counts, strengths and quality of the three classes, with intervals over samples.

Equations of arXiv 2605.17967.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables
from sft_interactions.analysis.dynamics import CLASSES, PRESERVED, check_orders
from sft_interactions.analysis.intervals import rate

KINDS = ("and", "or", "both")
# Metrics that are given for each reading too.
READ = (
    "count",
    "strength_total",
    "mean_order",
    "gamma",
    "rho",
    "cross_entropy",
    "contribution",
)
_FLOORS = {"count": "churn_floor", "rho": "rho_churn_floor", "gamma": "gamma_churn_floor"}
_SIGN_DRAWS = 512
# Rounding alone is no width of an interval.
_NO_WIDTH = 1e-12


class Ratio(NamedTuple):
    """A metric as a ratio of two sums over samples.

    Attributes:
        order: order of the interactions; None for all orders.
        metric: name of the metric.
        numerator: float64 (samples,).
        denominator: float64 (samples,); 0 where the metric is not defined for a sample.
    """

    order: int | None
    metric: str
    numerator: NDArray[np.float64]
    denominator: NDArray[np.float64]


class Summary(NamedTuple):
    """A metric over all samples, with its interval; None where undefined.

    Attributes:
        value: the ratio of the sums.
        ci_low: lower end of its interval (`intervals`); None below ``FEWEST_SAMPLES``, and where all
            samples are alike.
        ci_high: upper end.
        n_samples: number of samples with a denominator.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n_samples: int


class Cells:
    """Rows of a ``dynamics`` table by checkpoint and class.

    They get a column ``row``, the place of their sample in ``samples``.

    Args:
        dynamics: rows of a ``dynamics`` table.
        samples: all analysed samples, also those without a salient interaction.
    """

    def __init__(self, dynamics: pl.DataFrame, samples: Sequence[str]) -> None:
        index = pl.DataFrame({"sample_id": list(samples), "row": range(len(samples))})
        rows = dynamics.join(index, on="sample_id", maintain_order="left")
        self._none = rows.clear()
        self._rows = rows.partition_by("step", "class", as_dict=True)

    def rows(self, step: int, label: str) -> pl.DataFrame:
        """Rows of a class at a checkpoint, no row where it is empty."""
        return self._rows.get((step, label), self._none)


def compute_metrics(
    dynamics: pl.DataFrame,
    samples: Sequence[str],
    steps: Sequence[int],
    n_players: int,
    *,
    level: float,
    unchanged: Sequence[pl.DataFrame] = (),
    unchanged_samples: int | None = None,
    readings: Mapping[str, pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """Metrics of every checkpoint, class and kind, over all samples.

    Every metric is a ratio of two sums over samples:

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

    - ``count_certain``, ``count_joint`` and so on, for the metrics of ``READ``: the same under another
      reading of the tables, see :mod:`~sft_interactions.analysis.readings`.

    Emerged and removed do not apply to the first checkpoint; their values there are null.

    Args:
        dynamics: rows of a ``dynamics`` table.
        samples: all analysed samples, also those without a salient interaction.
        steps: analysed checkpoints.
        n_players: number of players of a prompt.
        level: confidence level of the intervals, between 0 and 1.
        unchanged: draws of a run in which nothing but noise changes, in the form of ``dynamics``;
            without any there is no churn floor.
        unchanged_samples: how many samples, the first of ``samples``, those draws cover; None for all.
        readings: name of a reading to its rows, in the form of ``dynamics``.

    Returns:
        Rows (step, class, kind, order, metric, value, ci_low, ci_high, n_samples); ``order`` null
        means all orders.

    Raises:
        ValueError: a sample is there twice; or ``dynamics``, a draw or a reading has a sample or step that
            ``samples`` or ``steps`` lacks, or an order above ``n_players``.
    """
    _check_once(samples)
    of_draws = {f"unchanged[{draw}]": rows for draw, rows in enumerate(unchanged)}
    of_readings = {f"readings[{name!r}]": rows for name, rows in (readings or {}).items()}
    for name, rows in {"dynamics": dynamics, **of_draws, **of_readings}.items():
        _check_known(rows, samples, steps, name)
        check_orders(rows, n_players, name)
    n_covered = len(samples) if unchanged_samples is None else unchanged_samples
    covered = (np.arange(len(samples)) < n_covered).astype(float)
    cells = Cells(dynamics, samples)
    draws = [Cells(rows, samples) for rows in unchanged]
    read = {name: Cells(rows, samples) for name, rows in (readings or {}).items()}
    records: list[tuple[object, ...]] = []
    for step, label in product(steps, CLASSES):
        applies = label == PRESERVED or step != min(steps)
        rows = cells.rows(step, label)
        for kind in KINDS:
            for order, metric, numerator, denominator in ratios(
                rows, kind, len(samples), n_players
            ):
                if applies:
                    summary = summarize(numerator, denominator, level, support(metric))
                elif order is None:
                    summary = Summary(None, None, None, 0)
                else:
                    continue
                records.append((step, label, kind, order, metric, *summary))
        if applies:
            floors = _floors([draw.rows(step, label) for draw in draws], len(samples), n_players)
            for metric, (numerator, denominator) in floors.items():
                summary = summarize(
                    numerator * covered, denominator * covered, level, support(metric)
                )
                records.append((step, label, "both", None, metric, *summary))
            for name, of_reading in read.items():
                for ratio in ratios(of_reading.rows(step, label), "both", len(samples), n_players):
                    if ratio.order is None and ratio.metric in READ:
                        metric = ratio.metric
                        summary = summarize(
                            ratio.numerator, ratio.denominator, level, support(metric)
                        )
                        metric = f"{metric}_{name}"
                        records.append((step, label, "both", None, metric, *summary))
    return pl.DataFrame(records, schema=dict(tables.METRICS.columns), orient="row")


def _check_once(samples: Sequence[str]) -> None:
    named = pl.Series(list(samples))
    twice = named.filter(named.is_duplicated())
    if len(twice):
        raise ValueError(f"samples: {twice[0]} is there twice; name every sample once")


def _check_known(
    rows: pl.DataFrame, samples: Sequence[str], steps: Sequence[int], name: str
) -> None:
    for column, known in (("sample_id", samples), ("step", steps)):
        others = sorted(set(rows[column].unique()) - set(known))
        if others:
            argument = f"{column.removesuffix('_id')}s"
            raise ValueError(
                f"{argument}: {others[0]}, which {name} has, is missing; give all {argument} of the run"
            )


def _floors(
    draws: Sequence[pl.DataFrame], n_samples: int, n_players: int
) -> Mapping[str, NDArray[np.float64]]:
    """Numerators and denominators (2, samples) of every floor, summed over the draws."""
    sums = {metric: np.zeros((2, n_samples)) for metric in _FLOORS.values()} if draws else {}
    for rows in draws:
        for order, metric, numerator, denominator in ratios(rows, "both", n_samples, n_players):
            if order is None and metric in _FLOORS:
                sums[_FLOORS[metric]] += np.stack([numerator, denominator])
    return sums


def ratios(rows: pl.DataFrame, kind: str, n_samples: int, n_players: int) -> Iterator[Ratio]:
    """Yield every metric of a class at a checkpoint, see :func:`compute_metrics`.

    Args:
        rows: rows of :class:`Cells`.
        kind: ``and``, ``or`` or ``both``.
        n_samples: number of analysed samples.
        n_players: number of players of a prompt.
    """
    if kind != "both":
        rows = rows.filter(pl.col("kind") == kind)
    sample = rows["row"].to_numpy()
    order = rows["order"].to_numpy().astype(np.int64)
    effect = rows["effect"].to_numpy()
    ones = np.ones(n_samples)

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _sums(sample, values, n_samples)

    cells = sample * (n_players + 1) + order
    shape = (n_samples, n_players + 1)
    by_order = {
        "count": np.ones_like(effect),
        "strength_positive": effect.clip(min=0),
        "strength_negative": effect.clip(max=0),
        "strength_total": np.abs(effect),
    }
    for metric, values in by_order.items():
        table = _sums(cells, values, shape[0] * shape[1]).reshape(shape)
        yield Ratio(None, metric, table.sum(1), ones)
        for k in range(1, n_players + 1):
            yield Ratio(k, metric, table[:, k], ones)

    count, size, net = total(np.ones_like(effect)), total(np.abs(effect)), total(effect)
    filled = (size > 0).astype(float)
    yield Ratio(None, "mean_order", total(order.astype(float)), count)
    yield Ratio(None, "contribution", net, count)
    yield Ratio(None, "rho", np.abs(net) / np.where(filled, size, 1), filled)
    yield Ratio(None, "rho_chance", _random_rho(np.abs(effect), sample, n_samples), filled)
    yield Ratio(None, "cross_entropy", np.logaddexp(0, -net), ones)
    for suffix, column in (("", "generalizable"), ("_chance", "chance")):
        known = rows[column].is_not_null().to_numpy()
        share = rows[column].cast(pl.Float64).fill_null(0.0).to_numpy()
        covered = filled * (total(known.astype(float)) == count)
        weighted = total(np.abs(effect) * share) / np.where(filled, size, 1)
        yield Ratio(None, f"gamma{suffix}", covered * weighted, covered)
        counted = total(share) / np.where(filled, count, 1)
        yield Ratio(None, f"gamma_by_count{suffix}", covered * counted, covered)


def _sums(
    groups: NDArray[np.int64], values: NDArray[np.float64], n_groups: int
) -> NDArray[np.float64]:
    """Sum of the values of each group, (n_groups,), from (values,) groups and values."""
    # Of type float64 already, but numpy's annotation says integer.
    return np.bincount(groups, values, n_groups).astype(np.float64, copy=False)


# Bounded and in bytes: with 12 players a class may have thousands of interactions, and every size its own.
@lru_cache(maxsize=256)
def _signs(n: int) -> NDArray[np.int8]:
    """Random signs, (draws, n); all of them, up to a common sign, where they are few."""
    if 1 << (n - 1) <= _SIGN_DRAWS:
        signs = 1 - 2 * (np.arange(1 << (n - 1))[:, None] >> np.arange(n) & 1)
    else:
        signs = np.random.Generator(np.random.PCG64(n)).choice([-1, 1], (_SIGN_DRAWS, n))
    return signs.astype(np.int8)


def _random_rho(
    size: NDArray[np.float64], sample: NDArray[np.int64], n_samples: int
) -> NDArray[np.float64]:
    """Mean of rho (Eq. 10) by sample if every effect had a random sign; 0 for an empty set.

    Args:
        size: (interactions,) |I|.
        sample: (interactions,) sample of each, a number below ``n_samples``.

    Returns:
        (samples,).
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


class Support(NamedTuple):
    """What is known of a metric before it is measured.

    Attributes:
        least: the least value that it can have.
        largest: the largest.
        of_logarithm: whether its interval is that of its logarithm, since it has a long tail
            (docs/validity.md, "Intervals").
    """

    least: float = 0.0
    largest: float = np.inf
    of_logarithm: bool = False


POSITIVE = Support()


def support(metric: str) -> Support:
    """What is known of a metric, which is named as in :func:`ratios`."""
    of_logarithm = metric.startswith(("strength", "gamma", "cross_entropy"))
    if metric == "contribution":
        return Support(-np.inf)
    if metric == "strength_negative":
        return Support(-np.inf, 0.0, of_logarithm)
    largest = 1.0 if metric.startswith(("gamma", "rho")) else np.inf
    return Support(0.0, largest, of_logarithm)


def summarize(
    numerator: NDArray[np.float64],
    denominator: NDArray[np.float64],
    level: float,
    known: Support = POSITIVE,
) -> Summary:
    """Ratio of sums over samples with its interval, if they differ.

    Args:
        numerator: (samples,).
        denominator: (samples,).
        level: confidence level of the interval, between 0 and 1.
        known: of the ratio; no interval reaches beyond its least and largest value.
    """
    value, low, high = rate(numerator, denominator, level, known.of_logarithm)
    if low is not None and high is not None:
        if high - low <= _NO_WIDTH * max(1.0, abs(high)):
            low = high = None
        else:
            low, high = max(low, known.least), min(high, known.largest)
    return Summary(value, low, high, int((denominator > 0).sum()))
