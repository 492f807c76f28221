"""The program by HiGHS: simplex, or interior point with crossover.

Used as an independent check of our solver (`iteration`) and where that one gives up.
"""

from collections.abc import Callable
from functools import cache

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sft_interactions.extraction.transforms import n_players, orders

# HiGHS's numbers of the dual simplex, and of the primal one, which can go on from a point after the
# objective has changed.
_DUAL, _PRIMAL = 1, 4
# How much the dual simplex perturbs, in parts of its default: from a good point less is faster, and without
# any it may turn in circles.
_PERTURBATION = 1e-3
# Steps, a row and column, after which it is taken to do so.
_STEPS = 20
# Share of groups from which on all are in at once; how many are taken in at least; what is a gain.
_MOST_OF_GROUPS = 0.5
_FEWEST_TAKEN = 20
_GAIN = 1e-9


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
    column_upper: NDArray[np.float64] | None = None,
) -> highspy.HighsLp:
    """Minimise cost·x subject to rows[0] ≤ matrix·x ≤ rows[1], column_lower ≤ x ≤ column_upper."""
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = matrix.shape[1], matrix.shape[0]
    lp.col_cost_ = cost
    endless = np.full(matrix.shape[1], highspy.kHighsInf)
    lp.col_lower_ = column_lower
    lp.col_upper_ = endless if column_upper is None else column_upper
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
        if basic.sum() + (row_side == 0).sum() != matrix.shape[0]:
            return
        status = highspy.HighsBasisStatus
        sides = {0: status.kBasic, 1: status.kUpper, -1: status.kLower}
        _set_basis(
            self._solver,
            [status.kBasic if one else status.kLower for one in basic.tolist()],
            [sides[side] for side in row_side.tolist()],
        )

    def minimise(self, columns: NDArray[np.intp], cost: NDArray[np.float64]) -> NDArray[np.float64]:
        """x (k,) of least Σ cost·x[columns].

        Raises:
            RuntimeError: HiGHS does not reach an optimum.
        """
        self._solver.changeColsCost(len(columns), columns.astype(np.int32), cost)
        _run(self._solver)
        # A copy, since taking the objective back need not leave the solution as it is.
        x = np.array(self._solver.getSolution().col_value)
        self._solver.changeColsCost(len(columns), columns.astype(np.int32), np.zeros(len(columns)))
        return x


class SizesProgram:
    """Minimise cost·x + size_cost·|links·x| subject to rows[0] ≤ matrix·x ≤ rows[1], by its dual:

        maximise rows[0]·y⁺ − rows[1]·y⁻  subject to  matrixᵀ(y⁺ − y⁻) + linksᵀu ≤ cost, |u| ≤ size_cost.

    Most links are 0 in a solution. In the primal program each of them has two columns and a row, and the
    simplex steps over them one by one; here it is a variable with two bounds, many of which the dual
    simplex changes in one step.

    The columns are in groups, which no link joins. Most groups are 0 in a solution too, so the program
    begins with those that are not 0 at the given point, and takes in others as long as one of them could
    lower the objective (sifting). Where that is not known of a group, all are in from the start.
    """

    def __init__(
        self,
        matrix: sp.csc_array[np.float64],
        rows: tuple[NDArray[np.float64], NDArray[np.float64]],
        free: NDArray[np.bool_],
        links: sp.csc_array[np.float64],
        size_cost: NDArray[np.float64],
        point: tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int8]],
        groups: NDArray[np.intp],
        units: NDArray[np.float64],
        price: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None,
    ) -> None:
        """Build it, at a point that is known to be feasible.

        Where basic columns and rows together are not m, as at a degenerate point, it starts elsewhere.

        Args:
            matrix: (m, k).
            rows: (m,) least and (m,) largest values of matrix·x.
            free: bool (k,), which x can be negative.
            links: (l, k).
            size_cost: (l,), not negative.
            point: x (k,), and ``basic`` (k,) and ``row_side`` (m,) as of `Walk`.
            groups: int (k,) from 0 on, the group of each column; those that are free are in group 0.
            units: (k,) of the columns, so that |links·x| has slopes of that size.
            price: takes r (k,), and gives (groups,) the least r·x + size_cost·|links·x| over the x of a
                group with 0 ≤ units·x ≤ 1; that of group 0 is not looked at. None if it is not known.

        Raises:
            RuntimeError: HiGHS rejects the program, an option or the point.
        """
        self._matrix, self._rows, self._free = matrix, rows, free
        self._links, self._size_cost = links.tocsr(), size_cost
        self._groups, self._units, self._price = groups, units, price
        self._below, self._above = (np.flatnonzero(np.isfinite(side)) for side in rows)
        self._n_sides = len(self._below) + len(self._above)
        self._group_of_link = groups[self._links.indices[self._links.indptr[:-1]]]
        of_columns = matrix.T.tocsr()
        self._sides = sp.hstack(
            [of_columns[:, self._below], -of_columns[:, self._above]], format="csr"
        )
        x, basic, side = point
        n_groups = int(groups.max(initial=0)) + 1
        is_in = np.bincount(groups[basic | (x != 0)], minlength=n_groups) > 0
        is_in[0] = True
        if price is None or is_in.mean() > _MOST_OF_GROUPS:
            is_in[:] = True
        self._duals, self._link_duals = np.zeros(matrix.shape[0]), np.zeros(len(size_cost))
        self._solver = _solver(
            "simplex", _STEPS * (len(free) + self._n_sides + len(size_cost)), _DUAL
        )
        self._perturb(_PERTURBATION)
        none = np.zeros(0)
        program = _program(
            self._sides[:0].tocsc(),
            rows=(none, none),
            column_lower=np.zeros(self._n_sides),
            cost=np.append(-rows[0][self._below], rows[1][self._above]),
        )
        _pass(self._solver, program)
        self._is_in = np.zeros(n_groups, dtype=bool)
        self._columns, self._links_in = none.astype(np.intp), none.astype(np.intp)
        self._take_in(is_in, np.zeros(len(free)))
        if basic.sum() + (side == 0).sum() != matrix.shape[0]:
            return
        status = highspy.HighsBasisStatus
        active = np.append(side[self._below] == -1, side[self._above] == 1)
        rising = np.asarray(self._links @ x)[self._links_in] >= 0
        _set_basis(
            self._solver,
            [status.kBasic if one else status.kLower for one in active.tolist()]
            + [status.kLower if one else status.kUpper for one in rising.tolist()],
            [status.kUpper if one else status.kBasic for one in basic[self._columns].tolist()],
        )

    def minimise(self, cost: NDArray[np.float64]) -> NDArray[np.float64]:
        """x (k,) of a solution.

        Raises:
            RuntimeError: HiGHS does not reach an optimum.
        """
        every = np.arange(len(self._columns), dtype=np.int32)
        self._solver.changeRowsBounds(  # type: ignore[attr-defined] # the stubs of HiGHS lack it
            len(every), every, *self._bounds(cost, self._columns)
        )
        while True:
            self._solve()
            if self._price is None or self._is_in.all():
                break
            reduced = cost - self._matrix.T @ self._duals
            gains = np.where(self._is_in, 0.0, -self._price(reduced))
            (wanted,) = np.nonzero(gains > _GAIN)
            if not len(wanted):
                break
            # The best ones: many of the others are no gain any more with them.
            best = np.argsort(-gains[wanted], kind="stable")
            is_new = np.zeros(len(gains), dtype=bool)
            is_new[wanted[best[: max(_FEWEST_TAKEN, len(wanted) // 2)]]] = True
            self._take_in(is_new, cost)
        x = np.zeros(len(cost))
        x[self._columns] = -np.array(self._solver.getSolution().row_dual)
        return x

    def _solve(self) -> None:
        try:
            _run(self._solver)
        except RuntimeError:
            # Anew, from no point and as HiGHS would have it.
            self._solver.clearSolver()
            _set_option(self._solver, "simplex_iteration_limit", highspy.kHighsIInf)
            self._perturb(1.0)
            _run(self._solver)
        of_sides, of_links = np.split(
            np.array(self._solver.getSolution().col_value), [self._n_sides]
        )
        self._link_duals[self._links_in] = of_links
        below, above = np.split(np.maximum(of_sides, 0.0), [len(self._below)])
        self._duals = np.zeros(self._matrix.shape[0])
        self._duals[self._below] += below
        self._duals[self._above] -= above

    def _bounds(
        self, cost: NDArray[np.float64], columns: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.where(self._free[columns], cost[columns], -np.inf), cost[columns]

    def _take_in(self, is_new: NDArray[np.bool_], cost: NDArray[np.float64]) -> None:
        """Add columns and links of groups, bool (groups,), of which none is in."""
        columns = np.flatnonzero(is_new[self._groups])
        links = np.flatnonzero(is_new[self._group_of_link])
        rows = self._sides[columns]
        self._solver.addRows(
            len(columns),
            *self._bounds(cost, columns),
            rows.nnz,
            rows.indptr[:-1].astype(np.int32),
            rows.indices.astype(np.int32),
            rows.data,
        )
        added = self._links[links][:, columns].T.tocsc()
        size = self._size_cost[links]
        self._solver.addCols(
            len(links),
            np.zeros(len(links)),
            -size,
            size,
            added.nnz,
            added.indptr[:-1].astype(np.int32),
            (added.indices + len(self._columns)).astype(np.int32),
            added.data,
        )
        self._columns = np.append(self._columns, columns)
        self._links_in = np.append(self._links_in, links)
        self._is_in |= is_new

    def _perturb(self, size: float) -> None:
        _set_option(self._solver, "dual_simplex_cost_perturbation_multiplier", size)

    def lower_bound(self, cost: NDArray[np.float64], most: NDArray[np.float64]) -> float:
        """A bound of the objective from the duals of the last solve, valid whatever their origin.

        Args:
            cost: (k,).
            most: (k,) what |x| does not exceed.
        """
        y = self._duals
        reduced = cost - self._matrix.T @ y
        if self._price is None:
            u = np.clip(self._link_duals, -self._size_cost, self._size_cost)
            of_columns = np.maximum(self._links.T @ u - reduced, 0.0)
            loss = of_columns[~self._free] @ most[~self._free]
        else:
            largest = np.zeros(len(self._is_in))
            np.maximum.at(largest, self._groups, most * self._units)
            loss = np.maximum(-self._price(reduced), 0.0)[1:] @ largest[1:]
        loss += np.abs(reduced[self._free]) @ most[self._free]
        below, above = np.maximum(y, 0.0), np.maximum(-y, 0.0)
        of_rows = (
            self._rows[0][self._below] @ below[self._below]
            - self._rows[1][self._above] @ above[self._above]
        )
        return float(of_rows - loss)


def _run(solver: highspy.Highs) -> None:
    """Solve.

    Raises:
        RuntimeError: HiGHS does not reach an optimum.
    """
    solver.run()
    status = solver.getModelStatus()
    if status != highspy.HighsModelStatus.kOptimal:
        raise RuntimeError(f"HiGHS ends with {status}")


def _set_basis(
    solver: highspy.Highs,
    columns: list[highspy.HighsBasisStatus],
    rows: list[highspy.HighsBasisStatus],
) -> None:
    """Start at a basis.

    Raises:
        RuntimeError: HiGHS rejects it.
    """
    basis = highspy.HighsBasis()
    basis.col_status, basis.row_status = columns, rows
    if solver.setBasis(basis) == highspy.HighsStatus.kError:
        raise RuntimeError("HiGHS rejects the basis that it is given")


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
        _set_option(solver, name, value)
    return solver


def _set_option(solver: highspy.Highs, name: str, value: bool | str | int | float) -> None:
    """Set an option.

    Raises:
        RuntimeError: HiGHS rejects it.
    """
    # An unknown name or value is not an exception: HiGHS keeps its old setting.
    if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
        raise RuntimeError(f"HiGHS rejects the option {name}={value!r}")
