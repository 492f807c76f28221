"""How far interactions move when nothing but noise, or the choice among optima, has changed.

AND and OR interactions are not determined by v alone (two extractions of one model shared 11-21 % of
their top 100 in arXiv 2401.16318, Table 2), so every change along the checkpoints is read against
this floor.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import KEY, classify
from sft_interactions.analysis.readings import CANONICAL, L1_TOLERANCE, read_run
from sft_interactions.analysis.salience import Salience, select_salient
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import Extraction, extract, noise_bounds

# Two exact evaluations of one masked prompt (prefix tree, full length) differ by about this many units
# in the last place of the largest |v|.
ROUNDINGS = 16

CANONICAL_TIE_BREAK = "canonical"

Progress = Callable[[int], None]


class AddShares(Protocol):
    """What :class:`~sft_interactions.analysis.selection.Selector` does, for the rule ``stable``."""

    def __call__(
        self,
        interactions: pl.DataFrame,
        values: NDArray[np.float64],
        samples: Sequence[str],
        *,
        n_samples: int | None,
        error: float,
    ) -> pl.DataFrame: ...


class ChurnFloor(TypedDict):
    """Settings of the churn floor, as the block ``stability`` of a config has them.

    Attributes:
        samples: how many samples, the first by id, it covers.
        churn_noise: relative noise, see :func:`noise_perturbation`.
        draws: how many draws it is the mean of.
    """

    samples: int
    churn_noise: float
    draws: int


@dataclass(frozen=True)
class Perturbation:
    """A change that leaves the LLM as it is.

    Attributes:
        name: value of the column ``perturbation``.
        relative_noise: standard deviation of Gaussian noise on v, relative to the noise scale.
        rounds: the noise is that of the rounding of the inference dtype instead.
        tie_break: tie-break of the extraction.
    """

    name: str
    relative_noise: float = 0.0
    rounds: bool = False
    tie_break: str = CANONICAL_TIE_BREAK


def perturbations(
    noise: Sequence[float], tie_breaks: Sequence[str], own: str = CANONICAL_TIE_BREAK
) -> list[Perturbation]:
    """Rounding noise and the given relative noises under one's own tie-break, and the given others."""
    return [
        Perturbation("dtype", rounds=True, tie_break=own),
        *(noise_perturbation(size, own) for size in noise),
        *(Perturbation(f"tie_break-{name}", tie_break=name) for name in tie_breaks if name != own),
    ]


def noise_perturbation(size: float, tie_break: str = CANONICAL_TIE_BREAK) -> Perturbation:
    """Gaussian noise of ``size`` relative to the noise scale, under a tie-break."""
    return Perturbation(f"noise-{size:g}", size, tie_break=tie_break)


def perturb(
    values: NDArray[np.float64],
    samples: Sequence[str],
    perturbation: Perturbation,
    label: str,
    *,
    seed: int,
    noise_scale: str = "sample",
    error: float = 0.0,
    dtype: str = "float32",
) -> NDArray[np.float64]:
    """Add a perturbation's noise to v, and where it has any, that of the inference.

    The draw depends on ``seed``, ``label``, the perturbation and the sample id, never on which samples
    come together; so does its size, but under the noise scale ``mean``.

    Args:
        values: (B, 2^n) v; under the noise scale ``mean``, of all samples of the checkpoint.
        samples: (B,) sample ids.
        perturbation: what is added; its tie-break does not matter here.
        label: tells draws apart, such as the step.
        seed: seed of the noise.
        noise_scale: see :func:`~sft_interactions.extraction.program.noise_bounds`.
        error: measured error of the log-odds (root mean square).
        dtype: floating type of the inference, for rounding noise.

    Returns:
        (B, 2^n).
    """
    if perturbation.rounds:
        scale = ROUNDINGS * float(np.finfo(dtype).eps) * np.abs(values).max(axis=1)
    else:
        scale = noise_bounds(values, perturbation.relative_noise, noise_scale)
    if perturbation.rounds or perturbation.relative_noise > 0:
        scale = np.hypot(scale, error)
    noisy = values.copy()
    for row, sample_id in enumerate(samples):
        key = f"{seed}:{label}:{perturbation.name}:{sample_id}".encode()
        entropy = int.from_bytes(hashlib.sha256(key).digest()[:16], "big")
        generator = np.random.Generator(np.random.PCG64(entropy))
        noisy[row] += scale[row] * generator.standard_normal(values.shape[1])
    return noisy


def compare(reference: pl.DataFrame, other: pl.DataFrame, samples: Sequence[str]) -> pl.DataFrame:
    """Agreement of two sets of salient interactions, sample by sample.

    Args:
        reference: rows (sample_id, kind, pattern, effect).
        other: rows of the same form.
        samples: sample ids, also of samples with no interaction in either.

    Returns:
        Rows (sample_id, jaccard, sign_agreement): shared / all patterns, kinds told apart (1 where both are
        empty); and the share of the shared ones with one sign (null where none is shared).
    """
    columns = [*KEY, "effect"]
    both = reference.select(columns).join(
        other.select(columns), on=KEY, how="full", coalesce=True, suffix="_other"
    )
    shared = pl.col("effect").is_not_null() & pl.col("effect_other").is_not_null()
    agrees = (pl.col("effect") > 0) == (pl.col("effect_other") > 0)
    counted = both.group_by("sample_id").agg(
        shared.mean().alias("jaccard"), agrees.filter(shared).mean().alias("sign_agreement")
    )
    return (
        pl.DataFrame({"sample_id": list(samples)})
        .join(counted, on="sample_id", how="left", maintain_order="left")
        .with_columns(pl.col("jaccard").fill_null(1.0))
    )


def measure(
    values: Mapping[int, NDArray[np.float64]],
    samples: Sequence[str],
    checked: Sequence[Perturbation],
    salience: Salience,
    *,
    noise_ratio: float,
    noise_scale: str = "sample",
    n_samples: int | None = None,
    tie_break: str = CANONICAL_TIE_BREAK,
    seed: int,
    errors: Mapping[int, float] | None = None,
    add_shares: AddShares | None = None,
    progress: Progress = lambda _: None,
) -> pl.DataFrame:
    """Re-extract every checkpoint under every perturbation and compare with the study's own answer.

    Args:
        values: step to v, (B, 2^n); under the noise scale ``mean``, of all samples of the checkpoint.
        samples: (B,) sample ids.
        checked: perturbations.
        salience: rule and threshold of :func:`~sft_interactions.analysis.salience.select_salient`.
        noise_ratio: ζ of the extraction.
        noise_scale: see :func:`~sft_interactions.extraction.program.noise_bounds`.
        n_samples: how many samples, the first, are extracted; None for all.
        tie_break: of the answer that is compared with.
        seed: seed of the noise.
        errors: step to the measured error of its log-odds (root mean square); none by default.
        add_shares: a :class:`~sft_interactions.analysis.selection.Selector`, if salience needs shares.
        progress: called with the number of extractions that have just been made, of
            samples · checkpoints · (1 + perturbations).

    Returns:
        Rows (sample_id, step, perturbation, jaccard, sign_agreement, rel_l1_distance); the last is
        Σ|I - I'| / Σ|I| over all interactions, null where there is none.
    """
    steps = sorted(values)
    errors = errors or dict.fromkeys(steps, 0.0)
    covered, samples = samples[:n_samples], _rows_needed(samples, n_samples, noise_scale)
    solve = partial(
        _extract,
        samples=samples,
        n_samples=len(covered),
        noise_ratio=noise_ratio,
        noise_scale=noise_scale,
        errors=[errors[step] for step in steps],
        add_shares=add_shares,
        progress=progress,
    )
    own = solve([values[step][: len(samples)] for step in steps], tie_break=tie_break)
    size = np.abs(own.effects).sum(axis=1)
    parts = []
    for perturbation in checked:
        noisy = [
            perturb(
                values[step][: len(samples)],
                samples,
                perturbation,
                f"step-{step}",
                seed=seed,
                noise_scale=noise_scale,
                error=errors[step],
            )
            for step in steps
        ]
        other = solve(noisy, tie_break=perturbation.tie_break)
        moved = np.abs(own.effects - other.effects).sum(axis=1)
        for number, step in enumerate(steps):
            rows = slice(number * len(covered), (number + 1) * len(covered))
            agreement = compare(
                own.salient(number, salience), other.salient(number, salience), covered
            )
            with np.errstate(invalid="ignore", divide="ignore"):
                distance = moved[rows] / size[rows]
            parts.append(
                agreement.with_columns(
                    pl.lit(step, pl.Int64).alias("step"),
                    pl.lit(perturbation.name).alias("perturbation"),
                    pl.Series("rel_l1_distance", distance, nan_to_null=True),
                )
            )
    return pl.concat(parts)


class UnchangedRun:
    """A run in which nothing but noise changes from checkpoint to checkpoint.

    Every checkpoint after the first gets the v of the first plus noise of its own, and goes through the
    same definitions. What then counts as removed or emerged is the churn floor; since P_t is a cumulative
    intersection, the floor grows with t even where the noise does not.

    Args:
        values: (B, 2^n) v of the first checkpoint; under the noise scale ``mean``, of all its samples.
        samples: (B,) sample ids.
        steps: analysed checkpoints.
        perturbation: the noise; its tie-break is that of all extractions.
        noise_ratio: ζ of the extraction.
        noise_scale: see :func:`~sft_interactions.extraction.program.noise_bounds`.
        n_samples: how many samples, the first, are extracted; None for all.
        draws: how many such runs are drawn.
        seed: seed of the noise.
        errors: step to the measured error of its log-odds (root mean square), added to the noise with
            that of the first; none by default.
        add_shares: a :class:`~sft_interactions.analysis.selection.Selector`, if salience needs shares.
        progress: called with the number of extractions that have just been made, of
            samples · (1 + draws · (checkpoints − 1)).
    """

    def __init__(
        self,
        values: NDArray[np.float64],
        samples: Sequence[str],
        steps: Sequence[int],
        perturbation: Perturbation,
        *,
        noise_ratio: float,
        noise_scale: str = "sample",
        n_samples: int | None = None,
        draws: int,
        seed: int,
        errors: Mapping[int, float] | None = None,
        add_shares: AddShares | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        self.first, *self.later = sorted(steps)
        covered, samples = samples[:n_samples], _rows_needed(samples, n_samples, noise_scale)
        self.draws, self.n_samples, self._covered = draws, len(covered), covered
        errors = errors or dict.fromkeys(steps, 0.0)
        noisy = [
            perturb(
                values[: len(samples)],
                samples,
                perturbation,
                f"draw-{draw}-step-{step}",
                seed=seed,
                noise_scale=noise_scale,
                error=float(np.hypot(errors[self.first], errors[step])),
            )
            for draw in range(draws)
            for step in self.later
        ]
        self._extracted = _extract(
            [values[: len(samples)], *noisy],
            samples=samples,
            n_samples=len(covered),
            tie_break=perturbation.tie_break,
            noise_ratio=noise_ratio,
            noise_scale=noise_scale,
            errors=[errors[self.first], *[errors[step] for step in self.later] * draws],
            add_shares=add_shares,
            progress=progress,
        )

    def classify(
        self, salience: Salience, reading: str = CANONICAL, tolerance: float = L1_TOLERANCE
    ) -> list[pl.DataFrame]:
        """For each draw, rows as of :func:`~sft_interactions.analysis.dynamics.classify`.

        Args:
            salience: rule and threshold.
            reading: one of :data:`~sft_interactions.analysis.readings.READINGS`.
            tolerance: see :func:`~sft_interactions.analysis.readings.read_run`.
        """
        return [
            classify(self._salient(draw, salience, reading, tolerance))
            for draw in range(self.draws)
        ]

    def _salient(
        self, draw: int, salience: Salience, reading: str, tolerance: float
    ) -> dict[int, pl.DataFrame]:
        """Step to the salient interactions of a draw."""
        start = 1 + draw * len(self.later)
        places = {self.first: 0, **{step: start + i for i, step in enumerate(self.later)}}
        if reading == CANONICAL:
            return {
                step: self._extracted.salient(place, salience) for step, place in places.items()
            }
        solutions = {step: self._extracted.solution(place) for step, place in places.items()}
        return read_run(
            reading,
            {step: values for step, (values, _) in solutions.items()},
            {step: solved for step, (_, solved) in solutions.items()},
            self._covered,
            salience,
            tolerance=tolerance,
        )


class _Extracted:
    """Solutions of the first samples of several checkpoints, or draws of noise.

    Args:
        checkpoints: v of each, (B, 2^n).
        samples: (B,) sample ids.
        n_samples: how many of them are solved.
        solved: the solutions, checkpoint after checkpoint.
        errors: measured error of the log-odds of each checkpoint.
        add_shares: adds the column ``share`` to the interactions of a checkpoint; None for none.

    Attributes:
        effects: (checkpoints · n_samples, 2^(n + 1)) of AND, then of OR.
    """

    def __init__(
        self,
        checkpoints: Sequence[NDArray[np.float64]],
        samples: Sequence[str],
        n_samples: int,
        solved: Extraction,
        errors: Sequence[float],
        add_shares: AddShares | None,
    ) -> None:
        self._checkpoints, self._samples, self._n_samples = checkpoints, samples, n_samples
        self._solved, self._errors, self._add_shares = solved, errors, add_shares
        self._tables: dict[int, tuple[pl.DataFrame, pl.DataFrame]] = {}
        self.effects = np.concatenate([solved.and_effects, solved.or_effects], axis=1)

    def salient(self, place: int, salience: Salience) -> pl.DataFrame:
        """Salient interactions of a checkpoint, by its place."""
        # Shares take many extractions, and one checkpoint is asked for under several salience rules.
        if place not in self._tables:
            self._tables[place] = self._make_tables(place)
        return select_salient(*self._tables[place], **salience)

    def solution(self, place: int) -> tuple[NDArray[np.float64], Extraction]:
        """v of the solved samples of a checkpoint, by its place, and their solutions."""
        start = place * self._n_samples
        solved = self._solved.take(slice(start, start + self._n_samples))
        return self._checkpoints[place][: self._n_samples], solved

    def _make_tables(self, place: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        values, covered = self._checkpoints[place], list(self._samples[: self._n_samples])
        interactions, solve = from_extraction(covered, *self.solution(place))
        if self._add_shares is not None:
            interactions = self._add_shares(
                interactions,
                values,
                self._samples,
                n_samples=self._n_samples,
                error=self._errors[place],
            )
        return interactions, solve


def _rows_needed(samples: Sequence[str], n_samples: int | None, noise_scale: str) -> Sequence[str]:
    """The samples that the extraction of the first ``n_samples`` depends on."""
    return samples if noise_scale == "mean" else samples[:n_samples]


def _extract(
    checkpoints: Sequence[NDArray[np.float64]],
    *,
    samples: Sequence[str],
    n_samples: int,
    tie_break: str,
    noise_ratio: float,
    noise_scale: str,
    errors: Sequence[float],
    add_shares: AddShares | None,
    progress: Progress,
) -> _Extracted:
    """Solve the first samples of several checkpoints, or draws of noise, in one batch.

    Args:
        checkpoints: v of each, (B, 2^n), whose noise bounds are its own.
        samples: (B,) sample ids.
        n_samples: how many samples, the first, are solved.
    """
    bounds = [noise_bounds(v, noise_ratio, noise_scale)[:n_samples] for v in checkpoints]
    solved = extract(
        np.concatenate([v[:n_samples] for v in checkpoints]),
        noise_bound=np.concatenate(bounds),
        tie_break=tie_break,
        progress=progress,
    )
    return _Extracted(checkpoints, samples, n_samples, solved, errors, add_shares)
