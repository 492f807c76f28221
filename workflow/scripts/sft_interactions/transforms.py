"""Subset-sum transforms of functions on the subsets of n players, in O(n 2^n).

A function on the subsets is an array whose last axis has length 2^n and is indexed by the bit mask
of the subset (bit k set = player k is in it). Leading axes are a batch. Every function returns a
new float64 array of the shape of its input.
"""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray


def n_players(size: int) -> int:
    """Number of players n of an axis of length 2^n.

    Raises:
        ValueError: `size` is not a power of two.
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"the last axis has {size} entries, which is not a power of two")
    return size.bit_length() - 1


@cache
def orders(n: int) -> NDArray[np.uint8]:
    """Number of players |T| of every subset T of n players, uint8[2^n], read-only."""
    order = np.zeros(1, dtype=np.uint8)
    for _ in range(n):
        order = np.concatenate([order, order + 1])
    order.flags.writeable = False
    return order


def _halves(f: ArrayLike):
    """A float64 copy of f and, player by player, its views without and with that player."""
    out = np.array(f, dtype=np.float64, order="C")
    n = n_players(out.shape[-1])
    return out, (
        (block[:, 0], block[:, 1]) for block in (out.reshape(-1, 2, 1 << k) for k in range(n))
    )


def subset_sums(f: ArrayLike) -> NDArray[np.float64]:
    """Zeta transform g(S) = sum of f(T) over T ⊆ S."""
    out, halves = _halves(f)
    for without, with_player in halves:
        with_player += without
    return out


def superset_sums(f: ArrayLike) -> NDArray[np.float64]:
    """Transpose of the zeta transform: g(T) = sum of f(S) over S ⊇ T."""
    out, halves = _halves(f)
    for without, with_player in halves:
        without += with_player
    return out


def moebius(f: ArrayLike) -> NDArray[np.float64]:
    """Möbius transform, the inverse of `subset_sums`: Σ_{L⊆T} (−1)^{|T|−|L|} f(L).

    Of v it is the Harsanyi dividend, the AND interaction of arXiv 2605.17967.
    """
    out, halves = _halves(f)
    for without, with_player in halves:
        with_player -= without
    return out


def complement(f: NDArray[np.float64]) -> NDArray[np.float64]:
    """View of f at the complements: g(S) = f(N∖S)."""
    return f[..., ::-1]
