"""The program by HiGHS: simplex, or interior point with crossover.

Used as an independent check of our solver (`iteration`) and where that one gives up.
"""

from functools import cache

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sft_interactions.extraction.transforms import n_players, orders


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
    solver.passModel(_model(v, noise_bound, weights, order))
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
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = full.shape[1], full.shape[0]
    lp.col_cost_ = np.concatenate([weights[order], weights[order], [0.0]])
    lp.col_lower_ = np.concatenate([np.zeros(2 * n_effects), [-highspy.kHighsInf]])
    lp.col_upper_ = np.full(full.shape[1], highspy.kHighsInf)
    lp.row_lower_, lp.row_upper_ = v - noise_bound, v + noise_bound
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = full.indptr, full.indices
    lp.a_matrix_.value_ = full.data
    return lp


def _solver(method: str, max_iterations: int | None) -> highspy.Highs:
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
    for name, value in options.items():
        # An unknown name or value is not an exception: HiGHS keeps its old setting.
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise RuntimeError(f"HiGHS rejects the option {name}={value!r}")
    return solver
