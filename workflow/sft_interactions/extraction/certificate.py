"""The program in matrix form, its dual, and how a pair of points proves its own optimality.

    minimise Σ w|x|  subject to  A·x + c − q = v,  |q| ≤ bound,

with x = (I, J), A·x = zeta(I)(S) − zeta(J)(N∖S) and c = b + ΣJ free: the logical model of arXiv
2605.17967, Eq. 2-3, since Σ_{T∩S≠∅} J(T) = ΣJ − Σ_{T⊆N∖S} J(T). The dual is

    maximise v·y − bound·|y|₁  subject to  Σy = 0,  |Aᵀy| ≤ w,

so every feasible y proves a lower bound of the objective.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sft_interactions.extraction.transforms import (
    complement,
    n_players,
    orders,
    subset_sums,
    superset_sums,
)

# Stands in for 0 in a denominator.
TINY = 1e-300


def synthesis(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A·x, the logical model without its constant c.

    Args:
        x: (..., 2, 2^n) effects I and J.

    Returns:
        float64 (..., 2^n).
    """
    return subset_sums(x[..., 0, :]) - complement(subset_sums(x[..., 1, :]))


def analysis(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Aᵀ·y, the transpose of `synthesis`.

    Args:
        y: (..., 2^n).

    Returns:
        float64 (..., 2, 2^n).
    """
    return np.stack([superset_sums(y), -complement(subset_sums(y))], axis=-2)


@cache
def effect_mask(n: int) -> NDArray[np.bool_]:
    """Which effects are variables of the program: I(T) with |T| ≥ 1 and J(T) with |T| ≥ 2.

    Args:
        n: number of players.

    Returns:
        bool (2, 2^n), read-only.
    """
    mask = np.stack([orders(n) >= 1, orders(n) >= 2])
    mask.flags.writeable = False
    return mask


@dataclass(frozen=True)
class Solution:
    """A primal and a dual point of one problem.

    Attributes:
        effects: float64 (2, 2^n) I and J, in the units of v.
        constant: c = b + ΣJ, in the units of v.
        y: float64 (2^n,) the dual of the rows, scaled to be feasible.
        gap: relative duality gap |primal − dual| / primal.
        excess: max_S |φ(S) − v(S)| − bound, in the units of v.
        exact: it is a basic solution, computed from its support and active rows alone.
    """

    effects: NDArray[np.float64]
    constant: float
    y: NDArray[np.float64]
    gap: float
    excess: float
    exact: bool = False

    @property
    def rank(self) -> tuple[bool, float]:
        """Order of preference between solutions of the same problem, the best first."""
        return not self.exact, max(self.gap, self.excess)


def certify(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    effects: NDArray[np.float64],
    constant: float,
    y: NDArray[np.float64],
) -> Solution:
    """Scale y to a feasible dual point and measure how far from optimal the two points are.

    Any y becomes feasible by taking off its mean and scaling, whatever its origin: the gap is
    rigorous but for rounding.

    Args:
        v: (2^n,) log-odds.
        bound: noise bound, in the units of v.
        weights: (2, 2^n), positive.
        effects: (2, 2^n) I and J.
        constant: c = b + ΣJ.
        y: (2^n,) about the dual optimum.

    Returns:
        The two points, not marked as exact.
    """
    mask = effect_mask(n_players(len(v)))
    y = y - y.mean()
    y = y / max(1.0, float((np.abs(analysis(y)) / weights)[mask].max()))
    primal = float((weights * np.abs(effects))[mask].sum())
    dual = float(v @ y - bound * np.abs(y).sum())
    excess = float(np.abs(synthesis(effects) + constant - v).max() - bound)
    return Solution(effects, constant, y, abs(primal - dual) / max(primal, TINY), excess)
