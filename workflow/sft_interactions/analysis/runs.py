"""A run as figures and tables see it: its label, its metrics, its stages, the tables of its checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions import tables
from sft_interactions.analysis.choices import JOINT, SINGLE

# With fewer checkpoints the detector of the stages has one place alone for its change point.
FEWEST_TO_CHOOSE = 4


@dataclass(frozen=True)
class Run:
    """One run as the figures see it.

    Attributes:
        label: title of the run.
        metrics: rows of its ``metrics`` table.
        stages: content of its ``stages.json``.
        training: rows of its ``training`` table; None where it was tuned elsewhere, or is not shown.
    """

    label: str
    metrics: pl.DataFrame
    stages: Mapping[str, Any]
    training: pl.DataFrame | None = None

    @property
    def steps(self) -> list[int]:
        """Analysed checkpoints; the first is before SFT."""
        return self.metrics["step"].unique().sort().to_list()

    @property
    def orders(self) -> list[int]:
        """Orders of interactions, 1 to the number of players."""
        return self.metrics["order"].drop_nulls().unique().sort().to_list()

    @property
    def n_players(self) -> int:
        """Number of players of a prompt."""
        return self.orders[-1]

    @property
    def n_samples(self) -> int:
        """Number of analysed samples."""
        counts: list[int] = self._rows("preserved", "count")["n_samples"].to_list()
        return max(counts)

    @property
    def boundary(self) -> int:
        """Index of the checkpoint that ends the denoising stage."""
        return self.steps.index(self.stages["boundary_step"])

    @property
    def overfits_from(self) -> int | None:
        """Step from which overfitting is drawn; None where the verdict does not say that the run overfits.

        That after which the validation loss rises, but not before the denoising stage ends.

        Raises:
            ValueError: an older version made the stages, which did not tell.
        """
        try:
            after = self.stages["evidence"]["overfits_after_step"]
        except KeyError:
            raise ValueError(
                f"stages.json of {self.label}: overfits_after_step is missing, since an older version made "
                "this file; delete it and run snakemake again"
            ) from None
        if after is None:
            return None
        start: int = max(after, self.stages["boundary_step"])
        return start if start < self.steps[-1] else None

    @property
    def has_churn_floor(self) -> bool:
        """Whether the metrics say what noise alone would change."""
        return bool(np.isfinite(self.series("removed", "churn_floor")[0]).any())

    @property
    def other_reading(self) -> str | None:
        """``joint``, or ``single`` where that is the study's own; None if the metrics have neither."""
        for name in (JOINT, SINGLE):
            if np.isfinite(self.series("preserved", f"count_{name}")[0]).any():
                return name
        return None

    def series(self, label: str, metric: str) -> NDArray[np.float64]:
        """Value and interval of a metric of a class over the checkpoints.

        Returns:
            float64 (3, checkpoints): value, ci_low, ci_high over all orders and both kinds; NaN where
            null or missing.
        """
        rows = self._rows(label, metric).filter(pl.col("order").is_null())
        values = np.full((3, len(self.steps)), np.nan)
        for step, *row in rows.select("step", "value", "ci_low", "ci_high").iter_rows():
            values[:, self.steps.index(step)] = row
        return values

    def by_order(self, label: str, metric: str) -> NDArray[np.float64]:
        """Value of a metric of a class, float64 (checkpoints, orders); NaN where null or missing."""
        rows = self._rows(label, metric).filter(pl.col("order").is_not_null())
        values = np.full((len(self.steps), len(self.orders)), np.nan)
        for step, order, value in rows.select("step", "order", "value").iter_rows():
            values[self.steps.index(step), self.orders.index(order)] = value
        return values

    def _rows(self, label: str, metric: str) -> pl.DataFrame:
        return self.metrics.filter(
            pl.col("class") == label, pl.col("kind") == "both", pl.col("metric") == metric
        )


def read_runs(
    labels: Sequence[str],
    metrics: Sequence[str | Path],
    stages: Sequence[str | Path],
    training: Sequence[str | Path | None] | None = None,
) -> list[Run]:
    """Read runs from their ``metrics`` tables and their ``stages.json``.

    Args:
        labels: titles of the runs, in the order of the files.
        metrics: their tables.
        stages: their files.
        training: their ``training`` tables, None for a run without one; by default none is read.

    Raises:
        ValueError: a table does not have the columns of ``metrics``, or the lengths differ.
    """
    courses = [None] * len(labels) if training is None else training
    return [
        Run(
            label,
            tables.read(table, tables.METRICS),
            read_stages(file),
            None if course is None else tables.read(course, tables.TRAINING),
        )
        for label, table, file, course in zip(labels, metrics, stages, courses, strict=True)
    ]


def read_stages(path: str | Path) -> dict[str, Any]:
    """Content of a run's ``stages.json``."""
    return tables.read_json(path)


def overall_metrics(metrics: pl.DataFrame) -> pl.DataFrame:
    """Metrics over all orders, AND and OR together, without those that do not apply.

    Args:
        metrics: rows of a ``metrics`` table.

    Returns:
        Rows (step, class, metric, value, ci_low, ci_high, n_samples).
    """
    return metrics.filter(
        pl.col("order").is_null(), pl.col("kind") == "both", pl.col("n_samples") > 0
    ).drop("order", "kind")


def concat_runs(runs: Sequence[str], frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rows of several runs under one another, with the run's name in a first column ``run``."""
    named = [
        frame.select(pl.lit(run).alias("run"), pl.all())
        for run, frame in zip(runs, frames, strict=True)
    ]
    return pl.concat(named)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run and its tables.

    Attributes:
        label: title of the run.
        step: the checkpoint.
        tables: kind of table, such as ``interactions``, to its file.
    """

    label: str
    step: int
    tables: Mapping[str, str | Path]

    @property
    def title(self) -> str:
        """Run and checkpoint, such as ``Llama on tweets, t = 20``."""
        return f"{self.label}, t = {self.step}" if self.step else f"{self.label}, before SFT"


def checkpoints_by_run(
    labels: Sequence[str], steps: Sequence[Sequence[int]], **paths: Sequence[str | Path]
) -> list[dict[int, Checkpoint]]:
    """Divide the tables of all checkpoints of some runs by run and checkpoint.

    Args:
        labels: titles of the runs.
        steps: checkpoints of each run.
        paths: by kind of table its files, run after run and checkpoint after checkpoint.

    Returns:
        for each run step to checkpoint.

    Raises:
        ValueError: there are more or fewer files of a kind than checkpoints.
    """
    found: list[dict[int, Checkpoint]] = [{} for _ in labels]
    places = [(run, step) for run, run_steps in enumerate(steps) for step in run_steps]
    for (run, step), *files in zip(places, *paths.values(), strict=True):
        tables_of_step = dict(zip(paths, files, strict=True))
        found[run][step] = Checkpoint(labels[run], step, tables_of_step)
    return found


def best_checkpoints(
    runs: Sequence[Mapping[int, Checkpoint]], stages: Sequence[str | Path]
) -> list[Checkpoint]:
    """The best checkpoint of each run.

    Args:
        runs: for each run step to checkpoint.
        stages: ``stages.json`` of each run, which names it.
    """
    steps = [read_stages(path)["best_checkpoint_step"] for path in stages]
    return [checkpoints[step] for checkpoints, step in zip(runs, steps, strict=True)]


def compared_checkpoints(
    runs: Sequence[Mapping[int, Checkpoint]], stages: Sequence[str | Path]
) -> list[Checkpoint]:
    """The best checkpoints of two runs, or of one run alone the one before SFT and the best one."""
    best = best_checkpoints(runs, stages)
    before = runs[0][min(runs[0])]
    return best if len(best) > 1 else [before, *best]


def tell_few_checkpoints(steps: Mapping[str, Sequence[int]]) -> list[str]:
    """A note on each run whose checkpoints leave the detector nothing to choose.

    Args:
        steps: run to its analysed checkpoints, ascending.
    """
    return [
        f"{run} has {len(found)} checkpoints, of which step {found[1]} alone can end the denoising stage, "
        "whatever the interactions do; what rests on that step says nothing of them"
        for run, found in steps.items()
        if 2 <= len(found) < FEWEST_TO_CHOOSE
    ]
