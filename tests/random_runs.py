"""Runs with random metrics, and what tests read back from figures of them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_interactions import tables
from sft_interactions.analysis.runs import Run
from sft_interactions.figures.style import CLASSES

METRICS = (
    "count",
    "strength_total",
    "gamma",
    "gamma_chance",
    "rho",
    "rho_chance",
    "cross_entropy",
    "contribution",
)
STEPS = (0, 5, 20, 300)
CHOICES = ("the study's own", "salience: top_k 10")
VERDICTS = ("supported", "contradicted", "inconclusive", "supported", "inconclusive")


def make_run(
    label: str = "A model on data", steps: tuple[int, ...] = STEPS, n: int = 4, seed: int = 0
) -> Run:
    """A run with random metrics; removed and emerged are null at the first step."""
    random = np.random.default_rng(seed)
    rows = []

    def add(step: int, name: str, order: int | None, metric: str, value: float) -> None:
        applies = name == "preserved" or step != steps[0]
        interval = (value, value - 0.1, value + 0.2) if applies else (None, None, None)
        if order is None or applies:
            rows.append((step, name, "both", order, metric, *interval, 9 * applies))

    for step in steps:
        for name in CLASSES:
            for metric in METRICS:
                add(step, name, None, metric, random.uniform(0.2, 0.8))
            positive, negative = random.uniform(0, 2, n), random.uniform(-2, 0, n)
            for sign, values in (("positive", positive), ("negative", negative)):
                add(step, name, None, f"strength_{sign}", values.sum())
                for order, value in enumerate(values, start=1):
                    add(step, name, order, f"strength_{sign}", value)
    schema = dict(tables.METRICS.columns)
    metrics = tables.check(pl.DataFrame(rows, schema=schema, orient="row"), tables.METRICS, "test")
    stages = {
        "boundary_step": steps[1],
        "ci_low_step": steps[1],
        "ci_high_step": steps[2],
        "best_checkpoint_step": steps[2],
        "evidence": {"overfits_after_step": None},
    }
    return Run(label, metrics, stages)


def with_training(run: Run, warm_up: int = 3) -> Run:
    """The run with a training table: a loss at every step, validation at the checkpoints."""
    steps = range(run.steps[-1] + 1)
    rates = [0.0] + [min(step / warm_up, 1.0) * (1 - step / 1000) for step in steps[1:]]
    training = pl.DataFrame(
        {
            "step": steps,
            "train_loss": [4.0 / (1 + step) for step in steps],
            "validation_loss": [5.0 / (1 + s) if s in run.steps else None for s in steps],
            "learning_rate": rates,
        }
    )
    return replace(run, training=tables.check(training, tables.TRAINING, "test"))


def make_sensitivity(choices: Sequence[str] = CHOICES) -> pl.DataFrame:
    """As much of a ``sensitivity`` table as the figure reads."""
    cells = [
        (position, choice, finding, verdict, 2, 3)
        for position, choice in enumerate(choices)
        for finding, verdict in enumerate(VERDICTS, start=1)
    ]
    columns = ["position", "choice", "finding", "verdict", "parts_supported", "parts"]
    return pl.DataFrame(cells, schema=columns, orient="row")


def overfitting(run: Run, after: int | None) -> Run:
    """The run, of which the verdict is that it overfits after a step."""
    return replace(run, stages={**run.stages, "evidence": {"overfits_after_step": after}})


def far_beyond(run: Run, factor: float) -> Run:
    """The run with one checkpoint at which emerged interactions are so many times as strong."""
    chosen = (
        (pl.col("step") == STEPS[-1])
        & (pl.col("class") == "emerged")
        & pl.col("metric").str.starts_with("strength")
    )
    changed = [
        pl.when(chosen).then(factor * pl.col(column)).otherwise(pl.col(column)).alias(column)
        for column in ("value", "ci_low", "ci_high")
    ]
    return replace(run, metrics=run.metrics.with_columns(changed))


def with_values(run: Run, metric: str, value: float | None) -> Run:
    """The run with every value of a metric replaced."""
    chosen = pl.col("metric") == metric
    changed = [
        pl.when(chosen).then(pl.lit(value, pl.Float64)).otherwise(pl.col(column)).alias(column)
        for column in ("value", "ci_low", "ci_high")
    ]
    return replace(run, metrics=run.metrics.with_columns(changed))


def with_churn_floor(run: Run) -> Run:
    """The run with the churn floors of count, gamma and rho, after the first step."""
    floors = {"churn_floor": 0.1, "gamma_churn_floor": 0.2, "rho_churn_floor": 0.3}
    count = run.metrics.filter(pl.col("metric") == "count")
    later = pl.col("step") > 0
    rows = [
        count.with_columns(
            metric=pl.lit(name),
            value=pl.when(later).then(value),
            ci_low=pl.when(later).then(value / 2),
            ci_high=pl.when(later).then(2 * value),
        )
        for name, value in floors.items()
    ]
    return replace(run, metrics=pl.concat([run.metrics, *rows]))


def with_reading(run: Run, reading: str) -> Run:
    """The run with another reading, whose metrics over all orders are half of its own."""
    overall = run.metrics.filter(pl.col("order").is_null())
    rows = overall.with_columns(
        pl.col("value", "ci_low", "ci_high") / 2,
        metric=pl.col("metric") + f"_{reading}",
    )
    return replace(run, metrics=pl.concat([run.metrics, rows]))


def lookup(run: Run, step: int, name: str, metric: str, order: int | None = None) -> float | None:
    """A metric straight from the table."""
    rows = run.metrics.filter(
        pl.col("step") == step,
        pl.col("class") == name,
        pl.col("metric") == metric,
        pl.col("order").eq_missing(pl.lit(order, pl.UInt8)),
    )
    return rows["value"].item()


def panel(figure: Figure, label: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_label() == label)


def lines(axes: Axes) -> dict[str, np.ndarray]:
    """Drawn values by the id of the line."""
    return {line.get_gid(): line.get_ydata() for line in axes.lines if line.get_gid()}


def floors(figure: Figure) -> list[str]:
    """Sorted ids of the churn floors that are drawn."""
    ids = (part.get_gid() for axes in figure.axes for part in axes.collections)
    return sorted(gid for gid in ids if gid and "churn_floor" in gid)


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for part in (figure, *figure.axes) for t in part.texts]
