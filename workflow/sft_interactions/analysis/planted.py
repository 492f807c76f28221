"""Runs whose interactions are known: planted AND-OR models along checkpoints, and scores of what is found.

A planted run has log-odds v(S) = φ(S) + noise, where φ is the AND-OR model of arXiv 2605.17967, Eq. 2-3,
with few effects of our own choice. What is removed, preserved and emerged is then known, and so is how
much of it an extraction finds again. Sizes, orders and courses are like those of real runs:
docs/validity.md says where each number comes from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sft_interactions.analysis.dynamics import CLASSES, KEY
from sft_interactions.analysis.metrics import compute_metrics
from sft_interactions.analysis.salience import Salience, select_salient
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import Extraction, reconstruct
from sft_interactions.extraction.transforms import n_players as players_of
from sft_interactions.extraction.transforms import orders
from sft_interactions.limits import MAX_PLAYERS, MIN_PLAYERS

# Sizes of effects follow a Pareto law: P(size > s) = (SMALLEST_SIZE / s)^TAIL, in log-odds, cut at
# LARGEST_SIZE, beyond which all others would be below a threshold of 0.05.
SMALLEST_SIZE, LARGEST_SIZE, TAIL = 0.1, 2.0, 1.15
OR_SHARE = 0.25
# Weak effects are uniform between 0 and this, and change from checkpoint to checkpoint.
BACKGROUND_SIZE = 0.4 * SMALLEST_SIZE
MEASURED = ("mean_order", "gamma", "rho")
_PLANTED_AT_8_PLAYERS = 24
_GROWTH_PER_PLAYER = 1.6


@dataclass(frozen=True)
class Group:
    """Interactions that come and go alike.

    Time is measured in runs: 0 is before SFT, 1 the last checkpoint.

    Attributes:
        share: their number, as a share of the interactions before SFT.
        appears: interval from which the time of the first appearance is drawn; None if they are there
            before SFT.
        disappears: interval from which the time of the disappearance is drawn; None if they stay.
        order_rate: orders are 1 + Binomial(n − 1, order_rate).
        positive: share of positive effects.
        growth: factor by which an effect that stays grows over the run.
        in_reference: probability that the reference model has the interaction too, with its sign.
    """

    share: float
    appears: tuple[float, float] | None = None
    disappears: tuple[float, float] | None = None
    order_rate: float = 0.4
    positive: float = 0.5
    growth: float = 1.0
    in_reference: float = 0.1


@dataclass(frozen=True)
class Scenario:
    """What happens along a run.

    Attributes:
        description: in words.
        groups: the interactions.
        drift: standard deviation of the change of log|effect| from checkpoint to checkpoint.
        course: ``groups`` as the groups say; ``independent`` with other patterns, sizes and signs at every
            checkpoint; ``interpolation`` on the straight line between two independent models.
    """

    description: str
    groups: Sequence[Group]
    drift: float = 0.0
    course: Literal["groups", "independent", "interpolation"] = "groups"


_KEPT = Group(0.2, order_rate=0.25, positive=0.8, growth=2.0, in_reference=0.5)
_GOES = Group(0.8, disappears=(0.0, 0.4), positive=0.4)
_UNCHANGED = (
    Group(0.2, order_rate=0.25, positive=0.8, in_reference=0.5),
    Group(0.8, positive=0.4),
)

SCENARIOS: Mapping[str, Scenario] = {
    "mixed": Scenario(
        "a fifth of the interactions stays, most of the others go early, new ones come all along",
        (
            _KEPT,
            Group(0.55, disappears=(0.0, 0.2), positive=0.4),
            Group(0.25, disappears=(0.2, 1.0), positive=0.4),
            Group(1.0, appears=(0.0, 1.0), positive=0.6, growth=2.0),
        ),
        drift=0.1,
    ),
    "two_stages": Scenario(
        "the story of the paper: until 0.4 interactions go and a few of low order come, then many of "
        "high order come that the reference model does not have",
        (
            _KEPT,
            Group(0.8, disappears=(0.0, 0.4), order_rate=0.45, positive=0.4, in_reference=0.0),
            Group(0.15, appears=(0.0, 0.4), order_rate=0.25, positive=0.8, in_reference=0.5),
            Group(1.0, appears=(0.4, 1.0), order_rate=0.55, in_reference=0.0),
        ),
        drift=0.1,
    ),
    "as_claimed": Scenario(
        "the same in every part that the protocol tests: what goes first is of high order and in no other "
        "model, what goes later is of low order and had come in between, what stays is in the reference "
        "model too",
        (
            Group(0.2, order_rate=0.15, positive=0.8, growth=2.0, in_reference=0.95),
            Group(0.8, disappears=(0.0, 0.4), order_rate=0.5, in_reference=0.0),
            Group(0.2, appears=(0.0, 0.4), order_rate=0.2, positive=0.9, in_reference=0.5),
            Group(0.2, appears=(0.4, 0.6), disappears=(0.6, 1.0), order_rate=0.1, in_reference=0.0),
            Group(1.0, appears=(0.4, 1.0), order_rate=0.55, in_reference=0.0),
        ),
        drift=0.1,
    ),
    "unchanged": Scenario("one model at all checkpoints", _UNCHANGED),
    "drift": Scenario("the same interactions, whose sizes wander", _UNCHANGED, drift=0.3),
    "independent": Scenario(
        "at every checkpoint a model of its own", _UNCHANGED, course="independent"
    ),
    "interpolation": Scenario(
        "on the straight line between two models of their own", _UNCHANGED, course="interpolation"
    ),
    "overfitting": Scenario(
        "nothing goes, new interactions of high order come all along",
        (*_UNCHANGED, Group(1.0, appears=(0.0, 1.0), order_rate=0.55, in_reference=0.0)),
    ),
    "denoising": Scenario("most interactions go early, nothing comes", (_KEPT, _GOES)),
    "slow_removal": Scenario(
        "the loss rate falls, since more come than go and those stay, but most of what goes does so late",
        (
            _KEPT,
            Group(0.3, disappears=(0.0, 0.2), positive=0.4),
            Group(0.5, disappears=(0.2, 1.0), positive=0.4),
            Group(1.5, appears=(0.0, 1.0), order_rate=0.55, in_reference=0.0),
        ),
        drift=0.1,
    ),
}
"""Every scenario by its name: four with all three classes, and six in which a part of them is missing."""


@dataclass(frozen=True)
class PlantedRun:
    """A run and the truth about it, for B samples, n players and the checkpoints 0, 1, ...

    Attributes:
        samples: (B,) sample ids, sorted.
        effects: step to planted effects, float64 (B, 2, 2^n), I then J, in log-odds.
        bias: float64 (B,) b of every checkpoint and of the reference model.
        values: step to v, float64 (B, 2^n), in log-odds, with noise.
        reference_effects: planted effects of the reference model, float64 (B, 2, 2^n).
        reference_values: its v, float64 (B, 2^n), with noise.
    """

    samples: Sequence[str]
    effects: Mapping[int, NDArray[np.float64]]
    bias: NDArray[np.float64]
    values: Mapping[int, NDArray[np.float64]]
    reference_effects: NDArray[np.float64]
    reference_values: NDArray[np.float64]

    @property
    def steps(self) -> list[int]:
        """The checkpoints; the first is before SFT."""
        return sorted(self.effects)

    @property
    def n_players(self) -> int:
        """Number of players of a prompt."""
        return players_of(self.reference_values.shape[1])

    def salient(self, salience: Salience) -> dict[int, pl.DataFrame]:
        """The planted interactions that a salience rule keeps, by step.

        Args:
            salience: rule and threshold of :func:`~sft_interactions.analysis.salience.select_salient`.
        """
        return {step: self._salient(self.effects[step], salience) for step in self.steps}

    def reference_salient(self, salience: Salience) -> pl.DataFrame:
        """The same of the reference model."""
        return self._salient(self.reference_effects, salience)

    def _salient(self, effects: NDArray[np.float64], salience: Salience) -> pl.DataFrame:
        values = reconstruct(self.bias, effects[:, 0], effects[:, 1])
        l1 = np.abs(effects).sum(axis=(1, 2))
        zeros = np.zeros(len(self.samples))
        perfect = Extraction(
            and_effects=effects[:, 0],
            or_effects=effects[:, 1],
            bias=self.bias,
            l1=l1,
            l1_lower_bound=l1,
            l1_plain=l1,
            noise_bound=zeros,
            max_residual=zeros,
            iterations=zeros.astype(np.int64),
        )
        return select_salient(*from_extraction(list(self.samples), values, perfect), **salience)


def default_count(n_players: int) -> int:
    """Number of interactions before SFT that is planted by default: 24 at 8 players, 61 at 10."""
    growth: float = _GROWTH_PER_PLAYER ** (n_players - 8)
    return max(2, round(_PLANTED_AT_8_PLAYERS * growth))


def plant(
    scenario: str,
    n_players: int,
    n_samples: int,
    *,
    n_checkpoints: int = 6,
    n_interactions: int | None = None,
    noise: float = 0.0,
    background: float = 0.0,
    seed: int = 0,
    training: int | None = None,
) -> PlantedRun:
    """Draw a run whose interactions are known.

    A sample depends on the seed, the scenario and the sizes of a sample, not on how many samples there are.
    The planted effects do not depend on ``noise``, and its draws are the same at every size.

    Args:
        scenario: a name of :data:`SCENARIOS`.
        n_players: number of players n, 5 to 16.
        n_samples: number of samples B.
        n_checkpoints: number of checkpoints, at least 2, the one before SFT included.
        n_interactions: number of interactions before SFT; by default :func:`default_count`.
        noise: standard deviation of independent Gaussian noise on v, as a share of max φ − min φ of that
            sample and checkpoint.
        background: number of weak interactions besides, as a share of ``n_interactions``. Their patterns
            stay, their effects are drawn anew at every checkpoint, uniform below `BACKGROUND_SIZE`.
        seed: seed of everything.
        training: number of a repeat with another seed of the training: the same log-odds before SFT and of
            the reference model, the same interactions to go and to come, at other times and with other
            noise. None is a draw of its own.

    Raises:
        ValueError: an unknown scenario, a number out of its range, or more interactions than patterns.
    """
    if scenario not in SCENARIOS:
        raise ValueError(f"unknown scenario {scenario!r}; choose from {', '.join(SCENARIOS)}")
    count = default_count(n_players) if n_interactions is None else n_interactions
    _check_sizes(n_players, n_samples, n_checkpoints, count, noise, background)
    drawn = [
        _Sample(
            SCENARIOS[scenario], n_players, n_checkpoints, count, background, [seed, *key], training
        )
        for key in ((*scenario.encode(), number) for number in range(n_samples))
    ]
    effects = np.stack([sample.effects for sample in drawn])
    bias = np.array([sample.bias for sample in drawn])
    phi = reconstruct(bias[:, None], effects[:, :, 0], effects[:, :, 1])
    normal = np.stack([sample.normal for sample in drawn])
    v = phi + noise * np.ptp(phi, axis=2, keepdims=True) * normal
    return PlantedRun(
        samples=[f"s{number:0{len(str(n_samples - 1))}d}" for number in range(n_samples)],
        effects={step: effects[:, step] for step in range(n_checkpoints)},
        bias=bias,
        values={step: v[:, step] for step in range(n_checkpoints)},
        reference_effects=effects[:, -1],
        reference_values=v[:, -1],
    )


def _check_sizes(
    n_players: int,
    n_samples: int,
    n_checkpoints: int,
    n_interactions: int,
    noise: float,
    background: float,
) -> None:
    smallest = {
        "n_players": (n_players, max(5, MIN_PLAYERS)),
        "n_samples": (n_samples, 1),
        "n_checkpoints": (n_checkpoints, 2),
        "n_interactions": (n_interactions, 2),
        "noise": (noise, 0),
        "background": (background, 0),
    }
    for name, (value, least) in smallest.items():
        if not (np.isfinite(value) and value >= least):
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if n_players > MAX_PLAYERS:
        raise ValueError(f"n_players is {n_players}; it must be at most {MAX_PLAYERS}")


class _Sample:
    """One sample: its effects at every checkpoint and, last, of the reference model.

    Attributes:
        effects: float64 (checkpoints + 1, 2, 2^n).
        bias: b.
        normal: float64 (checkpoints + 1, 2^n), standard normal.
    """

    def __init__(
        self,
        scenario: Scenario,
        n_players: int,
        n_checkpoints: int,
        n_interactions: int,
        background: float,
        entropy: Sequence[int],
        training: int | None = None,
    ) -> None:
        model, weak, noise = np.random.SeedSequence(list(entropy)).spawn(3)
        self._rng = self._of_training = np.random.default_rng(model)
        if training is not None:
            self._of_training = np.random.default_rng([*entropy, training])
        self._n, self._count = n_players, n_interactions
        self._time = np.linspace(0, 1, n_checkpoints)
        self._free = np.ones(2 << n_players, dtype=bool)
        self.bias = float(self._rng.normal())
        planted = self._draw(scenario)
        planted[:-1] += self._draw_background(planted[:-1], background, weak)
        self.effects = planted.reshape(n_checkpoints + 1, 2, 1 << n_players)
        self.normal = np.random.default_rng(noise).standard_normal(
            (n_checkpoints + 1, 1 << n_players)
        )
        if training is not None:
            later = self.normal[1:-1]
            later[:] = self._of_training.standard_normal(later.shape)

    def _draw(self, scenario: Scenario) -> NDArray[np.float64]:
        """Effects (checkpoints + 1, 2 · 2^n) without the background."""
        if scenario.course == "groups":
            return self._draw_groups(scenario)
        n_models = 2 if scenario.course == "interpolation" else len(self._time)
        drawn = []
        for _ in range(n_models):
            self._free[:] = True
            drawn.append(self._draw_groups(scenario))
            self._rng = self._of_training
        models = np.stack([both[0] for both in drawn])
        if scenario.course == "interpolation":
            models = np.outer(1 - self._time, models[0]) + np.outer(self._time, models[1])
        return np.concatenate([models, drawn[0][-1:]])

    def _draw_groups(self, scenario: Scenario) -> NDArray[np.float64]:
        effects = np.zeros((len(self._time) + 1, len(self._free)))
        for group in scenario.groups:
            places = self._draw_places(max(1, round(group.share * self._count)), group.order_rate)
            signs = np.where(self._rng.random(len(places)) < group.positive, 1.0, -1.0)
            effects[:-1, places] = signs * self._draw_course(group, len(places), scenario.drift)
            shared = self._rng.random(len(places)) < group.in_reference
            effects[-1, places] = np.where(shared, signs * self._draw_sizes(len(places)), 0.0)
        n_own = max(0, self._count - int(np.count_nonzero(effects[-1])))
        own = self._draw_places(n_own, 0.4)
        signs = np.where(self._rng.random(n_own) < 0.5, 1.0, -1.0)
        effects[-1, own] = signs * self._draw_sizes(n_own)
        return effects

    def _draw_course(self, group: Group, count: int, drift: float) -> NDArray[np.float64]:
        """Sizes (checkpoints, count) of a group."""
        time = self._time[:, None]
        steps = drift * self._of_training.standard_normal((len(time), count))
        steps[0] = 0
        sizes = self._draw_sizes(count) * group.growth**time * np.exp(np.cumsum(steps, axis=0))
        for interval, is_there in (
            (group.appears, np.greater_equal),
            (group.disappears, np.less),
        ):
            if interval is not None:
                low, high = interval
                # From (low, high], so that nothing appears, or is gone, at the time low itself.
                moment = high - (high - low) * self._of_training.random(count)
                sizes = np.where(is_there(time, moment), sizes, 0.0)
        return sizes

    def _draw_sizes(self, count: int) -> NDArray[np.float64]:
        left_out = (SMALLEST_SIZE / LARGEST_SIZE) ** TAIL
        u = left_out + (1 - left_out) * self._rng.random(count)
        sizes: NDArray[np.float64] = SMALLEST_SIZE * u ** (-1 / TAIL)
        return sizes

    def _draw_places(self, count: int, order_rate: float) -> NDArray[np.int64]:
        """Places (kind · 2^n + pattern) that are still free, and take them."""
        order = np.tile(orders(self._n).astype(np.int64), 2)
        is_or = np.arange(len(order)) >= len(order) // 2
        # The probability of an order is shared by its patterns: C(n − 1, k − 1) / C(n, k) = k / n. An OR
        # of order 1 is an AND.
        weight = order * order_rate ** (order - 1.0) * (1 - order_rate) ** (self._n - order)
        of_kind = np.where(is_or, OR_SHARE, 1 - OR_SHARE)
        of_kind[order == 1] = np.where(is_or, 0, 1)[order == 1]
        weight = np.where(self._free & (order > 0), weight * of_kind, 0.0)
        if np.count_nonzero(weight) < count:
            raise ValueError(
                f"{self._n} players have too few patterns for so many interactions; lower "
                "n_interactions or raise n_players"
            )
        places = self._rng.choice(len(weight), count, replace=False, p=weight / weight.sum())
        self._free[places] = False
        return places.astype(np.int64)

    def _draw_background(
        self, effects: NDArray[np.float64], background: float, seed: np.random.SeedSequence
    ) -> NDArray[np.float64]:
        """Weak effects (checkpoints, 2 · 2^n) where ``effects`` has none at any checkpoint."""
        self._rng = np.random.default_rng(seed)
        self._free = np.asarray(np.abs(effects).max(axis=0) == 0)
        places = self._draw_places(round(background * self._count), 0.4)
        weak = np.zeros_like(effects)
        weak[:, places] = self._rng.uniform(-1, 1, (len(effects), len(places))) * BACKGROUND_SIZE
        return weak


def count_hits(
    found: pl.DataFrame, planted: pl.DataFrame, samples: Sequence[str], steps: Sequence[int]
) -> NDArray[np.int64]:
    """How many interactions of each class are found, are planted, and are both.

    An interaction is right if it is planted in that class at that checkpoint with that kind, pattern and
    sign.

    Args:
        found: rows of :func:`~sft_interactions.analysis.dynamics.classify`, of an extraction.
        planted: the same of the planted interactions.
        samples: (B,) sample ids.
        steps: checkpoints to count at.

    Returns:
        int64 (B, steps, 3 classes in the order of ``CLASSES``, 3): found, planted, right.
    """
    positive = (pl.col("effect") > 0).alias("positive")
    key = ["step", "class", *KEY, "positive"]
    found, planted = (rows.with_columns(positive).select(key) for rows in (found, planted))
    counted = np.zeros((len(samples), len(steps), len(CLASSES), 3), dtype=np.int64)
    for column, rows in enumerate((found, planted, found.join(planted, on=key, how="semi"))):
        for sample_id, step, label, count in (
            rows.filter(pl.col("step").is_in(list(steps)))
            .group_by("sample_id", "step", pl.col("class").cast(pl.String))
            .len()
            .iter_rows()
        ):
            place = samples.index(sample_id), steps.index(step), CLASSES.index(label)
            counted[(*place, column)] = count
    return counted


@dataclass(frozen=True)
class Scores:
    """How well classes are found, each float64 (classes,), a mean over checkpoints; NaN where undefined.

    Attributes:
        precision: right / found.
        recall: right / planted.
        f1: 2 · right / (found + planted).
        count_ratio: found / planted.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    count_ratio: NDArray[np.float64]


def score(hits: NDArray[np.int64]) -> Scores:
    """Scores of each class from counts, which are summed over samples, checkpoint by checkpoint.

    A checkpoint at which a ratio is not defined (nothing found, nothing planted) does not count.

    Args:
        hits: what :func:`count_hits` returns.
    """
    found, planted, right = np.moveaxis(hits.sum(axis=0), -1, 0).astype(float)
    return Scores(
        precision=_mean_ratio(right, found),
        recall=_mean_ratio(right, planted),
        f1=_mean_ratio(2 * right, found + planted),
        count_ratio=_mean_ratio(found, planted),
    )


def _mean_ratio(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Means over the first axis of the ratios that are defined."""
    defined = denominator > 0
    ratio = np.where(defined, numerator / np.where(defined, denominator, 1), 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    return np.where(count > 0, ratio / np.maximum(count, 1), np.nan)


def metric_errors(
    found: pl.DataFrame,
    planted: pl.DataFrame,
    samples: Sequence[str],
    steps: Sequence[int],
    n_players: int,
) -> pl.DataFrame:
    """Errors of the metrics of each class: found less planted, means over the checkpoints after the first.

    Args:
        found: rows of a ``dynamics`` table, of an extraction.
        planted: the same of the planted interactions.
        samples: sample ids.
        steps: checkpoints.
        n_players: number of players of a prompt.

    Returns:
        Rows (class, metric, error) of ``mean_order``, ``gamma`` and ``rho``; the error is null where a
        metric is not defined at any checkpoint.
    """
    values = [
        compute_metrics(rows, samples, steps, n_players, level=0.95).filter(
            pl.col("metric").is_in(MEASURED),
            pl.col("order").is_null(),
            pl.col("kind") == "both",
            pl.col("step") > min(steps),
        )
        for rows in (found, planted)
    ]
    both = values[0].join(values[1], on=["step", "class", "metric"], suffix="_planted")
    error = (pl.col("value") - pl.col("value_planted")).mean().alias("error")
    return both.group_by("class", "metric", maintain_order=True).agg(error)
