"""Stability selection: how often an interaction is found again when the extraction is perturbed.

The share of extractions under noise of the inference, other ζ and other tie-breaks in which an
interaction is salient with the same sign. After Meinshausen and Bühlmann (2010), with perturbations of v
in place of subsamples; that it is used on interactions is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import KEY
from sft_interactions.analysis.salience import Salience, select_salient, without_shares
from sft_interactions.analysis.stability import Progress, noise_perturbation, perturb
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import NOISE_RATIO, extract, noise_bounds
from sft_interactions.parallel import Mapped, in_turn


class Selection(TypedDict):
    """Settings of the perturbations, as the block ``stability.selection`` of a config has them.

    Attributes:
        draws: number of perturbed extractions.
        noise: standard deviation of the noise of each, relative to the noise scale.
        noise_ratios: ζ of the draws, in turn.
        tie_breaks: tie-breaks of the draws, in turn.
    """

    draws: int
    noise: float
    noise_ratios: Sequence[float]
    tie_breaks: Sequence[str]


class Draw(NamedTuple):
    """How one perturbed extraction is made.

    Attributes:
        noise_ratio: its ζ.
        tie_break: its tie-break.
    """

    noise_ratio: float
    tie_break: str


def list_draws(selection: Selection) -> list[Draw]:
    """The perturbed extractions; together they have every ζ and every tie-break.

    Raises:
        ValueError: there are fewer draws than noise ratios or tie-breaks, or none of these.
    """
    ratios, tie_breaks = selection["noise_ratios"], selection["tie_breaks"]
    needed = max(len(ratios), len(tie_breaks))
    if not ratios or not tie_breaks or selection["draws"] < needed:
        raise ValueError(
            f"selection: {selection['draws']} draws for {len(ratios)} noise_ratios and "
            f"{len(tie_breaks)} tie_breaks; list one of each at least, and as many draws"
        )
    return [
        Draw(ratios[number % len(ratios)], tie_breaks[number % len(tie_breaks)])
        for number in range(selection["draws"])
    ]


@dataclass(frozen=True)
class Selector:
    """Adds to the interactions of a checkpoint the share of perturbed extractions that have them.

    Attributes:
        selection: the perturbations.
        salience: what counts as salient in each; ``stable`` counts as the rule that it starts from.
        seed: seed of the noise.
        noise_scale: see :func:`~sft_interactions.extraction.program.noise_bounds`.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.
    """

    selection: Selection
    salience: Salience
    seed: int
    noise_scale: str = "sample"
    mapped: Mapped = in_turn

    def __call__(
        self,
        interactions: pl.DataFrame,
        values: NDArray[np.float64],
        samples: Sequence[str],
        *,
        n_samples: int | None = None,
        error: float = 0.0,
        progress: Progress = lambda _: None,
    ) -> pl.DataFrame:
        """Add the column ``share``.

        The noise depends on the seed, the draw and the sample id, never on which samples come together
        (but for its size under the noise scale ``mean``). It is the same at every checkpoint, so that
        the chance in the draws does not pass for a change of the LLM.

        Args:
            interactions: rows of an ``interactions`` table, of any extraction of these samples.
            values: (B, 2^n) v of one checkpoint; under the noise scale ``mean``, of all its samples.
            samples: (B,) sample ids.
            n_samples: how many samples, the first, the interactions are of; None for all.
            error: measured error of the log-odds (root mean square), added to the noise.
            progress: called with the number of extractions that have just been made, of samples · draws.

        Returns:
            The rows with ``share``, float64 in [0, 1]: in which share of the draws the interaction is
            salient with the sign that it has in ``interactions``. Of the bias it is null.

        Raises:
            ValueError: as :func:`list_draws`; the interactions are of other samples than these.
        """
        covered = list(samples[:n_samples])
        unknown = interactions.filter(~pl.col("sample_id").is_in(covered))
        if len(unknown):
            raise ValueError(
                f"interactions: sample {unknown['sample_id'][0]} has no log-odds; give both of one "
                "checkpoint"
            )
        draws = list_draws(self.selection)
        salient = [
            self._salient(draw, number, values, samples, covered, error, progress)
            for number, draw in enumerate(draws)
        ]
        found = pl.concat(salient).group_by(*KEY, "positive").len("hits")
        is_bias = pl.col("kind").cast(pl.String) == "bias"
        share = pl.when(~is_bias).then(pl.col("hits").fill_null(0) / len(draws))
        return (
            interactions.with_columns(
                (pl.col("effect") > 0).alias("positive"),
                pl.col("kind").cast(pl.String).alias("_kind"),
            )
            .join(
                found.rename({"kind": "_kind"}),
                on=["sample_id", "_kind", "pattern", "positive"],
                how="left",
                maintain_order="left",
            )
            .with_columns(share.alias("share"))
            .drop("positive", "_kind", "hits")
        )

    def _salient(
        self,
        draw: Draw,
        number: int,
        values: NDArray[np.float64],
        samples: Sequence[str],
        covered: list[str],
        error: float,
        progress: Progress,
    ) -> pl.DataFrame:
        """Rows (sample_id, kind, pattern, positive) that are salient in one draw."""
        noisy = perturb(
            values,
            samples,
            noise_perturbation(self.selection["noise"]),
            f"selection-{number}",
            seed=self.seed,
            noise_scale=self.noise_scale,
            error=error,
        )
        bounds = noise_bounds(noisy, draw.noise_ratio, self.noise_scale)
        kept = noisy[: len(covered)]
        solved = extract(
            kept,
            noise_bound=bounds[: len(covered)],
            tie_break=draw.tie_break,
            progress=progress,
            mapped=self.mapped,
        )
        interactions, solve = from_extraction(covered, kept, solved)
        salient = select_salient(interactions, solve, **without_shares(self.salience))
        return salient.select(
            "sample_id",
            pl.col("kind").cast(pl.String),
            "pattern",
            (pl.col("effect") > 0).alias("positive"),
        )


def extract_with_shares(
    values: NDArray[np.float64],
    samples: Sequence[str],
    selector: Selector,
    *,
    noise_ratio: float = NOISE_RATIO,
    error: float = 0.0,
    progress: Progress = lambda _: None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Canonical interactions of one checkpoint, with their shares.

    Args:
        values: (B, 2^n) v of all samples of the checkpoint.
        samples: (B,) sample ids.
        selector: the perturbations; its noise scale is that of the canonical extraction too.
        noise_ratio: ζ of the canonical extraction.
        error: measured error of the log-odds (root mean square).
        progress: called with the number of extractions that have just been made, of
            B · (1 + draws).

    Returns:
        Rows of the ``selection`` table (sample_id, kind, pattern, order, effect, share), and of the
        ``solve`` table.

    Raises:
        ValueError: as :class:`Selector` and :func:`~sft_interactions.extraction.program.extract`.
    """
    solved = extract(
        values,
        noise_ratio=noise_ratio,
        noise_scale=selector.noise_scale,
        progress=progress,
        mapped=selector.mapped,
    )
    interactions, solve = from_extraction(list(samples), values, solved)
    shared = selector(interactions, values, samples, error=error, progress=progress)
    return shared, solve
