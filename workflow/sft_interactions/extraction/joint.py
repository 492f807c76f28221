"""Joint extraction along a run: of all optima of every checkpoint, those that change the least.

A tie-break chooses an optimum of each checkpoint without a look at the others, so that a change between
two checkpoints may be one of the choice alone. Here one program holds all checkpoints of a sample:

    minimise Σ_t |x_t − x_{t−1}|₁ + |x_t − x_0|₁  subject to  x_t near-optimal for every checkpoint t,

with the near-optimal points of `optima`. What changes in its solution must change, in sum: no reading
of the tables that is as sparse changes less. Both kinds of changes are in the sum, since both are
counted: between neighbours, and since the first checkpoint. Where a checkpoint has the log-odds of the
one before it, or the last one those of the first, it can have the interactions of that one at no cost,
by the triangle inequality. Of the solutions that change as little the weights of the tie-break choose
one, so that rounding does not. All of this is ours.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sft_interactions.extraction.highs import SizesProgram
from sft_interactions.extraction.optima import OptimalSet, optimal_sets
from sft_interactions.extraction.program import Extraction, reconstruct
from sft_interactions.extraction.tie_break import TIE_BREAK_SIZE, tie_break_weights
from sft_interactions.extraction.transforms import n_players
from sft_interactions.parallel import Mapped, in_turn

# Effects below this part of the range of v are rounding.
_ZERO = 1e-9
# What stands for the price of an effect where it is 0 in all optima, in the unit of the objective.
_NOT_THERE = 1e30
# Of what a solution costs by the tie-break, in parts of its change: chooses among equals, and no more.
_TIE_BREAK = 1e-4

Pairs = Sequence[tuple[int, int]]  # (earlier, later) checkpoints


def neighbours(n_checkpoints: int) -> Pairs:
    """Pairs of checkpoints that follow each other."""
    return list(pairwise(range(n_checkpoints)))


def neighbours_and_first(n_checkpoints: int) -> Pairs:
    """Neighbours, and the first checkpoint with every later one; the first two are there twice."""
    return [*neighbours(n_checkpoints), *((0, t) for t in range(1, n_checkpoints))]


def every_pair(n_checkpoints: int) -> Pairs:
    """All pairs of checkpoints."""
    return list(combinations(range(n_checkpoints), 2))


@dataclass(frozen=True)
class JointExtraction:
    """Solutions of B samples along T checkpoints, in the units of v.

    Attributes:
        checkpoints: the T solutions, of B problems each. Their l1, which is not the objective here, has
            the weights of the canonical tie-break; l1_lower_bound is that of the given solutions.
        change: float64 (B,) Σ_t |x_t − x_{t−1}|₁ + |x_t − x_0|₁, or Σ |x_t − x_s|₁ over other pairs.
        change_lower_bound: float64 (B,) certified lower bound of it (a dual point).
        given_change: float64 (B,) the same sum of the solutions that were given.
    """

    checkpoints: list[Extraction]
    change: NDArray[np.float64]
    change_lower_bound: NDArray[np.float64]
    given_change: NDArray[np.float64]


def extract_joint(
    values: Sequence[NDArray[np.float64]],
    solved: Sequence[Extraction],
    *,
    tie_break: str = "canonical",
    compared: Callable[[int], Pairs] = neighbours_and_first,
    tolerance: float = 1e-6,
    progress: Callable[[int], None] = lambda _: None,
    mapped: Mapped = in_turn,
) -> JointExtraction:
    """The readings of the checkpoints of a run that change least in sum.

    Args:
        values: T arrays (B, 2^n) of log-odds of the same samples, in the order of the checkpoints.
        solved: what `extract` gives for each.
        tie_break: chooses among solutions that change as little, a name of `TIE_BREAKS`.
        compared: number of checkpoints to the pairs (s, t) whose |x_t − x_s|₁ are summed. Studies have
            the default; docs/validity.md says why, and has others beside it.
        tolerance: by what part Σ|I| + |J| of a checkpoint may exceed that of its given solution.
        progress: called with the number of samples that have just been solved.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.

    Raises:
        ValueError: there are no checkpoints, they differ in their shapes, a negative tolerance, or an
            unknown tie-break.
        RuntimeError: HiGHS does not solve a program.
    """
    shapes = {np.shape(v) for v in values} | {one.and_effects.shape for one in solved}
    if not values or len(values) != len(solved) or len(shapes) > 1:
        raise ValueError(
            f"{len(values)} checkpoints with {len(solved)} solutions of the shapes {sorted(shapes)}; "
            "give one solution a checkpoint, all of the same samples and players"
        )
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be finite and not negative: {tolerance}")
    weights = np.stack(tie_break_weights(n_players(values[0].shape[1]), tie_break))
    effects = np.stack([one.effects for one in solved])
    constants = np.stack([one.constant for one in solved])
    pairs = compared(len(values))
    given_change = _change(effects, pairs)
    lower = np.zeros(len(given_change))
    parts = [
        _Sample(
            np.stack([v[i] for v in values]),
            [one.take(slice(i, i + 1)) for one in solved],
            weights,
            pairs,
            tolerance,
        )
        for i in range(len(lower))
    ]
    for i, found in enumerate(mapped(_solve_sample, parts)):
        effects[:, i], constants[:, i], lower[i] = found
        progress(1)
    checkpoints = [
        _measured(v, one, effects[t], constants[t])
        for t, (v, one) in enumerate(zip(values, solved, strict=True))
    ]
    return JointExtraction(
        checkpoints, _change(effects, pairs), np.maximum(lower, 0.0), given_change
    )


def _change(effects: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    """float64 (B,): Σ |x_t − x_s|₁ over pairs, of effects (T, B, 2, 2^n)."""
    change = np.zeros(effects.shape[1])
    for s, t in pairs:
        change += np.abs(effects[t] - effects[s]).sum(axis=(1, 2))
    return change


class _Run:
    """The program of one sample with T checkpoints.

    Its columns are those of the checkpoints' sets, one after the other. A link is e_t − e_s of an effect
    e of two checkpoints s and t whose change can have either sign, so that its size has to be found. The
    change of any other effect is linear in the columns.

    Args:
        sets: of the T checkpoints; those without columns take no part.
        weights: (2, 2^n) of the tie-break.
        pairs: of checkpoints that are compared.

    Attributes:
        unit: of the objective, in the units of v: one for all checkpoints.
    """

    def __init__(
        self, sets: Sequence[OptimalSet], weights: NDArray[np.float64], pairs: Pairs
    ) -> None:
        self.sets = sets
        self.unit = max(one.unit for one in sets)
        widths = [len(one.columns) + 1 if len(one.columns) else 0 for one in sets]
        self.offsets = np.cumsum([0, *widths])
        self._cost = np.zeros(self.offsets[-1])
        self._preference = np.zeros(self.offsets[-1])
        self._units = np.ones(self.offsets[-1])
        # Columns of one effect are a group; the constants are in group 0.
        effects = np.unique(np.concatenate([one.columns for one in sets]))
        self._groups = np.zeros(self.offsets[-1], dtype=np.intp)
        for offset, one in zip(self.offsets, sets, strict=False):
            own = slice(offset, offset + len(one.columns))
            by_weight = (weights.flat[one.columns] - 1) / TIE_BREAK_SIZE
            self._units[own] = one.unit / self.unit
            self._preference[own] = by_weight * self._units[own]
            self._groups[own] = 1 + np.searchsorted(effects, one.columns)
        self._n_groups = len(effects) + 1
        # Rows, columns and slopes of the links, and what they cost; one checkpoint has none.
        none = np.zeros(0)
        self._entries = [(none.astype(np.intp), none.astype(np.intp), none)]
        self._link_cost = [none]
        # (earlier, later) to the costs of the links of all groups, 0 where there is none.
        self._costs_of: dict[tuple[int, int], NDArray[np.float64]] = {}
        for (s, t), times in Counter(pairs).items():
            self._connect(s, t, float(times))

    def _connect(self, s: int, t: int, weight: float) -> None:
        """Add the changes from checkpoint s to t."""
        both = [self.sets[s], self.sets[t]]
        effects, of_column = np.unique(
            np.concatenate([one.columns for one in both]), return_inverse=True
        )
        places = np.concatenate(
            [
                self.offsets[time] + np.arange(len(one.columns))
                for time, one in zip((s, t), both, strict=True)
            ]
        )
        slopes = np.concatenate(
            [
                direction * one.sign * (one.unit / self.unit)
                for one, direction in zip(both, (-1.0, 1.0), strict=True)
            ]
        )
        rises, falls = (
            np.bincount(of_column, weights=side, minlength=len(effects)) > 0
            for side in (slopes > 0, slopes < 0)
        )
        is_linked = rises & falls
        linked = is_linked[of_column]
        self._cost[places[~linked]] += weight * np.abs(slopes[~linked])
        link = self._n_links + np.cumsum(is_linked) - 1
        self._entries.append((link[of_column[linked]], places[linked], slopes[linked]))
        self._link_cost.append(np.full(is_linked.sum(), weight))
        self._costs_of[s, t] = np.zeros(self._n_groups)
        self._costs_of[s, t][self._groups[places[linked]]] = weight

    @property
    def _n_links(self) -> int:
        return sum(map(len, self._link_cost))

    @property
    def _has_prices(self) -> bool:
        """Whether :meth:`_price` holds.

        All links must be between neighbours and with the first checkpoint, and no effect may have columns
        of both signs, as in near-optimal points of a large tolerance.
        """
        return all(s == 0 or t == s + 1 for s, t in self._costs_of) and all(
            len(np.unique(one.columns)) == len(one.columns) for one in self.sets
        )

    def _price(self, reduced: NDArray[np.float64]) -> NDArray[np.float64]:
        """(groups,): the least Σ reduced·x + link_cost·|links·x| of a group with 0 ≤ x ≤ 1 in one unit.

        Such a minimum is at a corner, where an effect is 0 or 1 at every checkpoint. Which one it is
        follows step by step, given what it is at the first.

        Args:
            reduced: (columns,).
        """
        values = np.full((len(self.sets), self._n_groups), _NOT_THERE)
        for t, (offset, one) in enumerate(zip(self.offsets, self.sets, strict=False)):
            own = slice(offset, offset + len(one.columns))
            values[t, self._groups[own]] = reduced[own] / self._units[own]
        none = np.zeros(self._n_groups)
        best = np.zeros(self._n_groups)
        for first in (0.0, 1.0):
            # Least sum so far if the effect is 0 or 1 at the checkpoint.
            sums = [np.full(self._n_groups, _NOT_THERE), np.full(self._n_groups, _NOT_THERE)]
            sums[int(first)] = first * values[0]
            for t in range(1, len(self.sets)):
                step = self._costs_of.get((t - 1, t), none) if t > 1 else none
                since_first = self._costs_of.get((0, t), none)
                sums = [
                    np.minimum(sums[now], sums[1 - now] + step)
                    + now * values[t]
                    + abs(now - first) * since_first
                    for now in (0, 1)
                ]
            best = np.minimum(best, np.minimum(*sums))
        return best

    def solve(self) -> tuple[NDArray[np.float64], float]:
        """The columns of the solution and a lower bound of the objective, in its unit."""
        active = [one for one in self.sets if len(one.columns)]
        n_links, n_columns = self._n_links, self.offsets[-1]
        row, column, slope = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        program = SizesProgram(
            sp.block_diag([one.matrix() for one in active], format="csc"),
            (
                np.concatenate([one.rows[0] for one in active]),
                np.concatenate([one.rows[1] for one in active]),
            ),
            np.concatenate([np.isneginf(one.column_lower) for one in active]),
            sp.csc_array((slope, (row, column)), shape=(n_links, n_columns)),
            np.concatenate(self._link_cost),
            (
                np.concatenate([np.append(one.start, one.constant) for one in active]),
                np.concatenate([one.basic for one in active]),
                np.concatenate([one.row_side for one in active]),
            ),
            self._groups,
            self._units,
            self._price if self._has_prices else None,
        )
        # The tie-break first: its solution mostly has the least change too, which is then found at once.
        solution = program.minimise(self._cost + _TIE_BREAK * self._preference)
        program.minimise(self._cost)
        # No effect exceeds the norm of its checkpoint, and the constant that and the largest value.
        most = [np.append(np.full(len(one.columns), one.l1), 2 + one.l1) for one in active]
        # The bound is of the change alone; the solution has the tie-break besides.
        return solution, program.lower_bound(self._cost, np.concatenate(most))


class _Sample(NamedTuple):
    """One sample along T checkpoints, as of :func:`extract_joint`.

    Attributes:
        v: (T, 2^n) log-odds.
        solved: T batches of one problem.
        weights: (2, 2^n) of the tie-break.
        pairs: of checkpoints that are compared.
        tolerance: see :func:`extract_joint`.
    """

    v: NDArray[np.float64]
    solved: list[Extraction]
    weights: NDArray[np.float64]
    pairs: Pairs
    tolerance: float


def _solve_sample(sample: _Sample) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Effects (T, 2, 2^n) and constants (T,) of the solution, and a lower bound of its change."""
    solved = Extraction.join(sample.solved)
    effects, constants = solved.effects, solved.constant
    sets = list(optimal_sets(sample.v, solved, sample.tolerance))
    lower = _settle(_Run(sets, sample.weights, sample.pairs), effects, constants)
    return effects, constants, lower


def _settle(run: _Run, effects: NDArray[np.float64], constants: NDArray[np.float64]) -> float:
    """Put the solution of a run in the place of the given one.

    Args:
        run: of one sample.
        effects: (T, 2, 2^n), is changed.
        constants: (T,), is changed.

    Returns:
        A lower bound of the sum of changes, in the units of v.
    """
    if not run.offsets[-1]:
        return 0.0
    x, lower = run.solve()
    for t, one in enumerate(run.sets):
        if not len(one.columns):
            continue
        z = x[run.offsets[t] : run.offsets[t + 1] - 1]
        z = np.where(z < _ZERO, 0.0, z)
        moved = np.zeros(effects[t].size)
        np.add.at(moved, one.columns, one.sign * z * one.unit)
        effects[t] = moved.reshape(effects[t].shape)
        constants[t] = one.centre + x[run.offsets[t + 1] - 1] * one.unit
    return lower * run.unit


def _measured(
    v: NDArray[np.float64],
    given: Extraction,
    effects: NDArray[np.float64],
    constants: NDArray[np.float64],
) -> Extraction:
    """The solutions of one checkpoint, (B, 2, 2^n), with their norms and residuals."""
    size = np.abs(effects)
    weights = np.stack(tie_break_weights(n_players(v.shape[1]), "canonical"))
    bias = constants - effects[:, 1].sum(axis=1)
    residual = reconstruct(bias, effects[:, 0], effects[:, 1]) - v
    return replace(
        given,
        and_effects=effects[:, 0],
        or_effects=effects[:, 1],
        bias=bias,
        l1=(size * weights).sum(axis=(1, 2)),
        l1_plain=size.sum(axis=(1, 2)),
        max_residual=np.abs(residual).max(axis=1),
    )
