"""AND-OR interactions of a table of log-odds: the exact, canonical and certified optimum.

The logical model is that of arXiv 2605.17967, Eq. 2-3,

    φ(S) = b + Σ_{∅≠T⊆S} I(T) + Σ_{T∩S≠∅} J(T),

fitted by min Σ w_and(T)|I(T)| + w_or(T)|J(T)| subject to |φ(S) − v(S)| ≤ ζ·|v(N) − v(∅)| for all S.
J({i}) is the same function of S as I({i}) and is fixed to 0; b is not penalised. That it is solved
as a linear program, with a tie-break and a dual certificate, is ours.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sft_interactions import highs
from sft_interactions.transforms import (
    complement,
    n_players,
    orders,
    subset_sums,
    superset_sums,
)

MIN_PLAYERS, MAX_PLAYERS = 2, 16
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
    return (
        constant[..., None] + subset_sums(and_effects) - complement(subset_sums(or_effects))
    )


def dual_bound(
    v: NDArray[np.float64],
    y: NDArray[np.float64],
    noise_bound: NDArray[np.float64],
    and_weights: NDArray[np.float64],
    or_weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Rigorous lower bound of the weighted L1 from any y, by weak duality.

    The dual is max v·y − bound·|y|₁ subject to Σy = 0, |Σ_{S⊇T} y(S)| ≤ w_and(T) for T ≠ ∅ and
    |Σ_{S∩T=∅} y(S)| ≤ w_or(T) for |T| ≥ 2. y is centred and scaled down until it is feasible.

    Args:
        v: (B, 2^n).
        y: (B, 2^n).
        noise_bound: (B,).
        and_weights: (2^n,).
        or_weights: (2^n,).

    Returns:
        float64 (B,), not below 0.
    """
    y = y - y.mean(axis=-1, keepdims=True)
    excess_and = np.abs(superset_sums(y)[..., 1:]) / and_weights[1:]
    is_or = orders(n_players(v.shape[-1])) >= 2
    excess_or = np.abs(complement(subset_sums(y))[..., is_or]) / or_weights[is_or]
    scale = np.maximum(1.0, np.maximum(excess_and.max(axis=-1), excess_or.max(axis=-1)))
    value = (v * y).sum(axis=-1) - noise_bound * np.abs(y).sum(axis=-1)
    return np.maximum(value / scale, 0.0)


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


def extract(
    v: ArrayLike,
    *,
    noise_ratio: float = 0.04,
    tie_break: str = "canonical",
    gap_tolerance: float = 1e-6,
    solver: str = "simplex",
) -> Extraction:
    """AND-OR interactions of a batch of problems.

    Args:
        v: (B, 2^n) log-odds, indexed by the bit mask of the kept players, 2 ≤ n ≤ 16.
        noise_ratio: ζ, the bound of |φ − v| as a fraction of |v(N) − v(∅)|.
        tie_break: a name of `TIE_BREAKS`.
        gap_tolerance: relative duality gap to reach.
        solver: "simplex" or "ipm" (both HiGHS).

    Returns:
        The solutions, in the order of the rows of v.

    Raises:
        ValueError: v has a wrong shape or number of players, or a row (named) is not finite; an
            unknown tie-break; a negative noise_ratio.
    """
    v = _check(v)
    if not noise_ratio >= 0:
        raise ValueError(f"noise_ratio must not be negative: {noise_ratio}")
    n_problems, size = v.shape
    n = n_players(size)
    and_weights, or_weights = tie_break_weights(n, tie_break)
    is_or = orders(n) >= 2
    weights = np.concatenate([and_weights[1:], or_weights[is_or]])

    noise_bound = noise_ratio * np.abs(v[:, -1] - v[:, 0])
    centre = v.mean(axis=1)
    scale = np.ptp(v, axis=1)
    and_effects, or_effects = np.zeros_like(v), np.zeros_like(v)
    bias, y = v[:, 0].copy(), np.zeros_like(v)
    iterations = np.zeros(n_problems, dtype=np.int64)
    for i in np.flatnonzero(scale > 0):
        x, y[i], iterations[i] = highs.solve(
            (v[i] - centre[i]) / scale[i], noise_bound[i] / scale[i], weights, method=solver
        )
        x *= scale[i]
        x[:-1][np.abs(x[:-1]) < 1e-9 * scale[i]] = 0.0
        and_effects[i, 1:] = x[: size - 1]
        or_effects[i, is_or] = x[size - 1 : -1]
        bias[i] = centre[i] + x[-1] - or_effects[i].sum()

    absolute_and, absolute_or = np.abs(and_effects), np.abs(or_effects)
    residual = reconstruct(bias, and_effects, or_effects) - v
    return Extraction(
        and_effects=and_effects,
        or_effects=or_effects,
        bias=bias,
        l1=absolute_and @ and_weights + absolute_or @ or_weights,
        l1_lower_bound=dual_bound(v, y, noise_bound, and_weights, or_weights),
        l1_plain=absolute_and.sum(axis=1) + absolute_or.sum(axis=1),
        noise_bound=noise_bound,
        max_residual=np.abs(residual).max(axis=1),
        iterations=iterations,
    )
