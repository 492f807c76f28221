"""The linear system of a Newton step, for a batch of problems.

    (A·D·Aᵀ + E)·Δy + Δc = rhs on the working rows,  ΣΔy = total.

It is solved with an exact factor of the working rows and iterative refinement, or, where many rows
matter and few columns, by conjugate gradients with a preconditioner of these columns.
"""

import numpy as np
from numpy.typing import NDArray

from sft_interactions.extraction.certificate import TINY, analysis, synthesis
from sft_interactions.extraction.factors import ColumnFactor, Factor, RowFactor

# Conjugate gradients: reduction of the residual in the norm of the preconditioner, and its cost.
_CG_TOLERANCE, _CG_ITERATIONS = 1e-1, 150
# Iterative refinement of the exact factors: relative residual to reach, number of rounds.
_REFINED, _REFINEMENTS = 1e-10, 2


class NewtonSystem:
    """The systems of a batch of B problems, factorised."""

    def __init__(
        self,
        d: NDArray[np.float64],
        e: NDArray[np.float64],
        rows: NDArray[np.bool_],
        by_columns: NDArray[np.bool_],
    ) -> None:
        """Factorise every system.

        Args:
            d: (B, 2, 2^n) weights of the effects, at least 0.
            e: (B, 2^n) weights of the rows, at least 0; positive where `by_columns`.
            rows: bool (B, 2^n), the working rows; all where `by_columns`.
            by_columns: bool (B,), whether to use conjugate gradients.

        Raises:
            LinAlgError: a matrix is not positive definite to rounding.
        """
        self._d, self._e, self._rows, self._by_columns = d, e, rows, by_columns
        self._factors: list[Factor] = []
        for i, columns in enumerate(by_columns):
            if columns:
                self._factors.append(ColumnFactor(d[i], e[i]))
            else:
                self._factors.append(RowFactor(d[i], e[i], rows[i]))
        self._ones = self._precondition(rows.astype(np.float64), np.ones(len(d), dtype=bool))
        self._sum_of_ones = self._ones.sum(axis=1)

    def solve(
        self, rhs: NDArray[np.float64], total: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Solve to rounding where the rows are factorised, else to `_CG_TOLERANCE`.

        Args:
            rhs: (B, 2^n), 0 off the working rows.
            total: (B,).

        Returns:
            Δy float64 (B, 2^n), 0 off the working rows, and Δc float64 (B,).
        """
        y = self._ones * (total / self._sum_of_ones)[:, None]
        r = rhs - self._product(y)
        active = np.ones(len(r), dtype=bool)
        z, dc = self._project(self._precondition(r, active))
        p, rz = z, (r * z).sum(axis=1)
        rhs_size, limit = np.abs(rhs).max(axis=1), _CG_TOLERANCE**2 * rz
        for iteration in range(_CG_ITERATIONS):
            product = self._product(p)
            curvature = np.maximum((p * product).sum(axis=1), TINY)
            # With an exact factor this is iterative refinement: conjugating would amplify rounding.
            step = np.where(self._by_columns, rz / curvature, 1.0) * active
            y = y + step[:, None] * p
            r = r - step[:, None] * product
            miss = np.abs(r - dc[:, None] * self._rows).max(axis=1)
            exact = (miss < _REFINED * rhs_size) | (iteration >= _REFINEMENTS)
            active = active & (self._by_columns | ~exact)
            if not active.any():
                break
            z, dc_new = self._project(self._precondition(r, active))
            dc = np.where(active, dc_new, dc)
            rz_new = (r * z).sum(axis=1)
            active = active & (~self._by_columns | (rz_new > limit))
            conjugate = np.where(self._by_columns, rz_new / np.maximum(rz, TINY), 0.0)
            p, rz = z + conjugate[:, None] * p, rz_new
        y = y + self._ones * ((total - y.sum(axis=1)) / self._sum_of_ones)[:, None]
        return y, dc

    def _product(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """(A·D·Aᵀ + E)·y on the working rows, (B, 2^n)."""
        return (synthesis(self._d * analysis(y)) + self._e * y) * self._rows

    def _precondition(
        self, rhs: NDArray[np.float64], active: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """P⁻¹·rhs (B, 2^n) of the active problems, 0 of the others."""
        out = np.zeros_like(rhs)
        for i in np.flatnonzero(active):
            out[i] = self._factors[i].solve(rhs[i])
        return out

    def _project(self, z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Remove from z = P⁻¹r (B, 2^n) what the constant (B,) can take, so that Σz = 0."""
        dc = z.sum(axis=1) / self._sum_of_ones
        return z - dc[:, None] * self._ones, dc
