"""How far interactions move when nothing but noise, or the choice among optima, has changed.

AND and OR interactions are not determined by v alone (two extractions of one model shared 11-21 % of
their top 100 in arXiv 2401.16318, Table 2), so every change along the checkpoints is read against
this floor.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.choices import JOINT, SINGLE
from sft_interactions.analysis.dynamics import KEY, classify
from sft_interactions.analysis.readings import L1_TOLERANCE, RunReader
from sft_interactions.analysis.salience import Salience, select_salient
from sft_interactions.extraction.interactions import from_extraction, to_extraction
from sft_interactions.extraction.program import Extraction, extract, noise_bounds, reconstruct
from sft_interactions.parallel import Mapped, in_turn

# Two exact evaluations of one masked prompt (prefix tree, full length) differ by about this many units
# in the last place of the largest |v|.
ROUNDINGS = 16
# Solutions that are read may leave their noise bound by this part of the range of v, which is more than
# rounding and far less than the noise.
_EXCESS = 1e-6

CANONICAL_TIE_BREAK = "canonical"

Progress = Callable[[int], None]
# The interactions of a checkpoint and its ``solve`` table.
Tables = tuple[pl.DataFrame, pl.DataFrame]


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
    mapped: Mapped = in_turn,
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
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.

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
        mapped=mapped,
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
        solved: what :meth:`to_tables` gave for the same run, so that nothing is extracted.
        progress: called with the number of extractions that have just been made, of
            samples · (1 + draws · (checkpoints − 1)).
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.

    Raises:
        ValueError: ``solved`` is of other draws, checkpoints, samples or log-odds.
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
        solved: Tables | None = None,
        progress: Progress = lambda _: None,
        mapped: Mapped = in_turn,
    ) -> None:
        self._mapped = mapped
        self._tie_break = perturbation.tie_break
        self.first, *self.later = sorted(steps)
        covered, samples = samples[:n_samples], _rows_needed(samples, n_samples, noise_scale)
        self.draws, self.n_samples, self._covered = draws, len(covered), covered
        self._readers: dict[tuple[tuple[int, ...], float], RunReader] = {}
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
        checkpoints = [values[: len(samples)], *noisy]
        if solved is not None:
            self._extracted = _read(
                checkpoints,
                samples=samples,
                n_samples=len(covered),
                noise_ratio=noise_ratio,
                noise_scale=noise_scale,
                tables=_at_places(solved, self._places()),
            )
            return
        self._extracted = _extract(
            checkpoints,
            samples=samples,
            n_samples=len(covered),
            tie_break=perturbation.tie_break,
            noise_ratio=noise_ratio,
            noise_scale=noise_scale,
            errors=[errors[self.first], *[errors[step] for step in self.later] * draws],
            add_shares=add_shares,
            progress=progress,
            mapped=mapped,
        )

    def _places(self) -> list[tuple[int, int]]:
        """Draw and step of every extraction; that of the first step, which all draws share, once."""
        drawn = [(draw, step) for draw in range(self.draws) for step in self.later]
        return [(0, self.first), *drawn]

    def to_tables(self) -> Tables:
        """What is extracted: rows of the tables ``unchanged_interactions``, and of its ``solve``.

        The first step, which all draws share, is there once, as of draw 0. The column ``share`` is null
        without ``add_shares``.
        """
        of_places = []
        for place, (draw, step) in enumerate(self._places()):
            where = {"draw": pl.lit(draw, pl.UInt32), "step": pl.lit(step, pl.Int64)}
            interactions, solve = self._extracted.tables(place)
            if "share" not in interactions.columns:
                interactions = interactions.with_columns(share=pl.lit(None, pl.Float64))
            of_places.append((interactions.with_columns(**where), solve.with_columns(**where)))
        interactions_of, solve_of = zip(*of_places, strict=True)
        return pl.concat(interactions_of), pl.concat(solve_of)

    def classify(
        self, salience: Salience, reading: str = SINGLE, tolerance: float = L1_TOLERANCE
    ) -> list[pl.DataFrame]:
        """For each draw, rows as of :func:`~sft_interactions.analysis.dynamics.classify`.

        Args:
            salience: rule and threshold.
            reading: one of ``choices.READINGS``.
            tolerance: see :func:`~sft_interactions.analysis.readings.RunReader`.
        """

        @cache
        def of_place(place: int) -> pl.DataFrame:
            if reading == SINGLE:
                return self._extracted.salient(place, salience)
            return self._reader((place,), tolerance).salient(reading, salience)[0]

        def of_draw(places: Sequence[int]) -> list[pl.DataFrame]:
            if reading == JOINT:
                found = self._reader(tuple(places), tolerance).salient(reading, salience)
                return [found[number] for number in range(len(places))]
            return [of_place(place) for place in places]

        steps = [self.first, *self.later]
        return [
            classify(dict(zip(steps, of_draw(self._places_of(draw)), strict=True)))
            for draw in range(self.draws)
        ]

    def _places_of(self, draw: int) -> list[int]:
        """Places of the checkpoints of a draw, of which the first is that of all draws."""
        start = 1 + draw * len(self.later)
        return [0, *range(start, start + len(self.later))]

    def _reader(self, places: tuple[int, ...], tolerance: float) -> RunReader:
        """Reads the checkpoints at some places; it has steps of its own, their order."""
        if (places, tolerance) not in self._readers:
            solutions = [self._extracted.solution(place) for place in places]
            self._readers[places, tolerance] = RunReader(
                {number: values for number, (values, _) in enumerate(solutions)},
                {number: solved for number, (_, solved) in enumerate(solutions)},
                self._covered,
                self._tie_break,
                tolerance,
                self._mapped,
            )
        return self._readers[places, tolerance]


class _Extracted:
    """Solutions of the first samples of several checkpoints, or draws of noise.

    Args:
        checkpoints: v of each, (B, 2^n).
        samples: (B,) sample ids.
        n_samples: how many of them are solved.
        solved: the solutions, checkpoint after checkpoint.
        errors: measured error of the log-odds of each checkpoint.
        add_shares: adds the column ``share`` to the interactions of a checkpoint; None for none.
        known: place of a checkpoint to its tables, where they need not be made.

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
        known: Mapping[int, Tables] | None = None,
    ) -> None:
        self._checkpoints, self._samples, self._n_samples = checkpoints, samples, n_samples
        self._solved, self._errors, self._add_shares = solved, errors, add_shares
        self._tables = dict(known or {})
        self.effects = np.concatenate([solved.and_effects, solved.or_effects], axis=1)

    def salient(self, place: int, salience: Salience) -> pl.DataFrame:
        """Salient interactions of a checkpoint, by its place."""
        return select_salient(*self.tables(place), **salience)

    def tables(self, place: int) -> Tables:
        """The interactions of a checkpoint and its ``solve`` table, by its place."""
        # Shares take many extractions, and one checkpoint is asked for under several salience rules.
        if place not in self._tables:
            self._tables[place] = self._make_tables(place)
        return self._tables[place]

    def solution(self, place: int) -> tuple[NDArray[np.float64], Extraction]:
        """v of the solved samples of a checkpoint, by its place, and their solutions."""
        start = place * self._n_samples
        solved = self._solved.take(slice(start, start + self._n_samples))
        return self._checkpoints[place][: self._n_samples], solved

    def _make_tables(self, place: int) -> Tables:
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
    mapped: Mapped,
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
        mapped=mapped,
    )
    return _Extracted(checkpoints, samples, n_samples, solved, errors, add_shares)


def _at_places(solved: Tables, places: Sequence[tuple[int, int]]) -> list[Tables]:
    """The two tables of every place, from those that :meth:`UnchangedRun.to_tables` gives."""
    found = [
        table.partition_by("draw", "step", include_key=False, as_dict=True) for table in solved
    ]
    for table in found:
        if set(table) != set(places):
            raise ValueError(
                f"unchanged_interactions: {len(table)} pairs of a draw and a step, or others, where "
                f"{len(places)} are needed; rebuild the stability of this run"
            )
    return [(found[0][place], found[1][place]) for place in places]


def _read(
    checkpoints: Sequence[NDArray[np.float64]],
    *,
    samples: Sequence[str],
    n_samples: int,
    noise_ratio: float,
    noise_scale: str,
    tables: Sequence[Tables],
) -> _Extracted:
    """What :func:`_extract` gave, from its tables, which are checked against the log-odds."""
    covered = samples[:n_samples]
    solutions = []
    for number, (v, pair) in enumerate(zip(checkpoints, tables, strict=True)):
        found = to_extraction(covered, *pair)
        bounds = noise_bounds(v, noise_ratio, noise_scale)[:n_samples]
        kept = v[:n_samples]
        phi = reconstruct(found.bias, found.and_effects, found.or_effects)
        missed = np.abs(phi - kept).max(axis=1)
        for row in np.flatnonzero(missed > bounds + _EXCESS * np.ptp(kept, axis=1)):
            raise ValueError(
                f"unchanged_interactions: extraction {number}, sample {covered[int(row)]}: the effects "
                f"miss the log-odds by {missed[row]:.3e}, above the noise bound of {bounds[row]:.3e}; "
                "rebuild the stability of this run"
            )
        solutions.append(found)
    joined = Extraction.join(solutions)
    return _Extracted(checkpoints, samples, n_samples, joined, [], None, dict(enumerate(tables)))
