"""AND-OR interactions of a table of log-odds: checks, scaling, choice of the solver, retries."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sft_interactions.extraction import highs, iteration
from sft_interactions.extraction.certificate import Solution, certify, effect_mask
from sft_interactions.extraction.tie_break import tie_break_weights
from sft_interactions.extraction.transforms import complement, n_players, subset_sums
from sft_interactions.extraction.vertex import solve_active
from sft_interactions.limits import MAX_PLAYERS, MAX_PLAYERS_EXACT_FIT, MIN_PLAYERS
from sft_interactions.parallel import Mapped, in_turn

# From here on a try without shortcuts, or HiGHS's interior point, would take many minutes a problem.
MAX_PLAYERS_DENSE, MAX_PLAYERS_IPM = 11, 12
# Up to here HiGHS's simplex is run to its end. Further on it is worth a try of so many iterations: it
# solves sparse, degenerate problems in few, and on those our iteration ends without a vertex.
_SIMPLEX_PLAYERS, _SIMPLEX_ITERATIONS = 10, 4000
SOLVERS = ("interior-point", "simplex", "ipm")
NOISE_RATIO = 0.04
NOISE_SCALES = ("sample", "mean", "range")
"""What the noise bound is a share of, see :func:`noise_bounds`."""
# Entries of v that are solved together: enough to amortise Python, few enough for the cache.
_CHUNK_SIZE = 1 << 13
# A gap below this without a vertex is a degenerate optimum, which another path does not change.
_SMALL_GAP = 1e-8
# Of HiGHS: effects below the first are its rounding; above the second a vertex is not the optimum.
_HIGHS_ZERO, _HIGHS_GAP = 1e-9, 1e-9
# A bound below this part of the range of v is below the precision of active rows, and is taken for 0.
_SMALLEST_BOUND = 1e-8
# Values further from 0 than this many times their range leave float64 too few digits.
_LARGEST_OFFSET = 1e7
_SMALLEST_RANGE = 1e-280
# φ may leave the noise bound by this part of the range of v, which is rounding.
_EXCESS = 1e-7


@dataclass(frozen=True)
class Extraction:
    """Solutions of a batch of B problems with n players; effects in the units of v (log-odds).

    Attributes:
        and_effects: float64 (B, 2^n) I(T); index 0 is 0; zero effects are exactly 0.0.
        or_effects: float64 (B, 2^n) J(T); index 0 and the singletons are 0.
        bias: float64 (B,) b.
        l1: float64 (B,) the objective that is solved, the L1 norm with the weights of the
            tie-break.
        l1_lower_bound: float64 (B,) certified lower bound of that objective (a feasible dual
            point).
        l1_plain: float64 (B,) Σ|I| + |J|.
        noise_bound: float64 (B,) largest |φ(S) − v(S)| that is allowed, see :func:`noise_bounds`.
        max_residual: float64 (B,) max_S |φ(S) − v(S)|.
        iterations: int64 (B,) iterations of the solver.
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

    @property
    def effects(self) -> NDArray[np.float64]:
        """float64 (B, 2, 2^n), I and J."""
        return np.stack([self.and_effects, self.or_effects], axis=1)

    @property
    def constant(self) -> NDArray[np.float64]:
        """float64 (B,), c = b + ΣJ."""
        return np.asarray(self.bias + self.or_effects.sum(axis=1))

    def take(self, rows: slice | NDArray[np.intp]) -> Self:
        """The solutions of some of the problems."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The solutions of several batches, one after the other."""
        return cls(
            *(np.concatenate([getattr(one, field.name) for one in parts]) for field in fields(cls))
        )


def reconstruct(
    bias: ArrayLike, and_effects: ArrayLike, or_effects: ArrayLike
) -> NDArray[np.float64]:
    """φ(S) of arXiv 2605.17967, Eq. 2-3, for every mask S.

    Args:
        bias: (...,) b.
        and_effects: (..., 2^n) I(T).
        or_effects: (..., 2^n) J(T).

    Returns:
        float64 (..., 2^n), in the units of the effects.

    Raises:
        ValueError: the last axis is no power of two, or what is given has values that are masked, or no
            real numbers.
    """
    or_effects = _real("or_effects", or_effects)
    constant = _real("bias", bias) + or_effects.sum(axis=-1)
    phi: NDArray[np.float64] = (
        constant[..., None]
        + subset_sums(_real("and_effects", and_effects))
        - complement(subset_sums(or_effects))
    )
    return phi


def noise_bounds(
    v: ArrayLike, noise_ratio: float = NOISE_RATIO, noise_scale: str = "sample"
) -> NDArray[np.float64]:
    """Bounds of |φ − v|: the noise ratio ζ times the noise scale.

    The scales are ``sample``, |v(N) − v(∅)| of each row, which is nearly 0 for some; ``mean``, the mean
    of |v(N) − v(∅)| over the rows, one bound for all; ``range``, max v − min v of each row.

    Args:
        v: (B, 2^n) log-odds of all samples of one checkpoint. Under ``mean`` the rows of several
            checkpoints, or of several draws of noise, must not come in one call.
        noise_ratio: ζ, without unit.
        noise_scale: a name of `NOISE_SCALES`.

    Returns:
        float64 (B,), in the units of v.

    Raises:
        ValueError: as :func:`extract` of v; an unknown scale; a negative ratio, or one not finite.
    """
    v = _checked(v)
    if not (np.isfinite(noise_ratio) and noise_ratio >= 0):
        raise ValueError(f"noise_ratio must be finite and not negative: {noise_ratio}")
    if noise_scale not in NOISE_SCALES:
        raise ValueError(
            f"unknown noise_scale {noise_scale!r}, choose from {', '.join(NOISE_SCALES)}"
        )
    scale = np.ptp(v, axis=1) if noise_scale == "range" else np.abs(v[:, -1] - v[:, 0])
    if noise_scale == "mean":
        scale = np.full(len(v), scale.mean())
    bounds: NDArray[np.float64] = noise_ratio * scale
    return bounds


def extract(
    v: ArrayLike,
    *,
    noise_ratio: float | None = None,
    noise_scale: str | None = None,
    noise_bound: ArrayLike | None = None,
    tie_break: str = "canonical",
    gap_tolerance: float = 1e-6,
    solver: str = "interior-point",
    progress: Callable[[int], None] = lambda _: None,
    mapped: Mapped = in_turn,
) -> Extraction:
    """AND-OR interactions of a batch of problems.

    The answer of a problem depends neither on the solver nor on the rest of the batch, but for its noise
    bound under the noise scale ``mean``.

    Args:
        v: (B, 2^n) log-odds, indexed by the bit mask of the kept players, 2 ≤ n ≤ 16.
        noise_ratio: ζ of :func:`noise_bounds`, by default 0.04.
        noise_scale: what it is a fraction of, see :func:`noise_bounds`; by default ``sample``.
        noise_bound: (B,) bounds of |φ − v| in the units of v, instead of the two above: for a batch of
            several checkpoints or draws. Where a bound is 0, φ = v is asked for exactly.
        tie_break: a name of `tie_break.TIE_BREAKS`. "plain" has many optima, of which one is
            returned.
        gap_tolerance: relative duality gap above which a more robust and slower solver is tried.
            In general the exact vertex is found, with a gap near rounding, whatever the value.
            From n = 13 on the gap that is reached may be larger: see `l1_lower_bound`.
        solver: "interior-point" (ours), or "simplex" or "ipm" of HiGHS.
        progress: called with the number of problems that have just been solved.
        mapped: shares the work out, see :class:`~sft_interactions.parallel.Mapped`.

    Returns:
        The solutions, in the order of the rows of v.

    Raises:
        ValueError: v has a wrong shape or number of players, or values that are masked or no real
            numbers, or, as a data frame, columns with numbers that are not the masks in their
            order; a row (named) is not finite, or has too few digits for its range; an unknown tie-
            break, solver or noise scale; a noise_ratio or a noise bound that is negative or not
            finite; noise bounds that are not one a row, or that are beside a ratio or a scale; a
            noise bound of 0 with n ≥ 15, which would need dense matrices beyond 16 GiB.
        RuntimeError: no solution is found, not even by HiGHS, or the one that is found leaves its
            noise bound.
    """
    v = _checked(v)
    noise_bound = _resolved_bounds(v, noise_ratio, noise_scale, noise_bound)
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}, choose from {SOLVERS}")
    n_problems, size = v.shape
    weights = np.stack(tie_break_weights(n_players(size), tie_break))
    scale = np.ptp(v, axis=1)
    _check_digits(v, scale)
    # Elsewhere a constant is within the bound: it is the optimum, with no effects.
    varies = np.flatnonzero(scale > 2 * noise_bound)
    bound = np.where(noise_bound < _SMALLEST_BOUND * scale, 0.0, noise_bound)
    _check_exact_fit(bound, varies, size)

    and_effects, or_effects, y = np.zeros_like(v), np.zeros_like(v), np.zeros_like(v)
    constant = (v.min(axis=1) + v.max(axis=1)) / 2
    iterations = np.zeros(n_problems, dtype=np.int64)
    progress(n_problems - len(varies))
    if len(varies):
        centre, unit = v[varies].mean(axis=1), scale[varies]
        solutions, iterations[varies] = _solve(
            (v[varies] - centre[:, None]) / unit[:, None],
            bound[varies] / unit,
            weights,
            gap_tolerance,
            solver,
            progress,
            mapped,
        )
        for i, middle, one, solution in zip(varies, centre, unit, solutions, strict=True):
            and_effects[i], or_effects[i] = solution.effects * one
            constant[i] = middle + solution.constant * one
            y[i] = solution.y
    found = _measured(v, noise_bound, weights, and_effects, or_effects, constant, y, iterations)
    for row in np.flatnonzero(found.max_residual > noise_bound + _EXCESS * scale):
        raise RuntimeError(
            f"problem {row}: |phi - v| reaches {found.max_residual[row]:.3e}, above its bound of "
            f"{noise_bound[row]:.3e}; no solution within it is found"
        )
    return found


def _resolved_bounds(
    v: NDArray[np.float64],
    noise_ratio: float | None,
    noise_scale: str | None,
    noise_bound: ArrayLike | None,
) -> NDArray[np.float64]:
    """The noise bounds (B,) that are given, or those of ratio and scale; see :func:`extract`."""
    if noise_bound is None:
        ratio = NOISE_RATIO if noise_ratio is None else noise_ratio
        return noise_bounds(v, ratio, "sample" if noise_scale is None else noise_scale)
    if noise_ratio is not None or noise_scale is not None:
        raise ValueError(
            "noise_bound: noise_ratio or noise_scale is given too; give one or the other"
        )
    bounds = _real("noise_bound", noise_bound).copy()
    if bounds.shape != (len(v),):
        raise ValueError(
            f"noise_bound has the shape {bounds.shape}, v has {len(v)} rows; give one bound a row"
        )
    for row in np.flatnonzero(~(np.isfinite(bounds) & (bounds >= 0))):
        raise ValueError(f"noise_bound[{row}] must be finite and not negative: {bounds[row]}")
    return bounds


def _check_digits(v: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
    """Raise ValueError for a row whose values float64 does not resolve well enough."""
    furthest = np.abs(v).max(axis=1)
    for row in np.flatnonzero(furthest > _LARGEST_OFFSET * np.where(scale > 0, scale, np.inf)):
        raise ValueError(
            f"v[{row}] spans {scale[row]:.3g} around {furthest[row]:.3g}, which leaves float64 too few "
            "digits; take off a constant"
        )
    for row in np.flatnonzero((scale > 0) & (scale < _SMALLEST_RANGE)):
        raise ValueError(
            f"v[{row}] spans {scale[row]:.3g}, which float64 does not resolve; scale v up"
        )


def _real(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """An argument as float64.

    Raises:
        ValueError: some of it is masked, or it holds no real numbers.
    """
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has values that are masked; fill them in, or drop their rows")
    array = np.asarray(values)
    if array.dtype.kind not in "biufO":
        raise ValueError(f"{name} is {array.dtype}; give real numbers")
    return array.astype(np.float64, copy=False)


def _check_columns(v: Any) -> None:
    """Raise ValueError where the columns of a data frame are named by numbers that are not the masks."""
    names = [str(name) for name in getattr(v, "columns", ())]
    if any(name.isdecimal() for name in names) and names != list(map(str, range(len(names)))):
        raise ValueError(
            f"v has the columns {', '.join(names[:4])}, ...; put them in the order of the masks, 0 to "
            f"{len(names) - 1}, or give v without names"
        )


def _checked(v: ArrayLike) -> NDArray[np.float64]:
    """v as float64 (B, 2^n).

    Raises:
        ValueError: see `extract`.
    """
    values = _real("v", v)
    _check_columns(v)
    if values.ndim != 2:
        raise ValueError(f"v must have the shape (problems, 2^n), not {values.shape}")
    if not len(values):
        raise ValueError("v has no row; give at least one problem")
    n = n_players(values.shape[1])
    if not MIN_PLAYERS <= n <= MAX_PLAYERS:
        raise ValueError(f"v has {n} players, supported are {MIN_PLAYERS} to {MAX_PLAYERS}")
    for row in np.flatnonzero(~np.isfinite(values).all(axis=1)):
        mask = int(np.flatnonzero(~np.isfinite(values[row]))[0])
        raise ValueError(f"v[{row}] is {values[row, mask]} at mask {mask}")
    return values


def _check_exact_fit(noise_bound: NDArray[np.float64], varies: NDArray[np.intp], size: int) -> None:
    """Raise ValueError if one of the rows that vary has no bound and too many players for that."""
    n = n_players(size)
    if n > MAX_PLAYERS_EXACT_FIT and (noise_bound[varies] == 0).any():
        row = varies[np.argmin(noise_bound[varies])]
        raise ValueError(f"v[{row}] has a noise bound of 0, which {n} players do not allow")


def _measured(
    v: NDArray[np.float64],
    noise_bound: NDArray[np.float64],
    weights: NDArray[np.float64],
    and_effects: NDArray[np.float64],
    or_effects: NDArray[np.float64],
    constant: NDArray[np.float64],
    y: NDArray[np.float64],
    iterations: NDArray[np.int64],
) -> Extraction:
    """Solutions with their objective, its lower bound and their residual.

    Args:
        v: (B, 2^n) log-odds.
        noise_bound: (B,).
        weights: (2, 2^n).
        and_effects: (B, 2^n) I.
        or_effects: (B, 2^n) J.
        constant: (B,) c = b + ΣJ.
        y: (B, 2^n) dual points, feasible.
        iterations: (B,).
    """
    bias = constant - or_effects.sum(axis=1)
    absolute_and, absolute_or = np.abs(and_effects), np.abs(or_effects)
    # Row by row, so that the last digits do not depend on the batch.
    l1 = (absolute_and * weights[0] + absolute_or * weights[1]).sum(axis=1)
    residual = reconstruct(bias, and_effects, or_effects) - v
    # y is feasible and sums to 0, so the offset of v adds nothing but rounding.
    lower = ((v - v.mean(axis=1, keepdims=True)) * y).sum(axis=1)
    lower -= noise_bound * np.abs(y).sum(axis=1)
    return Extraction(
        and_effects=and_effects,
        or_effects=or_effects,
        bias=bias,
        l1=l1,
        l1_lower_bound=np.maximum(lower, 0.0),
        l1_plain=absolute_and.sum(axis=1) + absolute_or.sum(axis=1),
        noise_bound=noise_bound,
        max_residual=np.abs(residual).max(axis=1),
        iterations=iterations,
    )


class _Part(NamedTuple):
    """Problems that are solved together.

    Attributes:
        start: number of the first in the batch, for messages.
        v: (B, 2^n) of range 1.
        bound: (B,) noise bounds.
        weights: (2, 2^n).
        gap_tolerance: see `extract`.
        solver: see `extract`.
    """

    start: int
    v: NDArray[np.float64]
    bound: NDArray[np.float64]
    weights: NDArray[np.float64]
    gap_tolerance: float
    solver: str


def part_size(size: int) -> int:
    """How many problems of `size` = 2^n maskings are solved together."""
    return max(1, _CHUNK_SIZE // size)


def _solve(
    v: NDArray[np.float64],
    bound: NDArray[np.float64],
    weights: NDArray[np.float64],
    gap_tolerance: float,
    solver: str,
    progress: Callable[[int], None],
    mapped: Mapped,
) -> tuple[list[Solution], NDArray[np.int64]]:
    """Solutions of problems (B, 2^n) of range 1, and the iterations (B,) that they took."""
    n_problems, size = v.shape
    step = part_size(size)
    parts = [
        _Part(
            start,
            v[start : start + step],
            bound[start : start + step],
            weights,
            gap_tolerance,
            solver,
        )
        for start in range(0, n_problems, step)
    ]
    solutions: list[Solution] = []
    iterations = []
    for solved, taken in mapped(_solve_part, parts):
        solutions += solved
        iterations.append(taken)
        progress(len(solved))
    return solutions, np.concatenate(iterations)


def _solve_part(part: _Part) -> tuple[list[Solution], NDArray[np.int64]]:
    n_problems = len(part.v)
    first: list[Solution | None] = [None] * n_problems
    iterations = np.zeros(n_problems, dtype=np.int64)
    if part.solver == "interior-point":
        first, iterations = iteration.solve(part.v, part.bound, part.weights)
    solutions = []
    for i, solution in enumerate(first):
        settled, more = _settle(
            part.v[i], float(part.bound[i]), part.weights, solution, part.gap_tolerance, part.solver
        )
        if settled is None:
            raise RuntimeError(f"problem {part.start + i}: the extraction program is not solved")
        solutions.append(settled)
        iterations[i] += more
    return solutions, iterations


def _settle(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    solution: Solution | None,
    gap_tolerance: float,
    solver: str,
) -> tuple[Solution | None, int]:
    """The best solution of one problem, and the iterations that it took beyond the given one."""
    iterations = 0
    if solution is not None and solution.exact:
        return solution, iterations
    for found, more in _tries(v, bound, weights, solution, gap_tolerance, solver):
        iterations += more
        if found is not None and (solution is None or found.rank < solution.rank):
            solution = found
        if solution is not None and solution.exact:
            break
    return solution, iterations


def _tries(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    solution: Solution | None,
    gap_tolerance: float,
    solver: str,
) -> Iterator[tuple[Solution | None, int]]:
    """Further solutions and their iterations, from fast to slow; each is solved when asked for.

    Args:
        v: (2^n,) of range 1.
        bound: its noise bound.
        weights: (2, 2^n).
        solution: what the interior point has found, not a vertex.
        gap_tolerance: see `extract`.
        solver: see `extract`.
    """
    if solver != "interior-point":
        yield _by_highs(v, bound, weights, solver)
        return
    n = n_players(len(v))
    if n <= _SIMPLEX_PLAYERS:
        yield _by_highs(v, bound, weights, "simplex")
        return
    yield _by_highs(v, bound, weights, "simplex", _SIMPLEX_ITERATIONS)
    if solution is None or max(solution.gap, solution.excess) > min(gap_tolerance, _SMALL_GAP):
        bounds = np.array([bound])
        yield _only(iteration.solve(v[None], bounds, weights, correctors=1))
        if n <= MAX_PLAYERS_DENSE:
            yield _only(iteration.solve(v[None], bounds, weights, shortcuts=False))
    if n <= MAX_PLAYERS_IPM:
        yield _by_highs(v, bound, weights, "ipm")


def _only(
    solved: tuple[list[Solution | None], NDArray[np.int64]],
) -> tuple[Solution | None, int]:
    """Solution and iterations of a batch of one problem."""
    solutions, iterations = solved
    return solutions[0], int(iterations[0])


def _by_highs(
    v: NDArray[np.float64],
    bound: float,
    weights: NDArray[np.float64],
    method: str,
    max_iterations: int | None = None,
) -> tuple[Solution | None, int]:
    """HiGHS on one problem (2^n,), and the exact vertex of the basis that it finds, if it ends."""
    mask = effect_mask(n_players(len(v)))
    solved = highs.solve(v, bound, weights[mask], method=method, max_iterations=max_iterations)
    if solved is None:
        return None, max_iterations or 0
    x, y, iterations = solved
    effects = np.zeros(mask.shape)
    effects[mask] = np.where(np.abs(x[:-1]) < _HIGHS_ZERO, 0.0, x[:-1])
    found = solve_active(v, bound, weights, effects, float(x[-1]), y)
    if max(found.gap, found.excess) > _HIGHS_GAP:
        found = certify(v, bound, weights, effects, float(x[-1]), y)
    return found, iterations
