"""The extraction LP by a primal-dual interior point that ends in an exact vertex.

    minimise Σ w|x|  subject to  A·x + c − q = v,  |q| ≤ bound,

with x = (I, J), A·x = zeta(I)(S) − zeta(J)(N∖S) and c = b + ΣJ free. With x = x⁺ − x⁻, dual slacks
s± = w ∓ Aᵀy, row slacks t± = bound ∓ q and their multipliers u±, y = u⁻ − u⁺, a Newton step is

    (A·D·Aᵀ + E)·Δy + Δc = rhs,   ΣΔy = −Σy,   D = x⁺/s⁺ + x⁻/s⁻,   E = 1/(u⁺/t⁺ + u⁻/t⁻).

The formulation and the algorithm below are ours. Three facts make it fast:

- (A·D·Aᵀ)[S,S'] = zeta(D_and)[S∩S'] + zeta(D_or)[N∖(S∪S')] is a look-up in two tables of 2^n.
- Few columns matter while many rows do (early), and few rows are near their bound (late). Early,
  conjugate gradients with fast transforms are preconditioned by the few columns with weight
  (Woodbury); late, rows far inside their bound leave the working set, and come back if they must.
- Once support and active rows are known, the vertex and its dual are one small linear system. Where
  the optimum is nearly degenerate, a few simplex pivots lead from a neighbour to it.
"""

from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack, qr

from sft_interactions.extraction.transforms import complement, orders, subset_sums, superset_sums

_SIGNS = np.array([1.0, -1.0])
# From this size on the early systems are solved by conjugate gradients and rows are dropped.
_LARGE = 1 << 10
_MAX_PRECONDITIONER = 6000
_TINY = 1e-300
# Rows of a tile of a Cholesky factor.
_TILE = 1024
# Effects of a degenerate vertex below this (v has range 1) are rounding.
_ZERO = 1e-12
# What a vertex must reach to be taken as the optimum (v has range 1).
_VERTEX_GAP, _VERTEX_EXCESS = 1e-9, 1e-10
# Relative gap below which a failing vertex means a degenerate optimum.
_DEGENERATE_GAP = 1e-7
# Conjugate gradients: reduction of the residual in the norm of the preconditioner, and its cost.
_CG_TOLERANCE, _CG_ITERATIONS = 1e-1, 150
# Iterative refinement of the exact factors: relative residual to reach, number of rounds.
_REFINED, _REFINEMENTS = 1e-10, 2


def synthesis(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A·x: (..., 2, 2^n) effects I and J to (..., 2^n), φ without its constant c."""
    return subset_sums(x[..., 0, :]) - complement(subset_sums(x[..., 1, :]))


def analysis(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Aᵀ·y, the transpose of `synthesis`: (..., 2^n) to (..., 2, 2^n)."""
    return np.stack([superset_sums(y), -complement(subset_sums(y))], axis=-2)


@cache
def effect_mask(n: int) -> NDArray[np.bool_]:
    """bool[2, 2^n]: which I(T) (|T| ≥ 1) and J(T) (|T| ≥ 2) are variables."""
    mask = np.stack([orders(n) >= 1, orders(n) >= 2])
    mask.flags.writeable = False
    return mask


@dataclass(frozen=True)
class Solution:
    """A primal and a dual point of one problem.

    Attributes:
        effects: (2, 2^n) I and J.
        constant: c = b + ΣJ.
        y: (2^n,) the dual of the rows, scaled to be feasible.
        gap: relative duality gap |primal − dual| / primal.
        excess: max_S |φ(S) − v(S)| − bound.
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

    The dual is max v·y − bound·|y|₁ subject to Σy = 0, |Aᵀy| ≤ w, so any y with Σy = 0 becomes
    feasible by scaling, and its value is then a rigorous lower bound.
    """
    mask = effect_mask(len(v).bit_length() - 1)
    y = y - y.mean()
    y = y / max(1.0, float((np.abs(analysis(y)) / weights)[mask].max()))
    primal = float((weights * np.abs(effects))[mask].sum())
    dual = float(v @ y - bound * np.abs(y).sum())
    excess = float(np.abs(synthesis(effects) + constant - v).max() - bound)
    return Solution(effects, constant, y, abs(primal - dual) / max(primal, _TINY), excess)


def solve_vertex(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    sign: NDArray[np.int8],
    side: NDArray[np.int8],
) -> Solution | None:
    """The basic solution of a support and a set of active rows.

    Its floats depend on the support and the active rows only, not on how a solver found them.

    Args:
        v: (2^n,) log-odds.
        bound: noise bound.
        weights: (2, 2^n).
        sign: (2, 2^n), the sign of each effect, 0 off the support.
        side: (2^n,), +1 where φ = v + bound, −1 where φ = v − bound, 0 where inactive.

    Returns:
        None if the system is not square or is singular.
    """
    rows, system = _vertex_system(sign, side)
    if system.shape[0] != system.shape[1]:
        return None
    lu, pivots, info = lapack.dgetrf(system, overwrite_a=1)
    if info:
        return None
    x = lapack.dgetrs(lu, pivots, v[rows] + bound * side[rows])[0]
    cost = np.append((weights * sign)[sign != 0], 0.0)
    y = np.zeros_like(v)
    y[rows] = lapack.dgetrs(lu, pivots, cost, trans=1)[0]
    effects = np.zeros_like(weights)
    x[:-1][np.abs(x[:-1]) < _ZERO] = 0.0
    effects[sign != 0] = x[:-1]
    return replace(certify(v, bound, weights, effects, float(x[-1]), y), exact=True)


def solve_degenerate(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    sign: NDArray[np.int8],
    side: NDArray[np.int8],
    y: NDArray[np.float64],
) -> Solution:
    """`solve_vertex` where more rows are active than the support needs, with a known dual y."""
    rows, system = _vertex_system(sign, side)
    x = np.linalg.lstsq(system, v[rows] + bound * side[rows], rcond=None)[0]
    effects = np.zeros_like(weights)
    effects[sign != 0] = x[:-1]
    return replace(certify(v, bound, weights, effects, float(x[-1]), y), exact=True)


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
        effects: (2, 2^n), exactly 0 off the support.
        y: (2^n,) a nearly optimal dual.
    """
    sign, side = _active_set(v, bound, effects, constant)
    return solve_vertex(v, bound, weights, sign, side) or solve_degenerate(
        v, bound, weights, sign, side, y
    )


def _active_set(v, bound, effects, constant):
    residual = synthesis(effects) + constant - v
    active = np.abs(residual) > bound - 1e-9
    side = np.where(active, np.where(residual < 0, -1, 1), 0).astype(np.int8)
    return np.sign(effects).astype(np.int8), side


def improve_vertex(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    vertex: Solution,
    max_pivots: int = 100,
) -> Solution | None:
    """Walk from a feasible vertex to the optimal one by pivots of the primal simplex method.

    For a vertex that is all but optimal: every pivot factorises anew.

    Returns:
        None if the way ends in a singular system or is longer than `max_pivots`.
    """
    mask = effect_mask(len(v).bit_length() - 1)
    sign, side = _active_set(v, bound, vertex.effects, vertex.constant)
    for _ in range(max_pivots):
        rows, system = _vertex_system(sign, side)
        if system.shape[0] != system.shape[1]:
            return None
        lu, pivots, info = lapack.dgetrf(system, overwrite_a=1)
        if info:
            return None
        support = sign != 0
        x = lapack.dgetrs(lu, pivots, v[rows] + bound * side[rows])[0]
        cost = np.append((weights * sign)[support], 0.0)
        y = np.zeros_like(v)
        y[rows] = lapack.dgetrs(lu, pivots, cost, trans=1)[0]

        # What may enter: an effect that is worth more than its weight, a row held at its bound by
        # a dual of the wrong sign.
        worth = analysis(y)
        gain_effect = np.where(mask & ~support, np.abs(worth) - weights, 0.0)
        gain_row = np.where(bound > 0, y * side, 0.0)
        best_effect, best_row = int(gain_effect.argmax()), int(gain_row.argmax())
        if max(gain_effect.flat[best_effect], gain_row[best_row]) < 1e-12:
            return solve_vertex(v, bound, weights, sign, side)
        step = np.zeros_like(weights)
        right = np.zeros(len(rows))
        free = side == 0
        if gain_effect.flat[best_effect] >= gain_row[best_row]:
            step.flat[best_effect] = np.sign(worth.flat[best_effect])
            right -= synthesis(step)[rows]
        else:
            right[rows == best_row] = -side[best_row]
            free[best_row] = True
        dx = lapack.dgetrs(lu, pivots, right)[0]

        # What leaves: an effect that shrinks to 0, an inactive row that meets its bound.
        effects = np.zeros_like(weights)
        effects[support] = x[:-1]
        shrink = np.zeros_like(weights)
        shrink[support] = -dx[:-1] * sign[support]
        step[support] = dx[:-1]
        residual = synthesis(effects) + x[-1] - v
        change = synthesis(step) + dx[-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            to_zero = np.where(shrink > 1e-12, np.abs(effects) / shrink, np.inf)
            to_bound = np.where(
                free & (np.abs(change) > 1e-12),
                np.maximum(bound - np.sign(change) * residual, 0.0) / np.abs(change),
                np.inf,
            )
        last_effect, last_row = int(to_zero.argmin()), int(to_bound.argmin())
        if not np.isfinite(min(to_zero.flat[last_effect], to_bound[last_row])):
            return None
        sign, side = sign.copy(), side.copy()
        if gain_effect.flat[best_effect] >= gain_row[best_row]:
            sign.flat[best_effect] = np.sign(worth.flat[best_effect])
        else:
            side[best_row] = 0
        if to_zero.flat[last_effect] <= to_bound[last_row]:
            sign.flat[last_effect] = 0
        else:
            side[last_row] = np.sign(change[last_row])
    return None


def _vertex_system(sign, side):
    """Active rows, and their matrix on the support (AND, then OR, by mask) and the constant."""
    rows = np.flatnonzero(side)
    and_support, or_support = np.flatnonzero(sign[0]), np.flatnonzero(sign[1])
    n_and = len(and_support)
    system = np.ones((len(rows), n_and + len(or_support) + 1))
    system[:, :n_and] = (rows[:, None] & and_support) == and_support
    system[:, n_and:-1] = (rows[:, None] & or_support) == 0
    system[:, n_and:-1] *= -1.0
    return rows, system


class _RowFactor:
    """Cholesky factor of A·D·Aᵀ + E + shift·11ᵀ on the working rows."""

    def __init__(self, d, e, rows):
        self.rows = rows = np.flatnonzero(rows)
        sums = subset_sums(d)
        meet, join = sums[0], complement(sums[1]).copy()
        # The free constant makes the limit of A·D·Aᵀ + E regular. Its weight is arbitrary, since
        # it does not act on steps with a given sum.
        shift = d.max()
        jitter = 0.0
        while True:
            try:
                self.factor = TiledCholesky(
                    rows,
                    lambda a, b: meet.take(a & b) + join.take(a | b) + shift,
                    e[rows],
                    1 + jitter,
                )
                return
            except np.linalg.LinAlgError:
                if jitter > 1e-9:
                    raise
            jitter = max(1e-15, 10 * jitter)

    def solve(self, rhs):
        out = np.zeros_like(rhs)
        out[self.rows] = self.factor.solve(rhs[self.rows])
        return out


class TiledCholesky:
    """Cholesky factor of a symmetric float64 matrix in square tiles, of which half are kept.

    Args:
        labels: (size,) int64.
        entry: gives the entry of two arrays of labels, elementwise with broadcasting.
        added: (size,) to add to the diagonal.
        factor: to multiply the diagonal with thereafter.

    Raises:
        LinAlgError: the matrix is not positive definite.
    """

    def __init__(self, labels, entry, added, factor=1.0, tile=_TILE):
        self.starts = np.arange(0, len(labels), tile)[1:]
        parts = np.split(labels, self.starts)
        self.tiles = tiles = []
        for i, own in enumerate(parts):
            # By symmetry a transposed tile, which is contiguous as LAPACK wants it.
            tiles.append([entry(other[:, None], own).T for other in parts[: i + 1]])
            diagonal = tiles[i][i].ravel(order="K")[:: len(own) + 1]
            diagonal += added[i * tile : i * tile + len(own)]
            diagonal *= factor
        for j, row in enumerate(tiles):
            for k in range(j):
                blas.dsyrk(-1.0, row[k], 1.0, row[j], lower=1, overwrite_c=1)
            row[j], info = lapack.dpotrf(row[j], lower=1, overwrite_a=1, clean=0)
            if info:
                raise np.linalg.LinAlgError("the matrix is not positive definite")
            for below in tiles[j + 1 :]:
                for k in range(j):
                    blas.dgemm(-1.0, below[k], row[k], 1.0, below[j], trans_b=1, overwrite_c=1)
                blas.dtrsm(1.0, row[j], below[j], side=1, lower=1, trans_a=1, overwrite_b=1)

    def solve(self, rhs):
        """Solution (size,) for a right-hand side (size,)."""
        parts = [part.copy() for part in np.split(rhs, self.starts)]
        for i, row in enumerate(self.tiles):
            for k in range(i):
                parts[i] -= row[k] @ parts[k]
            parts[i] = blas.dtrsv(row[i], parts[i], lower=1)
        for i, row in reversed(list(enumerate(self.tiles))):
            for k in range(i + 1, len(parts)):
                parts[i] -= self.tiles[k][i].T @ parts[k]
            parts[i] = blas.dtrsv(row[i], parts[i], lower=1, trans=1)
        return np.concatenate(parts)


@cache
def _ternary_index(n: int) -> NDArray[np.int64]:
    """Σ 3^k over the players k of every mask."""
    index = np.zeros(1, dtype=np.int64)
    for k in range(n):
        index = np.concatenate([index, index + 3**k])
    return index


def _disjoint_sums(r):
    """Table of 3^n: Σ of r(S) over S ⊇ T, S ∩ T' = ∅, at index ternary(T) + 2·ternary(T')."""
    n = len(r).bit_length() - 1
    table, width = r.reshape(-1, 1), 1
    for _ in range(n):
        halves = table.reshape(-1, 2, width)
        without, with_player = halves[:, 0], halves[:, 1]
        table = np.concatenate([without + with_player, with_player, without], axis=1)
        width *= 3
    return table.ravel()


def _diagonal(d):
    """diag(A·D·Aᵀ)."""
    return subset_sums(d[0]) + complement(subset_sums(d[1]))


class _ColumnFactor:
    """Preconditioner A_K·D_K·A_Kᵀ + diag, K the columns with the most weight, by Woodbury."""

    def __init__(self, d, e, rows):
        size = len(e)
        n = size.bit_length() - 1
        flat = d.ravel()
        column_size = np.exp2(n - orders(n).astype(np.float64))
        kept = size * 35 // 100
        rest = flat.copy()
        rest[np.argpartition(-(d * column_size).ravel(), kept)[:kept]] = 0.0
        inverse = 1 / (e + _diagonal(rest.reshape(d.shape)))
        by_column = np.stack([superset_sums(inverse), complement(subset_sums(inverse))])
        leverage = flat * by_column.ravel()
        columns = np.flatnonzero(leverage > 1.0)
        limit = min(size // 4, _MAX_PRECONDITIONER)
        if len(columns) > limit:
            columns = np.sort(np.argpartition(-leverage, limit)[:limit])
        self.columns = columns
        rest = flat.copy()
        rest[columns] = 0.0
        self.inverse = inverse = 1 / (e + _diagonal(rest.reshape(d.shape)))
        shift = flat.max()
        self.root = np.sqrt(np.append(flat[columns], shift))
        matrix = self._gram(columns, inverse, n)
        matrix *= self.root
        matrix *= self.root[:, None]
        matrix.ravel()[:: len(matrix) + 1] += 1.0
        self.factor, info = lapack.dpotrf(matrix.T, lower=0, overwrite_a=1, clean=0)
        if info:
            raise np.linalg.LinAlgError("the preconditioner is singular")

    @staticmethod
    def _gram(columns, r, n):
        """Lower triangle of [A_K 1]ᵀ·diag(r)·[A_K 1]."""
        size = len(r)
        ands, ors = columns[columns < size], columns[columns >= size] - size
        n_and = len(ands)
        supersets, avoiding = superset_sums(r), complement(subset_sums(r)).copy()
        disjoint, ternary = _disjoint_sums(r), _ternary_index(n)
        gram = np.empty((len(columns) + 1, len(columns) + 1))
        for start in range(0, n_and, 256):
            part = ands[start : start + 256, None]
            gram[start : start + len(part), :n_and] = supersets.take(part | ands)
        for start in range(0, len(ors), 256):
            part = ors[start : start + 256, None]
            some = slice(n_and + start, n_and + start + len(part))
            index = ternary.take(ands) + 2 * ternary.take(part)
            # Where T and T' meet no row holds both, and the index would mean nothing.
            meets = (part & ands) != 0
            index[meets] = 0
            block = disjoint.take(index)
            block[meets] = 0.0
            gram[some, :n_and] = -block
            gram[some, n_and:-1] = avoiding.take(part | ors)
        gram[-1, :n_and], gram[-1, n_and:-1] = supersets[ands], -avoiding[ors]
        gram[-1, -1] = r.sum()
        return gram

    def solve(self, rhs):
        r = rhs * self.inverse
        z = np.append(analysis(r).ravel()[self.columns], r.sum()) * self.root
        z = lapack.dpotrs(self.factor, z, lower=0)[0] * self.root
        effects = np.zeros(2 * len(rhs))
        effects[self.columns] = z[:-1]
        return r - (synthesis(effects.reshape(2, -1)) + z[-1]) * self.inverse


class _NewtonSystem:
    """(A·D·Aᵀ + E)·Δy + Δc = rhs on the working rows, ΣΔy = total, for a batch."""

    def __init__(self, d, e, rows, by_columns):
        self.d, self.e, self.rows = d, e, rows
        self.factors = [
            (_ColumnFactor if columns else _RowFactor)(*problem)
            for *problem, columns in zip(d, e, rows, by_columns, strict=True)
        ]
        self.by_columns = by_columns
        self.ones = self._precondition(rows.astype(np.float64), np.ones(len(d), bool))
        self.ones_sum = self.ones.sum(axis=1)

    def _precondition(self, rhs, active):
        out = np.zeros_like(rhs)
        for i in np.flatnonzero(active):
            out[i] = self.factors[i].solve(rhs[i])
        return out

    def _project(self, z):
        """Remove from z = P⁻¹r what the constant can take: Σz = 0."""
        dc = z.sum(axis=1) / self.ones_sum
        return z - dc[:, None] * self.ones, dc

    def solve(self, rhs, total):
        """Δy and Δc; to rounding where all rows are factorised, else to _CG_TOLERANCE."""
        y = self.ones * (total / self.ones_sum)[:, None]
        r = rhs - self._product(y)
        z, dc = self._project(self._precondition(r, np.ones(len(r), dtype=bool)))
        rhs_size = np.abs(rhs).max(axis=1)
        p, rz = z, (r * z).sum(axis=1)
        limit = _CG_TOLERANCE**2 * rz
        active = np.ones(len(r), dtype=bool)
        for iteration in range(_CG_ITERATIONS):
            product = self._product(p)
            curvature = np.maximum((p * product).sum(axis=1), _TINY)
            step = np.where(self.by_columns, rz / curvature, 1.0) * active
            y = y + step[:, None] * p
            r = r - step[:, None] * product
            # With an exact factor this is iterative refinement: conjugating would amplify rounding.
            miss = np.abs(r - dc[:, None] * self.rows).max(axis=1)
            exact = (miss < _REFINED * rhs_size) | (iteration >= _REFINEMENTS)
            active = active & (self.by_columns | ~exact)
            if not active.any():
                break
            z, dc_new = self._project(self._precondition(r, active))
            dc = np.where(active, dc_new, dc)
            rz_new = (r * z).sum(axis=1)
            active = active & (~self.by_columns | (rz_new > limit))
            conjugate = np.where(self.by_columns, rz_new / np.maximum(rz, _TINY), 0.0)
            p = z + conjugate[:, None] * p
            rz = rz_new
        y = y + self.ones * ((total - y.sum(axis=1)) / self.ones_sum)[:, None]
        return y, dc

    def _product(self, y):
        return (synthesis(self.d * analysis(y)) + self.e * y) * self.rows


@dataclass
class _State:
    """Iterate of a batch of B problems; N = 2^n. Axis 1 of x, s, t, u is the sign.

    Off the working rows y and q are 0, t is 1 and u is 0.
    """

    index: NDArray[np.int64]  # (B,) row of the caller
    v: NDArray[np.float64]  # (B, N)
    bound: NDArray[np.float64]  # (B,)
    rows: NDArray[np.bool_]  # (B, N) working rows
    returned: NDArray[np.bool_]  # (B, N) rows that came back and stay
    bounded: NDArray[np.bool_]  # (B, 1) the bound is positive
    y: NDArray[np.float64]  # (B, N)
    c: NDArray[np.float64]  # (B,)
    q: NDArray[np.float64]  # (B, N)
    x: NDArray[np.float64]  # (B, 2, 2, N)
    s: NDArray[np.float64]  # (B, 2, 2, N)
    t: NDArray[np.float64]  # (B, 2, N)
    u: NDArray[np.float64]  # (B, 2, N)

    def take(self, keep):
        return _State(*(getattr(self, field.name)[keep] for field in fields(self)))

    def effects(self):
        return self.x[:, 0] - self.x[:, 1]


def _start(v, bound, weights, mask):
    n_problems, size = v.shape
    c = np.median(v, axis=1)
    spread = np.maximum(np.median(np.abs(v - c[:, None]), axis=1), 1e-3 * np.ptp(v, axis=1))
    bounded = (bound > 0)[:, None]
    per_effect = np.where(mask, 0.1 * spread[:, None, None], 0.0)
    return _State(
        index=np.arange(n_problems),
        v=v,
        bound=bound,
        rows=np.ones(v.shape, dtype=bool),
        returned=np.zeros(v.shape, dtype=bool),
        bounded=bounded,
        y=np.zeros_like(v),
        c=c,
        q=np.zeros_like(v),
        x=np.repeat(per_effect[:, None], 2, axis=1),
        s=np.repeat(np.broadcast_to(weights, (n_problems, 1, 2, size)), 2, axis=1),
        t=np.where(bounded, bound[:, None], 1.0)[:, None] * np.ones((1, 2, size)),
        u=np.where(bounded, 0.1, 0.0)[:, None] * np.ones((1, 2, size)),
    )


def _expand(a, like):
    return a.reshape(a.shape + (1,) * (like.ndim - 1))


def _longest(values, steps):
    """Per problem, the longest step ≤ 1 that keeps all values positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = [
            np.where(step < 0, -value / step, np.inf).reshape(len(value), -1).min(axis=1)
            for value, step in zip(values, steps, strict=True)
        ]
    return np.minimum(1.0, np.minimum(*ratios))


class _Iteration:
    """One predictor-corrector step (Mehrotra, with the correctors of Gondzio) of a batch."""

    def __init__(self, state, weights, mask):
        self.state, self.mask = state, mask
        self.sign = _SIGNS[:, None]
        self.inequality = state.rows & state.bounded
        on = self.inequality[:, None]
        self.residual_p = state.v + state.q - synthesis(state.effects()) - state.c[:, None]
        self.residual_p = self.residual_p * state.rows
        self.residual_s = (
            weights - self.sign[..., None] * analysis(state.y)[:, None] - state.s
        ) * mask
        self.residual_t = (state.bound[:, None, None] - self.sign * state.q[:, None] - state.t) * on
        self.residual_y = (state.y + state.u[:, 0] - state.u[:, 1]) * self.inequality
        self.n_pairs = 2 * mask.sum() + 2 * self.inequality.sum(axis=1)
        self.xs, self.ut = state.x * state.s, state.u * state.t
        self.mu = self._mean(self.xs, self.ut)
        self.weights = weights
        self.gap = self.current_gap()

    def current_gap(self):
        """(B,) relative gap of the iterate, which means little while its residuals are large."""
        state = self.state
        primal = (self.weights * state.x).sum(axis=(1, 2, 3))
        dual = (state.v * state.y).sum(axis=1) - state.bound * np.abs(state.y).sum(axis=1)
        return np.abs(primal - dual) / np.maximum(primal, _TINY)

    def _mean(self, xs, ut):
        return (xs.sum(axis=(1, 2, 3)) + ut.sum(axis=(1, 2))) / self.n_pairs

    def factorise(self, by_columns):
        state = self.state
        self.by_columns = by_columns
        d = (state.x / state.s).sum(axis=1)
        slope = (state.u / state.t).sum(axis=1)
        self.e = np.where(self.inequality, 1 / np.where(self.inequality, slope, 1.0), 0.0)
        self.system = _NewtonSystem(d, self.e, state.rows, by_columns)

    def direction(self, target_xs, target_ut):
        """Newton step to Δ(xs) = target_xs, Δ(ut) = target_ut: (y, c, q), (x, t), (s, u)."""
        state = self.state
        pulled = (target_xs - state.x * self.residual_s) / state.s
        pushed = (target_ut - state.u * self.residual_t) / state.t
        rq = (pushed[:, 1] - pushed[:, 0] - self.residual_y) * self.inequality
        rhs = self.residual_p - synthesis(pulled[:, 0] - pulled[:, 1]) + self.e * rq
        dy, dc = self.system.solve(rhs * state.rows, -state.y.sum(axis=1))
        ds = (self.residual_s - self.sign[..., None] * analysis(dy)[:, None]) * self.mask
        dx = (target_xs - state.x * ds) / state.s * self.mask
        dq = self.e * (rq - dy)
        dt = (self.residual_t - self.sign * dq[:, None]) * self.inequality[:, None]
        du = (target_ut - state.u * dt) / state.t * self.inequality[:, None]
        return (dy, dc, dq), (dx, dt), (ds, du)

    def lengths(self, step):
        state = self.state
        return _longest((state.x, state.t), step[1]), _longest((state.s, state.u), step[2])

    def _products(self, step, primal, dual):
        (dx, dt), (ds, du), state = step[1], step[2], self.state
        return (
            (state.x + _expand(primal, dx) * dx) * (state.s + _expand(dual, ds) * ds),
            (state.u + _expand(dual, du) * du) * (state.t + _expand(primal, dt) * dt),
        )

    def advance(self, correctors):
        """Take the step; return its primal and dual lengths."""
        on = self.inequality[:, None]
        step = self.direction(-self.xs, -self.ut)
        affine = self._mean(*self._products(step, *self.lengths(step)))
        target = (affine / self.mu) ** 3 * self.mu
        target_xs = (_expand(target, self.xs) - self.xs - step[1][0] * step[2][0]) * self.mask
        target_ut = (_expand(target, self.ut) - self.ut - step[1][1] * step[2][1]) * on
        step = self.direction(target_xs, target_ut)
        primal, dual = self.lengths(step)
        for _ in range(correctors):
            longer = np.minimum(1, primal + 0.3), np.minimum(1, dual + 0.3)
            trial_xs, trial_ut = (
                old + np.maximum(np.clip(p, 0.1 * aim, 10 * aim) - p, -10 * aim)
                for old, p, aim in zip(
                    (target_xs, target_ut),
                    self._products(step, *longer),
                    (_expand(target, self.xs), _expand(target, self.ut)),
                    strict=True,
                )
            )
            trial_xs, trial_ut = trial_xs * self.mask, trial_ut * on
            trial = self.direction(trial_xs, trial_ut)
            trial_primal, trial_dual = self.lengths(trial)
            better = trial_primal + trial_dual > primal + dual + 0.02
            if not better.any():
                break

            def pick(new, old, better=better):
                return np.where(_expand(better, np.asarray(old)), new, old)

            step = tuple(
                tuple(pick(new, old) for new, old in zip(news, olds, strict=True))
                for news, olds in zip(trial, step, strict=True)
            )
            primal, dual = pick(trial_primal, primal), pick(trial_dual, dual)
            target_xs, target_ut = pick(trial_xs, target_xs), pick(trial_ut, target_ut)
        primal, dual = (np.where(a < 1, 0.995 * a, 1.0) for a in (primal, dual))
        (dy, dc, dq), (dx, dt), (ds, du) = step
        state = self.state
        state.c = state.c + primal * dc
        for name, length, change in (
            ("y", dual, dy),
            ("q", primal, dq),
            ("x", primal, dx),
            ("t", primal, dt),
            ("s", dual, ds),
            ("u", dual, du),
        ):
            setattr(state, name, getattr(state, name) + _expand(length, change) * change)
        return primal, dual


def _update_rows(state, gap, mask):
    """Drop rows that are far inside their bound, bring back dropped ones that leave it.

    Returns:
        (B,) bool, whether rows came back.
    """
    bound = state.bound[:, None]
    far = synthesis(state.effects()) + state.c[:, None] - state.v
    back = ~state.rows & (np.abs(far) > 0.97 * bound)
    room = state.t.min(axis=1)
    pressure = state.u.max(axis=1) * bound / np.maximum(room, _TINY)
    usual = np.abs(state.y).sum(axis=1) / state.rows.sum(axis=1)
    # The closer to the optimum, the nearer to its bound a row may be and still be dropped.
    margin = np.where(gap < 1e-3, 0.1, np.where(gap < 1e-2, 0.25, 0.5))
    out = state.rows & ~state.returned & (room > margin[:, None] * bound)
    out &= (pressure < 0.1 * usual[:, None]) & ((gap < 0.3)[:, None] & state.bounded)
    out &= (out.sum(axis=1) > 0.05 * state.rows.sum(axis=1))[:, None]
    state.returned |= back
    state.rows = (state.rows & ~out) | back
    state.q = np.where(back, np.clip(far, -0.9 * bound, 0.9 * bound), state.q)
    room_back = bound[:, None] - _SIGNS[:, None] * state.q[:, None]
    mu = (state.x * state.s).sum(axis=(1, 2, 3)) / (2 * mask.sum())
    state.t = np.where(back[:, None], room_back, np.where(state.rows[:, None], state.t, 1.0))
    state.u = np.where(
        back[:, None],
        mu[:, None, None] / np.where(back[:, None], room_back, 1.0),
        np.where(state.rows[:, None], state.u, 0.0),
    )
    state.y = np.where(back, state.u[:, 1] - state.u[:, 0], np.where(state.rows, state.y, 0.0))
    state.q = np.where(state.rows, state.q, 0.0)
    return back.any(axis=1)


def _try_vertex(state, i, weights, mask, gap):
    """The vertex of the basis that the iterate points to, or None if it is not the optimum.

    A basis holds c and as many effects and inactive rows together as there are other rows: those
    with the largest ratio of the primal to the dual variable. Where the optimum is nearly degenerate
    the ratio of some tells nothing: then, near the end, an independent basis is chosen and improved.
    """
    x, s, size = state.x[i], state.s[i], state.v.shape[1]
    effect_ratio = np.where(mask, (x / s).max(axis=0), 0.0)
    if state.bounded[i, 0]:
        on = state.rows[i]
        working = np.flatnonzero(on)
        row_ratio = (state.t[i] / np.where(on, state.u[i], 1.0)).min(axis=0)
        n_basic = on.sum() - 1
        row_side = np.where(state.u[i, 0] > state.u[i, 1], 1, -1)
    else:
        on = np.zeros(size, dtype=bool)
        working = np.arange(size)
        row_ratio, n_basic, row_side = np.zeros(size), size - 1, np.ones(size, dtype=int)
    ratio = np.concatenate([effect_ratio[mask], row_ratio[on]])
    # Of an effect near 0 only the dual slack tells the sign.
    side_of_effect = np.where(x[0] / s[0] > x[1] / s[1], 1, -1)[mask]
    n_effects = mask.sum()

    def vertex_of(chosen):
        basic = np.zeros(len(ratio), dtype=bool)
        basic[chosen] = True
        sign = np.zeros(mask.shape, dtype=np.int8)
        sign[mask] = basic[:n_effects] * side_of_effect
        inactive = ~on & state.bounded[i, 0]
        inactive[on] = basic[n_effects:]
        side = np.where(inactive, 0, row_side).astype(np.int8)
        return solve_vertex(state.v[i], state.bound[i], weights, sign, side)

    vertex = vertex_of(np.argpartition(-ratio, n_basic - 1)[:n_basic])
    if not _is_optimal(vertex) and gap < _DEGENERATE_GAP:
        vertex = vertex_of(_independent(ratio, n_basic, mask, working))
        if vertex is not None and vertex.excess < _VERTEX_EXCESS:
            vertex = improve_vertex(state.v[i], state.bound[i], weights, vertex)
    return vertex if _is_optimal(vertex) else None


def _is_optimal(vertex):
    return vertex is not None and vertex.gap < _VERTEX_GAP and vertex.excess < _VERTEX_EXCESS


def _independent(ratio, n_basic, mask, rows):
    """Independent columns, of effects and then of working rows, with the largest ratios.

    A QR factorisation that takes the longest remaining column, each scaled by its ratio.
    """
    n = mask.shape[1].bit_length() - 1
    ratio = np.clip(np.nan_to_num(ratio, nan=0.0), 1e-30, 1e30)
    candidates = np.argsort(-ratio, kind="stable")[: n_basic + n_basic // 4]
    effects, row_of = candidates[candidates < mask.sum()], candidates[candidates >= mask.sum()]
    flat = np.flatnonzero(mask)[effects]
    kind, pattern = flat >> n, flat & ((1 << n) - 1)
    columns = np.where(
        kind == 0,
        (rows[:, None] & pattern) == pattern,
        -((rows[:, None] & pattern) == 0).astype(int),
    )
    slack = np.zeros((len(rows), len(row_of)))
    slack[row_of - mask.sum(), np.arange(len(row_of))] = 1.0
    matrix = np.hstack([np.ones((len(rows), 1)), columns, slack])
    order = np.concatenate([effects, row_of])
    scale = np.sqrt(np.clip(ratio[order] / ratio[candidates[n_basic - 1]], 1e-10, 1e10))
    matrix *= np.append(1e6, scale)
    chosen = qr(matrix, mode="r", pivoting=True, overwrite_a=True)[1][: n_basic + 1]
    return order[chosen[chosen > 0] - 1]


def _round(state, i, weights, mask):
    """The last iterate as a solution."""
    effects = np.where(mask, state.x[i, 0] - state.x[i, 1], 0.0)
    # An effect below the precision of the iterate is not an effect.
    effects[np.abs(effects) < 1e-7] = 0.0
    return certify(state.v[i], state.bound[i], weights, effects, float(state.c[i]), state.y[i])


def _solve_batch(v, bound, weights, max_iterations, shortcuts, correctors):
    n_problems, size = v.shape
    mask = effect_mask(size.bit_length() - 1)
    weights = np.where(mask, weights, 1.0)
    solutions: list[Solution | None] = [None] * n_problems
    iterations = np.zeros(n_problems, dtype=np.int64)
    state = _start(v, bound, weights, mask)
    large = shortcuts and size >= _LARGE
    lost = []
    step = _Iteration(state, weights, mask)
    for _ in range(max_iterations):
        by_columns = large & state.bounded[:, 0] & state.rows.all(axis=1) & (step.gap > 1e-3)
        step.factorise(by_columns)
        step.advance(0 if by_columns.all() else correctors)
        iterations[state.index] += 1
        gap = step.current_gap()
        back = _update_rows(state, gap, mask) if large else np.zeros(len(gap), dtype=bool)
        done = np.zeros(len(gap), dtype=bool)
        for i in np.flatnonzero((gap < 1e-4) & ~back):
            solutions[state.index[i]] = vertex = _try_vertex(state, i, weights, mask, gap[i])
            done[i] = vertex is not None
        # A gap at rounding without a vertex: the optimum is degenerate, more steps do not help.
        keep = ~done & np.isfinite(gap) & (gap > 1e-14)
        lost.append(state.take(~done & ~keep))
        state = state.take(keep)
        if not keep.any():
            break
        step = _Iteration(state, weights, mask)
    for rest in (*lost, state):
        for i, index in enumerate(rest.index):
            if np.isfinite(rest.x[i]).all() and np.isfinite(rest.y[i]).all():
                solutions[index] = _round(rest, i, weights, mask)
    return solutions, iterations


def solve(
    v: NDArray[np.float64],
    bound: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    max_iterations: int = 80,
    shortcuts: bool = True,
    correctors: int = 2,
) -> tuple[list[Solution | None], NDArray[np.int64]]:
    """Solve a batch of problems.

    Args:
        v: (B, 2^n), each of range 1 and about centred.
        bound: (B,), in the units of v; 0 asks for equality.
        weights: (2, 2^n), positive.
        max_iterations: where to give up.
        shortcuts: from n = 10 on, use the preconditioner of few columns and drop rows.
        correctors: centrality corrections a step; another number is another path to the optimum.

    Returns:
        For each problem an exact vertex (gap ≤ 1e-9), or else the last iterate, or None if the
        iteration broke down; and the number of iterations, int64[B].
    """
    options = (max_iterations, shortcuts, correctors)
    # A degenerate problem may overflow near its end, which ends its iteration without harm.
    with np.errstate(all="ignore"):
        try:
            return _solve_batch(v, bound, weights, *options)
        except np.linalg.LinAlgError:
            pass
        # One broken problem must not cost the others of the batch their solution.
        solutions: list[Solution | None] = [None] * len(v)
        iterations = np.zeros(len(v), dtype=np.int64)
        for i in range(len(v) if len(v) > 1 else 0):
            with suppress(np.linalg.LinAlgError):
                (solutions[i],), iterations[[i]] = _solve_batch(
                    v[[i]], bound[[i]], weights, *options
                )
        return solutions, iterations
