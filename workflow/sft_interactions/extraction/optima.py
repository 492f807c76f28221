"""The set of all optima: every reading of a table of log-odds that is as sparse as the best one.

The plain program, without a tie-break, has many optima. They form one polyhedron: the points within
the noise bound whose L1 norm is the least. A dual optimum y tells most of it without a solve. Every
point of the polyhedron has Σ (1 − |Aᵀy|)·|x| = 0, so an effect with |Aᵀy| < 1 is 0 in all of them, and
any other has one sign. What remains is a small linear program, which HiGHS walks from vertex to vertex.

Near-optimal points, whose norm is larger by a relative tolerance, obey the same bound with that much
on its right side. All of this is ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sft_interactions.extraction import highs, iteration
from sft_interactions.extraction.certificate import Solution, analysis, certify, effect_mask
from sft_interactions.extraction.program import Extraction, part_size
from sft_interactions.extraction.transforms import n_players
from sft_interactions.extraction.vertex import active_set

# What no near-optimal point can give more than this part of the L1 norm is taken as 0.
_NEGLIGIBLE = 1e-5
# A dual with a gap above this excludes too little; HiGHS finds another one.
_LARGE_GAP = 1e-7


@dataclass(frozen=True)
class OptimalSet:
    """The near-optimal points of one problem, as x = Σ sign·z over k columns, z ≥ 0.

    All but the first two attributes are of v, less its centre, in its unit.

    Attributes:
        unit: max v − min v, or 1 if that is 0.
        centre: mean of v.
        n: number of players.
        columns: int64 (k,) flat indices into (2, 2^n) of the effects that may differ from 0, ascending;
            an index stands twice, with both signs, where the sign is not known.
        sign: float64 (k,) ±1.
        lower: float64 (2^n,) least φ(S).
        upper: float64 (2^n,) largest φ(S).
        l1: largest Σ z.
        start: float64 (k,) z of the point that is known.
        constant: c = b + ΣJ of that point.
        side: int8 (2^n,) its active rows, as of `vertex`.
    """

    unit: float
    centre: float
    n: int
    columns: NDArray[np.int64]
    sign: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    l1: float
    start: NDArray[np.float64]
    constant: float
    side: NDArray[np.int8]

    def matrix(self) -> sp.csc_array[np.float64]:
        """float64 (2^n + 1, k + 1): rows of φ and of the norm; columns of z and of the constant."""
        design = highs.design_matrix(self.n)
        place = np.full(2 << self.n, -1)
        place[np.flatnonzero(effect_mask(self.n))] = np.arange(design.shape[1] - 1)
        chosen = np.append(place[self.columns], design.shape[1] - 1)
        phi = design[:, chosen] @ sp.diags_array(np.append(self.sign, 1.0))
        norm = np.append(np.ones(len(self.columns)), 0.0)
        matrix: sp.csc_array[np.float64] = sp.vstack([phi, sp.csr_array(norm[None])], format="csc")
        return matrix

    @property
    def rows(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest values, float64 (2^n + 1,), of the rows of `matrix`."""
        return np.append(self.lower, -np.inf), np.append(self.upper, self.l1)

    @property
    def column_lower(self) -> NDArray[np.float64]:
        """Least values, float64 (k + 1,), of the columns of `matrix`."""
        return np.append(np.zeros(len(self.columns)), -np.inf)

    @property
    def basic(self) -> NDArray[np.bool_]:
        """bool (k + 1,): which columns of `matrix` are basic at the point that is known."""
        return np.append(self.start > 0, True)

    @property
    def row_side(self) -> NDArray[np.int8]:
        """int8 (2^n + 1,): at which of its two values a row of `matrix` is there, 0 if it is basic."""
        return np.append(self.side, np.int8(0))

    def walk(self) -> highs.Walk:
        """The set as a program whose objective can be changed, at the point that is known."""
        return highs.Walk(self.matrix(), self.rows, self.column_lower, self.basic, self.row_side)


def optimal_sets(
    v: NDArray[np.float64], solved: Extraction, tolerance: float
) -> Iterator[OptimalSet]:
    """The near-optimal points of every problem of a batch of B.

    Args:
        v: (B, 2^n) log-odds.
        solved: what `extract` gives for them. Its Σ|I| + |J| is what the other points are held to.
        tolerance: by what part the others' may be larger.

    Yields:
        One set a problem. Where all effects are 0 it has no columns, since nothing is as sparse.

    Raises:
        RuntimeError: HiGHS fails where the interior point has.
    """
    unit = np.where(np.ptp(v, axis=1) > 0, np.ptp(v, axis=1), 1.0)
    centre = v.mean(axis=1)
    effects = solved.effects
    scaled = (v - centre[:, None]) / unit[:, None]
    bound = solved.noise_bound / unit
    constant = (solved.constant - centre) / unit
    weights = np.ones(effects.shape[1:])
    step = part_size(v.shape[1])
    for start in range(0, len(v), step):
        rows = slice(start, start + step)
        middles, _ = iteration.solve(scaled[rows], bound[rows], weights, vertex=False)
        for i, middle in enumerate(middles, start):
            if middle is None or middle.gap > _LARGE_GAP:
                middle = _by_simplex(scaled[i], float(bound[i]), weights)
            found = _optimal_set(
                scaled[i],
                float(bound[i]),
                effects[i] / unit[i],
                float(constant[i]),
                middle,
                tolerance,
            )
            yield replace(found, unit=float(unit[i]), centre=float(centre[i]))


def _by_simplex(v: NDArray[np.float64], bound: float, weights: NDArray[np.float64]) -> Solution:
    mask = effect_mask(n_players(len(v)))
    solved = highs.solve(v, bound, weights[mask])
    if solved is None:
        raise RuntimeError("HiGHS gives up without a limit of iterations")
    x, y, _ = solved
    effects = np.zeros(mask.shape)
    effects[mask] = x[:-1]
    return certify(v, bound, weights, effects, float(x[-1]), y)


def _optimal_set(
    v: NDArray[np.float64],
    bound: float,
    effects: NDArray[np.float64],
    constant: float,
    middle: Solution,
    tolerance: float,
) -> OptimalSet:
    n = n_players(len(v))
    norm = float(np.abs(effects).sum())
    l1 = norm * (1 + tolerance)
    room = max(0.0, l1 - float(v @ middle.y - bound * np.abs(middle.y).sum()))
    worth = analysis(middle.y)
    columns, sign, start = [], [], []
    for one in (1.0, -1.0):
        # Σ (1 − s·Aᵀy)·z ≤ room, so no z is larger than room over its factor.
        may_differ = (room > _NEGLIGIBLE * norm * (1 - one * worth)) & effect_mask(n)
        chosen = np.flatnonzero(may_differ | (one * effects > 0))
        columns.append(chosen)
        sign.append(np.full(len(chosen), one))
        start.append(np.maximum(one * effects.flat[chosen], 0.0))
    order = np.argsort(np.concatenate(columns), kind="stable")
    return OptimalSet(
        unit=1.0,
        centre=0.0,
        n=n,
        columns=np.concatenate(columns)[order],
        sign=np.concatenate(sign)[order],
        lower=v - bound,
        upper=v + bound,
        l1=l1,
        start=np.concatenate(start)[order],
        constant=constant,
        side=active_set(v, bound, effects, constant)[1],
    )
