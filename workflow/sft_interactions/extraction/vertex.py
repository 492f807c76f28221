"""The exact solution of a support and a set of active rows.

A vertex of the program is known once its *support*, the effects that are not 0, and its *active*
rows, those where |φ − v| is at the bound, are: both the vertex and its dual follow from one small
linear system. So their floats do not depend on how a solver found them.

A support is an int8 array `sign` (2, 2^n), the sign of each effect and 0 off the support. Active
rows are an int8 array `side` (2^n,), +1 where φ = v + bound, −1 where φ = v − bound, 0 where
inactive.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from sft_interactions.extraction.certificate import Solution, certify, synthesis

# Effects of a degenerate vertex below this (v has range 1) are rounding.
_ZERO = 1e-12
# A row is active if |φ − v| is nearer than this to the bound (v has range 1).
_ACTIVE = 1e-9


@dataclass(frozen=True)
class Basis:
    """LU factors of the matrix of the active rows on the support and the constant.

    Attributes:
        sign: int8 (2, 2^n), the support.
        side: int8 (2^n,), the active rows.
        rows: int64 (k,), masks of the active rows.
        lu: float64 (k, k), factors of LAPACK's getrf.
        pivots: int32 (k,), its row interchanges.
    """

    sign: NDArray[np.int8]
    side: NDArray[np.int8]
    rows: NDArray[np.intp]
    lu: NDArray[np.float64]
    pivots: NDArray[np.int32]

    def solve(self, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Solve for the values of the support (AND, then OR, by mask) and the constant.

        Args:
            rhs: (k,), by active row.

        Returns:
            float64 (k,).
        """
        x: NDArray[np.float64] = lapack.dgetrs(self.lu, self.pivots, rhs)[0]
        return x

    def primal(self, v: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
        """Values of the support and the constant that put the active rows at their bound.

        Args:
            v: (2^n,) log-odds.
            bound: noise bound, in the units of v.

        Returns:
            float64 (k,).
        """
        return self.solve(v[self.rows] + bound * self.side[self.rows])

    def dual(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The dual at which every effect of the support is worth its weight.

        Args:
            weights: (2, 2^n).

        Returns:
            float64 (2^n,), 0 off the active rows.
        """
        cost = np.append((weights * self.sign)[self.sign != 0], 0.0)
        y = np.zeros(len(self.side))
        y[self.rows] = lapack.dgetrs(self.lu, self.pivots, cost, trans=1)[0]
        return y


def factorise(sign: NDArray[np.int8], side: NDArray[np.int8]) -> Basis | None:
    """Factorise the system of a support and a set of active rows.

    Args:
        sign: (2, 2^n), the support.
        side: (2^n,), the active rows.

    Returns:
        None if the system is not square or is singular.
    """
    rows, system = _system(sign, side)
    if system.shape[0] != system.shape[1]:
        return None
    lu, pivots, info = lapack.dgetrf(system, overwrite_a=1)
    if info:
        return None
    return Basis(sign, side, rows, lu, pivots)


def _system(
    sign: NDArray[np.int8], side: NDArray[np.int8]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Active rows (k,), and their matrix (k, m) on the support (AND, then OR) and the constant."""
    rows = np.flatnonzero(side)
    and_support, or_support = np.flatnonzero(sign[0]), np.flatnonzero(sign[1])
    n_and = len(and_support)
    system = np.ones((len(rows), n_and + len(or_support) + 1))
    system[:, :n_and] = (rows[:, None] & and_support) == and_support
    system[:, n_and:-1] = (rows[:, None] & or_support) == 0
    system[:, n_and:-1] *= -1.0
    return rows, system


def spread(sign: NDArray[np.int8], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put values of the support where they belong.

    Args:
        sign: (2, 2^n), the support.
        values: one for every effect of the support.

    Returns:
        float64 (2, 2^n), 0 off the support.
    """
    effects = np.zeros(sign.shape)
    effects[sign != 0] = values
    return effects


def solve_vertex(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    sign: NDArray[np.int8],
    side: NDArray[np.int8],
) -> Solution | None:
    """The basic solution of a support and as many active rows as it needs.

    Args:
        v: (2^n,) log-odds, of range 1.
        bound: noise bound, in the units of v.
        weights: (2, 2^n), positive.
        sign: (2, 2^n), the support.
        side: (2^n,), the active rows.

    Returns:
        None if the system is not square or is singular.
    """
    basis = factorise(sign, side)
    if basis is None:
        return None
    x = basis.primal(v, bound)
    values = np.where(np.abs(x[:-1]) < _ZERO, 0.0, x[:-1])
    found = certify(v, bound, weights, spread(sign, values), float(x[-1]), basis.dual(weights))
    return replace(found, exact=True)


def solve_degenerate(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    sign: NDArray[np.int8],
    side: NDArray[np.int8],
    y: NDArray[np.float64],
) -> Solution:
    """The solution of a support and more active rows than it needs, with a known dual.

    Args:
        v: (2^n,) log-odds, of range 1.
        bound: noise bound, in the units of v.
        weights: (2, 2^n), positive.
        sign: (2, 2^n), the support.
        side: (2^n,), the active rows.
        y: (2^n,) a nearly optimal dual.

    Raises:
        LinAlgError: the least-squares problem does not converge.
    """
    rows, system = _system(sign, side)
    solved = np.linalg.lstsq(system, v[rows] + bound * side[rows], rcond=None)
    x = solved[0].astype(np.float64, copy=False)
    return replace(certify(v, bound, weights, spread(sign, x[:-1]), float(x[-1]), y), exact=True)


def solve_active(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    effects: NDArray[np.float64],
    constant: float,
    y: NDArray[np.float64],
) -> Solution:
    """The exact solution with the support and the active rows of a nearly exact one.

    Args:
        v: (2^n,) log-odds, of range 1.
        bound: noise bound, in the units of v.
        weights: (2, 2^n), positive.
        effects: (2, 2^n), exactly 0 off the support.
        constant: c = b + ΣJ.
        y: (2^n,) a nearly optimal dual.

    Raises:
        LinAlgError: the least-squares problem of a degenerate solution does not converge.
    """
    sign, side = active_set(v, bound, effects, constant)
    vertex = solve_vertex(v, bound, weights, sign, side)
    if vertex is None:
        return solve_degenerate(v, bound, weights, sign, side, y)
    return vertex


def active_set(
    v: NDArray[np.float64],
    bound: float,
    effects: NDArray[np.float64],
    constant: float,
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Support and active rows of a nearly exact solution.

    Args:
        v: (2^n,) log-odds, of range 1.
        bound: noise bound, in the units of v.
        effects: (2, 2^n), exactly 0 off the support.
        constant: c = b + ΣJ.

    Returns:
        sign int8 (2, 2^n) and side int8 (2^n,).
    """
    residual = synthesis(effects) + constant - v
    active = np.abs(residual) > bound - _ACTIVE
    side = np.where(active, np.where(residual < 0, -1, 1), 0).astype(np.int8)
    return np.sign(effects).astype(np.int8), side
