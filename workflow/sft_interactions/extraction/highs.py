"""The program by HiGHS: simplex, or interior point with crossover.

Used as an independent check of our solver (`iteration`) and where that one gives up.
"""

from functools import cache

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sft_interactions.extraction.transforms import n_players, orders

# HiGHS's number of the primal simplex, which can go on from a point after the objective has changed.
_PRIMAL = 4


@cache
def design_matrix(n: int) -> sp.csc_array[np.float64]:
    """Columns of I(T), T ≠ ∅; of J(T), |T| ≥ 2; and of c = b + ΣJ.

    The OR part is written as c − (sum of J over T ⊆ N∖S), which has 3^n non-zeros where the direct
    form (T ∩ S ≠ ∅) has 4^n.

    Args:
        n: number of players.

    Returns:
        float64 (2^n, 2·2^n − n − 1) with about 2·3^n entries.
    """
    one_player = sp.csr_array(np.array([[1.0, 0.0], [1.0, 1.0]]))
    zeta = sp.csr_array(np.ones((1, 1)))
    for _ in range(n):
        zeta = sp.kron(one_player, zeta, format="csr")
    and_columns = zeta.tocsc()[:, 1:]
    or_columns = -zeta[::-1].tocsc()[:, orders(n) >= 2]
    constant = sp.csc_array(np.ones((1 << n, 1)))
    return sp.hstack([and_columns, or_columns, constant], format="csc")


def solve(
    v: NDArray[np.float64],
    noise_bound: float,
    weights: NDArray[np.float64],
    *,
    method: str = "simplex",
    column_order: NDArray[np.intp] | None = None,
    max_iterations: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
    """Minimise Σ w|x| subject to |A·x − v| ≤ noise_bound, A = `design_matrix(n)`, c unpenalised.

    Args:
        v: (2^n,) log-odds, of range about 1.
        noise_bound: in the units of v.
        weights: (2·2^n − n − 2,), positive, of I(T), T ≠ ∅, then J(T), |T| ≥ 2.
        method: "simplex" or "ipm" (with crossover).
        column_order: permutation of the weighted columns, to show that it does not matter.
        max_iterations: of the simplex, where to give up.

    Returns:
        x float64 (2·2^n − n − 1,), y float64 (2^n,) (row duals) and the number of iterations; None if
        it has given up.

    Raises:
        RuntimeError: HiGHS does not reach an optimum or rejects an option.
    """
    n_effects = len(weights)
    order = np.arange(n_effects) if column_order is None else column_order
    solver = _solver(method, max_iterations)
    _pass(solver, _model(v, noise_bound, weights, order))
    solver.run()
    if solver.getModelStatus() == highspy.HighsModelStatus.kIterationLimit:
        return None
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS ends with {solver.getModelStatus()}")
    solution, info = solver.getSolution(), solver.getInfo()
    columns = np.asarray(solution.col_value)
    x = np.empty(n_effects + 1)
    x[order] = columns[:n_effects] - columns[n_effects : 2 * n_effects]
    x[n_effects] = columns[-1]
    iterations = info.simplex_iteration_count + max(info.ipm_iteration_count, 0)
    return x, np.asarray(solution.row_dual), iterations


def _model(
    v: NDArray[np.float64],
    noise_bound: float,
    weights: NDArray[np.float64],
    order: NDArray[np.intp],
) -> highspy.HighsLp:
    """The program, with x as the difference of two parts that are not negative."""
    matrix = design_matrix(n_players(len(v)))
    n_effects = len(weights)
    effects = matrix[:, order]
    full = sp.hstack([effects, -effects, matrix[:, [n_effects]]], format="csc")
    return _program(
        full,
        rows=(v - noise_bound, v + noise_bound),
        column_lower=np.append(np.zeros(2 * n_effects), -np.inf),
        cost=np.concatenate([weights[order], weights[order], [0.0]]),
    )


def _program(
    matrix: sp.csc_array[np.float64],
    rows: tuple[NDArray[np.float64], NDArray[np.float64]],
    column_lower: NDArray[np.float64],
    cost: NDArray[np.float64],
) -> highspy.HighsLp:
    """Minimise cost·x subject to rows[0] ≤ matrix·x ≤ rows[1], x ≥ column_lower."""
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = matrix.shape[1], matrix.shape[0]
    lp.col_cost_ = cost
    lp.col_lower_, lp.col_upper_ = column_lower, np.full(matrix.shape[1], highspy.kHighsInf)
    lp.row_lower_, lp.row_upper_ = rows
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = matrix.indptr, matrix.indices
    lp.a_matrix_.value_ = matrix.data
    return lp


class Walk:
    """A program that is solved for one objective after another, each from where the last one ended."""

    def __init__(
        self,
        matrix: sp.csc_array[np.float64],
        rows: tuple[NDArray[np.float64], NDArray[np.float64]],
        column_lower: NDArray[np.float64],
        basic: NDArray[np.bool_],
        row_side: NDArray[np.int8],
    ) -> None:
        """Build it, at a point that is known to be feasible.

        Where basic columns and rows together are not m, as at a degenerate point, it starts elsewhere.

        Args:
            matrix: (m, k).
            rows: (m,) least and (m,) largest values of matrix·x.
            column_lower: (k,) least x, 0 or -inf.
            basic: bool (k,), which x are basic; the others are at their least value.
            row_side: int8 (m,), -1 or +1 where a row is at its least or largest value, 0 where it is
                basic.

        Raises:
            RuntimeError: HiGHS rejects the program, an option or the point.
        """
        self._solver = _solver("simplex", None, _PRIMAL)
        no_cost = np.zeros(matrix.shape[1])
        _pass(self._solver, _program(matrix, rows, column_lower, no_cost))
        self._matrix, self._rows, self._free = matrix, rows, np.isneginf(column_lower)
        self._dual = np.zeros(matrix.shape[0])
        if basic.sum() + (row_side == 0).sum() != matrix.shape[0]:
            return
        status = highspy.HighsBasisStatus
        basis = highspy.HighsBasis()
        basis.col_status = [status.kBasic if one else status.kLower for one in basic.tolist()]
        sides = {0: status.kBasic, 1: status.kUpper, -1: status.kLower}
        basis.row_status = [sides[side] for side in row_side.tolist()]
        if self._solver.setBasis(basis) == highspy.HighsStatus.kError:
            raise RuntimeError("HiGHS rejects the basis that it is given")

    def minimise(self, columns: NDArray[np.intp], cost: NDArray[np.float64]) -> NDArray[np.float64]:
        """x (k,) of least Σ cost·x[columns].

        Raises:
            RuntimeError: HiGHS does not reach an optimum.
        """
        self._solver.changeColsCost(len(columns), columns.astype(np.int32), cost)
        self._solver.run()
        status = self._solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(f"HiGHS ends with {status}")
        # Before the objective is taken back, which need not leave the solution as it is.
        solution = self._solver.getSolution()
        x, self._dual = np.asarray(solution.col_value), np.asarray(solution.row_dual)
        self._solver.changeColsCost(len(columns), columns.astype(np.int32), np.zeros(len(columns)))
        return x

    def lower_bound(self, cost: NDArray[np.float64], column_upper: NDArray[np.float64]) -> float:
        """A bound of cost·x from the duals of the last solve, valid whatever their origin.

        Args:
            cost: (k,), the objective.
            column_upper: (k,) what |x| does not exceed.
        """
        y = self._dual
        least, largest = self._rows
        # A dual of a side that does not exist is rounding.
        y = np.where((y > 0) & np.isneginf(least) | (y < 0) & np.isposinf(largest), 0.0, y)
        of_rows = np.where(y > 0, least, np.where(y < 0, largest, 0.0))
        reduced = cost - self._matrix.T @ y
        loss = np.where(self._free, np.abs(reduced), np.maximum(-reduced, 0.0))
        return float(of_rows @ y - loss @ column_upper)


def _pass(solver: highspy.Highs, lp: highspy.HighsLp) -> None:
    """Give HiGHS a program.

    Raises:
        RuntimeError: it rejects it.
    """
    if solver.passModel(lp) == highspy.HighsStatus.kError:
        raise RuntimeError("HiGHS rejects the program")


def _solver(method: str, max_iterations: int | None, strategy: int | None = None) -> highspy.Highs:
    """HiGHS with our options.

    Raises:
        RuntimeError: it rejects an option.
    """
    solver = highspy.Highs()  # type: ignore[no-untyped-call] # it has no annotations
    options: dict[str, bool | str | int | float] = {
        "output_flag": False,
        "solver": method,
        "threads": 1,
        "primal_feasibility_tolerance": 1e-9,
        "dual_feasibility_tolerance": 1e-9,
    }
    if max_iterations is not None:
        options["simplex_iteration_limit"] = max_iterations
    if strategy is not None:
        options["simplex_strategy"] = strategy
    for name, value in options.items():
        # An unknown name or value is not an exception: HiGHS keeps its old setting.
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise RuntimeError(f"HiGHS rejects the option {name}={value!r}")
    return solver
