"""AND-OR interactions of a table of log-odds: the exact, canonical and certified optimum.

The logical model is that of arXiv 2605.17967, Eq. 2-3,

    φ(S) = b + Σ_{∅≠T⊆S} I(T) + Σ_{T∩S≠∅} J(T),

fitted by min Σ w_and(T)|I(T)| + w_or(T)|J(T)| subject to |φ(S) − v(S)| ≤ ζ·|v(N) − v(∅)| for all S.
J({i}) is the same function of S as I({i}) and is fixed to 0; b is not penalised. That it is solved
as a linear program, with a tie-break and a dual certificate, is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sft_interactions.extraction import highs, interior_point
from sft_interactions.extraction.transforms import complement, n_players, orders, subset_sums

MIN_PLAYERS, MAX_PLAYERS = 2, 16
MAX_PLAYERS_EXACT_FIT = 14
# From here on a try without shortcuts, or HiGHS, would take many minutes a problem.
MAX_PLAYERS_DENSE, MAX_PLAYERS_HIGHS = 11, 12
SOLVERS = ("interior-point", "simplex", "ipm")
# Entries of v that are solved together: enough to amortise Python, few enough for the cache.
_CHUNK_SIZE = 1 << 13
TIE_BREAK_SIZE = 1e-3
# name: (weight of the order, weight of OR, weight of the hash, seed of the hash), times the size
TIE_BREAKS = {
    "plain": (0.0, 0.0, 0.0, 0),
    "canonical": (1.0, 0.2, 0.1, 0),
    "hash-1": (1.0, 0.2, 0.1, 1),
    "hash-2": (1.0, 0.2, 0.1, 2),
    "prefer_or": (1.0, -0.2, 0.1, 0),
}


@dataclass(frozen=True)
class Extraction:
    """Solutions of a batch of B problems with n players; effects in the units of v (log-odds).

    Attributes:
        and_effects: (B, 2^n) I(T); index 0 is 0; zero effects are exactly 0.0.
        or_effects: (B, 2^n) J(T); index 0 and the singletons are 0.
        bias: (B,) b.
        l1: (B,) the objective that is solved, the L1 norm with the weights of the tie-break.
        l1_lower_bound: (B,) certified lower bound of that objective (a feasible dual point).
        l1_plain: (B,) Σ|I| + |J|.
        noise_bound: (B,) ζ·|v(N) − v(∅)|.
        max_residual: (B,) max_S |φ(S) − v(S)|.
        iterations: (B,) iterations of the solver.
    """

    and_effects: NDArray[np.float64]
    or_effects: NDArray[np.float64]
    bias: NDArray[np.float64]
    l1: NDArray[np.float64]
    l1_lower_bound: NDArray[np.float64]
    l1_plain: NDArray[np.float64]
    noise_bound: NDArray[np.float64]
    max_residual: NDArray[np.float64]
    iterations: NDArray[np.int64]


def _splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a strong 64-bit hash."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


@cache
def tie_break_weights(n: int, tie_break: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of |I(T)| and |J(T)|, two float64[2^n], within 1 ± 1.3·TIE_BREAK_SIZE.

    w(T) = 1 + ε·(|T|/n + 0.2·[T is OR] + 0.1·h(T)) with h in [0, 1) the splitmix64 hash of the
    seed, the type and the mask. A weak hash would leave ties.

    Raises:
        ValueError: unknown name of a tie-break.
    """
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"unknown tie-break {tie_break!r}, choose from {sorted(TIE_BREAKS)}")
    by_order, by_or, by_hash, seed = TIE_BREAKS[tie_break]
    masks = np.arange(1 << n, dtype=np.uint64)
    weights = []
    for kind in (0, 1):
        key = masks | np.uint64(kind << 16 | seed << 17)
        h = (_splitmix64(key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        w = 1 + TIE_BREAK_SIZE * (by_order * orders(n) / n + by_or * kind + by_hash * h)
        w.flags.writeable = False
        weights.append(w)
    return weights[0], weights[1]


def reconstruct(
    bias: ArrayLike, and_effects: ArrayLike, or_effects: ArrayLike
) -> NDArray[np.float64]:
    """φ(S) of arXiv 2605.17967, Eq. 2-3, for every mask S.

    Args:
        bias: (...,) b.
        and_effects: (..., 2^n) I(T).
        or_effects: (..., 2^n) J(T).

    Returns:
        float64 (..., 2^n).
    """
    or_effects = np.asarray(or_effects, dtype=np.float64)
    constant = np.asarray(bias, dtype=np.float64) + or_effects.sum(axis=-1)
    return constant[..., None] + subset_sums(and_effects) - complement(subset_sums(or_effects))


def _check(v: ArrayLike) -> NDArray[np.float64]:
    v = np.asarray(v, dtype=np.float64)
    if v.ndim != 2:
        raise ValueError(f"v must have the shape (problems, 2^n), not {v.shape}")
    n = n_players(v.shape[1])
    if not MIN_PLAYERS <= n <= MAX_PLAYERS:
        raise ValueError(f"v has {n} players, supported are {MIN_PLAYERS} to {MAX_PLAYERS}")
    for row in np.flatnonzero(~np.isfinite(v).all(axis=1)):
        mask = int(np.flatnonzero(~np.isfinite(v[row]))[0])
        raise ValueError(f"v[{row}] is {v[row, mask]} at mask {mask}")
    return v


def _solve_one_by_highs(v, bound, weights, method):
    """HiGHS, and the exact vertex of the basis that it finds."""
    mask = interior_point.effect_mask(n_players(len(v)))
    x, y, iterations = highs.solve(v, bound, weights[mask], method=method)
    effects = np.zeros(mask.shape)
    effects[mask] = np.where(np.abs(x[:-1]) < 1e-9, 0.0, x[:-1])
    found = interior_point.solve_active(v, bound, weights, effects, float(x[-1]), y)
    if max(found.gap, found.excess) > 1e-9:
        found = interior_point.certify(v, bound, weights, effects, float(x[-1]), y)
    return found, iterations


def _solve(v, bound, weights, gap_tolerance, solver, progress):
    """Solutions of problems of range 1, by the interior point or, where it fails, by HiGHS."""
    n_problems, size = v.shape
    solutions = [None] * n_problems
    iterations = np.zeros(n_problems, dtype=np.int64)
    chunk = max(1, _CHUNK_SIZE // size)
    for start in range(0, n_problems, chunk):
        part = range(start, min(start + chunk, n_problems))
        if solver == "interior-point":
            rows = slice(part.start, part.stop)
            solutions[rows], iterations[rows] = interior_point.solve(v[rows], bound[rows], weights)
        for i in part:
            one = slice(i, i + 1)
            solutions[i], more = _settle(
                v[one], bound[one], weights, solutions[i], gap_tolerance, solver
            )
            iterations[i] += more
            if solutions[i] is None:
                raise RuntimeError(f"problem {i}: the extraction program is not solved")
        progress(len(part))
    return solutions, iterations


def _settle(v, bound, weights, solution, gap_tolerance, solver):
    """The best solution of one problem, and the iterations that it took beyond the given one."""
    tries, iterations = [], 0
    if solver != "interior-point":
        tries = [lambda: _solve_one_by_highs(v[0], bound[0], weights, solver)]
    elif solution is None or not solution.exact:
        tries = _retries(v, bound, weights, solution, gap_tolerance)
    for attempt in tries:
        found, more = attempt()
        iterations += more
        if found is not None and (solution is None or found.rank < solution.rank):
            solution = found
        if solution is not None and solution.exact:
            break
    return solution, iterations


def _retries(v, bound, weights, solution, gap_tolerance):
    """What to try, from fast to slow, where the interior point has not ended in a vertex."""

    def again(**options):
        solutions, iterations = interior_point.solve(v, bound, weights, **options)
        return solutions[0], iterations[0]

    size = v.shape[1]
    tries = []
    # A small gap without a vertex is a degenerate optimum, which another path does not change.
    if solution is None or max(solution.gap, solution.excess) > min(gap_tolerance, 1e-8):
        tries.append(lambda: again(correctors=1))
        if size <= 1 << MAX_PLAYERS_DENSE:
            tries.append(lambda: again(shortcuts=False))
    if size <= 1 << MAX_PLAYERS_HIGHS:
        method = "simplex" if size < 1 << 10 else "ipm"
        tries.append(lambda: _solve_one_by_highs(v[0], bound[0], weights, method))
    return tries


def extract(
    v: ArrayLike,
    *,
    noise_ratio: float = 0.04,
    tie_break: str = "canonical",
    gap_tolerance: float = 1e-6,
    solver: str = "interior-point",
    progress: Callable[[int], None] = lambda _: None,
) -> Extraction:
    """AND-OR interactions of a batch of problems.

    The answer of a problem depends neither on the rest of the batch nor on the solver.

    Args:
        v: (B, 2^n) log-odds, indexed by the bit mask of the kept players, 2 ≤ n ≤ 16.
        noise_ratio: ζ, the bound of |φ − v| as a fraction of |v(N) − v(∅)|. Where v(N) = v(∅), or
            with ζ = 0, φ = v is asked for exactly.
        tie_break: a name of `TIE_BREAKS`. "plain" has many optima, of which one is returned.
        gap_tolerance: relative duality gap above which a more robust and slower solver is tried.
            In general the exact vertex is found, with a gap near rounding, whatever the value.
            From n = 13 on the gap that is reached may be larger: see `l1_lower_bound`.
        solver: "interior-point" (ours), or "simplex" or "ipm" of HiGHS.
        progress: called with the number of problems that have just been solved.

    Returns:
        The solutions, in the order of the rows of v.

    Raises:
        ValueError: v has a wrong shape or number of players, or a row (named) is not finite; an
            unknown tie-break or solver; a negative noise_ratio; a noise bound of 0 with n ≥ 15,
            which would need dense matrices beyond 16 GiB.
        RuntimeError: no solution is found, not even by HiGHS.
    """
    v = _check(v)
    if not (np.isfinite(noise_ratio) and noise_ratio >= 0):
        raise ValueError(f"noise_ratio must be finite and not negative: {noise_ratio}")
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}, choose from {SOLVERS}")
    n_problems, size = v.shape
    n = n_players(size)
    weights = np.stack(tie_break_weights(n, tie_break))
    noise_bound = noise_ratio * np.abs(v[:, -1] - v[:, 0])
    scale = np.ptp(v, axis=1)
    # Elsewhere a constant is within the bound: it is the optimum, with no effects.
    varies = np.flatnonzero(scale > 2 * noise_bound)
    if n > MAX_PLAYERS_EXACT_FIT and (noise_bound[varies] == 0).any():
        row = varies[np.argmin(noise_bound[varies])]
        raise ValueError(f"v[{row}] has a noise bound of 0, which {n} players do not allow")

    and_effects, or_effects, y = np.zeros_like(v), np.zeros_like(v), np.zeros_like(v)
    constant = (v.min(axis=1) + v.max(axis=1)) / 2
    iterations = np.zeros(n_problems, dtype=np.int64)
    progress(n_problems - len(varies))
    if len(varies):
        centre, unit = v[varies].mean(axis=1), scale[varies]
        solutions, iterations[varies] = _solve(
            (v[varies] - centre[:, None]) / unit[:, None],
            noise_bound[varies] / unit,
            weights,
            gap_tolerance,
            solver,
            progress,
        )
        for i, middle, one, solution in zip(varies, centre, unit, solutions, strict=True):
            and_effects[i], or_effects[i] = solution.effects * one
            constant[i] = middle + solution.constant * one
            y[i] = solution.y

    bias = constant - or_effects.sum(axis=1)
    absolute_and, absolute_or = np.abs(and_effects), np.abs(or_effects)
    l1 = absolute_and @ weights[0] + absolute_or @ weights[1]
    residual = reconstruct(bias, and_effects, or_effects) - v
    # y is feasible and sums to 0, so the offset of v adds nothing but rounding.
    lower = ((v - v.mean(axis=1, keepdims=True)) * y).sum(axis=1)
    lower -= noise_bound * np.abs(y).sum(axis=1)
    return Extraction(
        and_effects=and_effects,
        or_effects=or_effects,
        bias=bias,
        l1=l1,
        l1_lower_bound=np.clip(lower, 0.0, l1),
        l1_plain=absolute_and.sum(axis=1) + absolute_or.sum(axis=1),
        noise_bound=noise_bound,
        max_residual=np.abs(residual).max(axis=1),
        iterations=iterations,
    )
