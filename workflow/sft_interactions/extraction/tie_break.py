"""Weights that make the optimum of the program unique: the tie-break.

The plain program, with all weights 1, has many optima. Weights near 1 that differ choose one of
them, the same whatever the solver. Low orders come first, then AND, then a fixed order of patterns;
other tie-breaks show what hangs on that.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sft_interactions.extraction.transforms import orders

TIE_BREAK_SIZE = 1e-3


@dataclass(frozen=True)
class TieBreak:
    """What the weight of an interaction depends on, in multiples of `TIE_BREAK_SIZE`.

    Attributes:
        by_order: factor of |T|/n.
        by_or: added to the weights of OR interactions.
        by_hash: factor of the hash of type and mask, which is in [0, 1).
        seed: of the hash.
    """

    by_order: float
    by_or: float
    by_hash: float
    seed: int


TIE_BREAKS = {
    "plain": TieBreak(by_order=0.0, by_or=0.0, by_hash=0.0, seed=0),
    "canonical": TieBreak(by_order=1.0, by_or=0.2, by_hash=0.1, seed=0),
    "hash-1": TieBreak(by_order=1.0, by_or=0.2, by_hash=0.1, seed=1),
    "hash-2": TieBreak(by_order=1.0, by_or=0.2, by_hash=0.1, seed=2),
    "prefer_or": TieBreak(by_order=1.0, by_or=-0.2, by_hash=0.1, seed=0),
    "high_order": TieBreak(by_order=-1.0, by_or=0.2, by_hash=0.1, seed=0),
}


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014, OOPSLA), a strong 64-bit hash.

    Args:
        x: uint64, of any shape.

    Returns:
        uint64 of the same shape.
    """
    # Arithmetic modulo 2^64 is meant.
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


@cache
def tie_break_weights(n: int, tie_break: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of |I(T)| and |J(T)|, within 1 ± 1.3·`TIE_BREAK_SIZE`.

    w(T) = 1 + ε·(|T|/n + 0.2·[T is OR] + 0.1·h(T)), with ε = `TIE_BREAK_SIZE` and the numbers those
    of "canonical"; h(T) in [0, 1) is the splitmix64 hash of the seed, the type and the mask. This
    tie-break is ours. A weak hash would leave ties.

    Args:
        n: number of players, at most 16.
        tie_break: a name of `TIE_BREAKS`.

    Returns:
        Two float64 (2^n,), read-only.

    Raises:
        ValueError: unknown name of a tie-break.
    """
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"unknown tie-break {tie_break!r}, choose from {sorted(TIE_BREAKS)}")
    chosen = TIE_BREAKS[tie_break]
    masks = np.arange(1 << n, dtype=np.uint64)
    by_order = chosen.by_order * orders(n) / n
    weights = []
    for is_or in (0, 1):
        key = masks | np.uint64(is_or << 16 | chosen.seed << 17)
        # The upper 53 bits: as many as a float64 holds.
        h = (splitmix64(key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        w = 1 + TIE_BREAK_SIZE * (by_order + chosen.by_or * is_or + chosen.by_hash * h)
        w.flags.writeable = False
        weights.append(w)
    return weights[0], weights[1]
