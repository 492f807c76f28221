"""Interactions along a fine-tuning run that still goes on: what each new checkpoint adds to the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis import turnover
from sft_interactions.analysis.dynamics import add_generalizability, classify
from sft_interactions.analysis.metrics import ratios, summarize
from sft_interactions.analysis.salience import Salience, select_salient
from sft_interactions.extraction.interactions import check_certificates, from_extraction
from sft_interactions.extraction.program import NOISE_RATIO, extract
from sft_interactions.extraction.transforms import n_players

_GAP_TOLERANCE = 1e-6  # default of the config key extraction.gap_tolerance
_MEANS = ("rho", "rho_chance", "gamma", "gamma_chance")
_FLOATS = (
    *("salient", "kept", "lost", "new"),
    *("loss_rate", "loss_rate_low", "loss_rate_high"),
    *_MEANS,
)
MEASUREMENTS: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "step": pl.Int64,
    **dict.fromkeys(_FLOATS, pl.Float64),
    "denoising_ends": pl.String,
    "denoising_ends_low": pl.Int64,
    "denoising_ends_high": pl.Int64,
}
"""Columns of :attr:`OnlineRun.measurements`."""


@dataclass(frozen=True)
class Reading:
    """How interactions are read; the defaults are those of a config, with the reading ``single``.

    Attributes:
        noise_ratio: ζ of :func:`~sft_interactions.extraction.program.noise_bounds`.
        noise_scale: what it is a share of.
        tie_break: a name of ``TIE_BREAKS`` of ``extraction.tie_break``.
        salience: salience rule and threshold.
        level: confidence level of intervals, between 0 and 1.
    """

    noise_ratio: float = NOISE_RATIO
    noise_scale: str = "mean"
    tie_break: str = "high_order"
    salience: Salience | None = None
    level: float = 0.95

    def read(
        self, samples: Sequence[str], log_odds: NDArray[np.float32], name: str
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Interactions of one checkpoint, each checkpoint by itself.

        Args:
            samples: (B,) ids.
            log_odds: (B, 2^n) v(S).
            name: of the checkpoint, for messages.

        Returns:
            Rows of an ``interactions`` table, and the salient ones of them.

        Raises:
            ValueError: as :func:`~sft_interactions.extraction.program.extract` and
                :func:`~sft_interactions.analysis.salience.select_salient`; or a solution is not certified.
            RuntimeError: no solution is found.
        """
        v = log_odds.astype(np.float64)
        solved = extract(
            v,
            noise_ratio=self.noise_ratio,
            noise_scale=self.noise_scale,
            tie_break=self.tie_break,
            gap_tolerance=_GAP_TOLERANCE,
        )
        interactions, solve = from_extraction(list(samples), v, solved)
        check_certificates(solve, _GAP_TOLERANCE, name)
        salience = self.salience or Salience(rule="max_effect", threshold=0.05)
        return interactions, select_salient(interactions, solve, **salience)


class OnlineRun:
    """The checkpoints of a run so far, and the numbers of each as it is added.

    Args:
        samples: (B,) ids of the prompts.
        reading: how interactions are read.
        reference: (B, 2^n) log-odds of the reference model for γ, or None.

    Attributes:
        stages: what the detector answered at each step, from the third on.
    """

    def __init__(
        self,
        samples: Sequence[str],
        reading: Reading,
        reference: NDArray[np.float32] | None = None,
    ) -> None:
        self.samples, self.reading = list(samples), reading
        self.stages: dict[int, turnover.Stage] = {}
        self._reference = None
        if reference is not None:
            self._reference = reading.read(self.samples, reference, "the reference model")[1]
        self._log_odds: dict[int, NDArray[np.float32]] = {}
        self._interactions: dict[int, pl.DataFrame] = {}
        self._salient: dict[int, pl.DataFrame] = {}
        self._rows: list[Mapping[str, Any]] = []

    @property
    def steps(self) -> list[int]:
        """Steps that have been added."""
        return list(self._log_odds)

    def add(self, step: int, log_odds: NDArray[np.float32]) -> Mapping[str, Any]:
        """Add a checkpoint.

        Args:
            step: later than all before.
            log_odds: (B, 2^n) v(S).

        Returns:
            Its row of :attr:`measurements`.

        Raises:
            ValueError: the step is not later, or see :meth:`Reading.read`.
            RuntimeError: no solution is found.
        """
        if self._log_odds and step <= max(self._log_odds):
            raise ValueError(
                f"step {step}: step {max(self._log_odds)} has been measured; add later steps only"
            )
        interactions, salient = self.reading.read(self.samples, log_odds, f"step {step}")
        self._log_odds[step] = log_odds
        self._interactions[step], self._salient[step] = interactions, salient
        dynamics = add_generalizability(
            classify(self._salient), self._reference, n_players(log_odds.shape[1])
        )
        row = {"step": step, **self._means(dynamics, step), **self._changes(dynamics)}
        self._rows.append(row)
        return row

    def _means(self, dynamics: pl.DataFrame, step: int) -> dict[str, float | None]:
        """Count, ρ and γ of all salient interactions of a step, as metrics have them of a class."""
        places = pl.DataFrame({"sample_id": self.samples, "row": range(len(self.samples))})
        rows = turnover.omega(dynamics, step).join(places, on="sample_id")
        n = n_players(next(iter(self._log_odds.values())).shape[1])
        found = {
            ratio.metric: summarize(ratio.numerator, ratio.denominator, self.reading.level).value
            for ratio in ratios(rows, "both", len(self.samples), n)
            if ratio.order is None
        }
        return {"salient": found["count"], **{name: found[name] for name in _MEANS}}

    def _changes(self, dynamics: pl.DataFrame) -> dict[str, Any]:
        """What has changed since the step before, and where the denoising stage ends by what is known."""
        steps, level = self.steps, self.reading.level
        if len(steps) < 2:
            return {}
        last = turnover.tabulate(dynamics, self.samples, steps, level).row(-1, named=True)
        changes = {name: last[name] for name in ("kept", "lost", "new", "loss_rate")}
        changes |= {"loss_rate_low": last["ci_low"], "loss_rate_high": last["ci_high"]}
        if len(steps) < 3:
            return changes
        stage = turnover.detect(dynamics, self.samples, steps, level)
        self.stages[steps[-1]] = stage
        return {
            **changes,
            "denoising_ends": stage.answer,
            "denoising_ends_low": stage.low,
            "denoising_ends_high": stage.high,
        }

    def settled_stage(self, patience: int) -> turnover.Stage | None:
        """The detector's answer, if it is one checkpoint, and has been the same for a while.

        Args:
            patience: at how many of the last steps the answer must have been the same.

        Returns:
            The stage, or None: the answers differ or are no checkpoint; or its interval reaches to the
            newest checkpoint that the detector can name, which is the last but one.
        """
        recent = list(self.stages.values())[-patience:]
        stage = recent[-1] if recent else None
        if stage is None or stage.step is None or stage.high is None:
            return None
        same = len(recent) == patience and all(one.step == stage.step for one in recent)
        return stage if same and stage.high < self.steps[-2] else None

    @property
    def measurements(self) -> pl.DataFrame:
        """A row a step, columns :data:`MEASUREMENTS`.

        Counts are means a prompt; ``kept``, ``lost``, ``new`` and ``loss_rate`` are since the step before;
        ρ, γ and their chance levels are of all salient interactions of the step.
        """
        return pl.DataFrame(self._rows, schema=dict(MEASUREMENTS))

    @property
    def interactions(self) -> pl.DataFrame:
        """All interactions and the bias, rows (step, sample_id, kind, pattern, order, effect, salient)."""
        parts = [
            rows.join(
                self._salient[step].select(
                    "sample_id",
                    pl.col("kind").cast(pl.String),
                    "pattern",
                    pl.lit(True).alias("salient"),
                ),
                on=["sample_id", "kind", "pattern"],
                how="left",
                maintain_order="left",
            ).select(
                pl.lit(step, pl.Int64).alias("step"),
                pl.exclude("salient"),
                pl.col("salient").fill_null(False),
            )
            for step, rows in self._interactions.items()
        ]
        return pl.concat(parts) if parts else pl.DataFrame()

    @property
    def log_odds(self) -> pl.DataFrame:
        """Rows (step, sample_id, mask, log_odds) of all steps."""
        parts = [
            pl.DataFrame(
                {
                    "step": np.full(v.size, step),
                    "sample_id": np.repeat(self.samples, v.shape[1]),
                    "mask": np.tile(np.arange(v.shape[1], dtype=np.uint32), len(v)),
                    "log_odds": v.ravel(),
                }
            )
            for step, v in self._log_odds.items()
        ]
        return pl.concat(parts) if parts else pl.DataFrame()
