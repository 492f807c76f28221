"""What a figure knows of a run: its label, its metrics and its stages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sft_interactions import tables


@dataclass(frozen=True)
class Run:
    """One run as the figures see it.

    Attributes:
        label: title of the run.
        metrics: rows of its ``metrics`` table.
        stages: content of its ``stages.json``.
    """

    label: str
    metrics: pl.DataFrame
    stages: Mapping[str, object]

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
        return int(self._rows("preserved", "count")["n_samples"].max())

    @property
    def boundary(self) -> int:
        """Index of the checkpoint that ends the denoising stage."""
        return self.steps.index(self.stages["boundary_step"])

    @property
    def has_churn_floor(self) -> bool:
        """Whether the metrics say what noise alone would change."""
        return bool(np.isfinite(self.series("removed", "churn_floor")[0]).any())

    def series(self, label: str, metric: str) -> np.ndarray:
        """Value and interval of a metric of a class over the checkpoints.

        Returns:
            (3, checkpoints): value, ci_low, ci_high over all orders and both kinds; NaN where null
            or missing.
        """
        rows = self._rows(label, metric).filter(pl.col("order").is_null())
        values = np.full((3, len(self.steps)), np.nan)
        for step, *row in rows.select("step", "value", "ci_low", "ci_high").iter_rows():
            values[:, self.steps.index(step)] = row
        return values

    def by_order(self, label: str, metric: str) -> np.ndarray:
        """Value of a metric of a class, (checkpoints, orders); NaN where null or missing."""
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
    labels: Sequence[str], metrics: Sequence[str | Path], stages: Sequence[str | Path]
) -> list[Run]:
    """Read the runs of a figure from their ``metrics`` tables and ``stages.json``."""
    return [
        Run(label, tables.read(table, tables.METRICS), json.loads(Path(file).read_text()))
        for label, table, file in zip(labels, metrics, stages, strict=True)
    ]
