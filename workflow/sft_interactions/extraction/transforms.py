"""Subset-sum transforms of functions on the subsets of n players.

The Kronecker structure is used in blocks of a few players, so a transform costs O(n 2^n) times a
constant and no 2^n × 2^n matrix is ever formed.

A function on the subsets is an array whose last axis has length 2^n and is indexed by the bit mask
of the subset (bit k set = player k is in it). Leading axes are a batch.
"""

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Kind = Literal["zeta", "moebius"]
_ONE_PLAYER: dict[_Kind, list[list[float]]] = {
    "zeta": [[1.0, 0.0], [1.0, 1.0]],
    "moebius": [[1.0, 0.0], [-1.0, 1.0]],
}
# Players per matrix product: small enough to cost little more than the additions it replaces, large
# enough that a transform is two or three BLAS calls instead of n strided passes.
_BLOCK = 5


def n_players(size: int) -> int:
    """Number of players n of an axis of length 2^n.

    Args:
        size: length of the axis.

    Raises:
        ValueError: `size` is not a power of two.
    """
    if size < 1 or size & (size - 1):
        raise ValueError(f"the last axis has {size} entries, which is not a power of two")
    return size.bit_length() - 1


@cache
def orders(n: int) -> NDArray[np.uint8]:
    """Order |T|, the number of players, of every subset T of n players.

    Returns:
        uint8 (2^n,), read-only.
    """
    order = np.zeros(1, dtype=np.uint8)
    for _ in range(n):
        order = np.concatenate([order, order + 1])
    order.flags.writeable = False
    return order


@cache
def _power(kind: _Kind, n: int) -> NDArray[np.float64]:
    """Kronecker power of the transform of one player.

    Args:
        kind: which transform.
        n: players, at most `_BLOCK`.

    Returns:
        float64 (2^n, 2^n).
    """
    power: NDArray[np.float64] = np.ones((1, 1))
    for _ in range(n):
        power = np.kron(np.array(_ONE_PLAYER[kind]), power)
    return power


def _apply(kind: _Kind, f: ArrayLike, *, transpose: bool = False) -> NDArray[np.float64]:
    """Apply the Kronecker power of the transform of one player along the last axis of f."""
    values = np.asarray(f, dtype=np.float64)
    n = n_players(values.shape[-1])
    n_blocks = max(1, -(-n // _BLOCK))
    batch = values.shape[:-1]
    out, inner = values, 1
    for block in range(n_blocks):
        k = (n + block) // n_blocks
        power = _power(kind, k).T if transpose else _power(kind, k)
        if inner == 1:
            out = out.reshape(*batch, -1, 1 << k) @ power.T
        else:
            out = power @ out.reshape(*batch, -1, 1 << k, inner)
        inner <<= k
    return out.reshape(values.shape)


def subset_sums(f: ArrayLike) -> NDArray[np.float64]:
    """Zeta transform g(S) = Σ f(T) over T ⊆ S.

    Args:
        f: (..., 2^n).

    Returns:
        A new float64 (..., 2^n).

    Raises:
        ValueError: the last axis is no power of two.
    """
    return _apply("zeta", f)


def superset_sums(f: ArrayLike) -> NDArray[np.float64]:
    """Transpose of the zeta transform: g(T) = Σ f(S) over S ⊇ T.

    Args:
        f: (..., 2^n).

    Returns:
        A new float64 (..., 2^n).

    Raises:
        ValueError: the last axis is no power of two.
    """
    return _apply("zeta", f, transpose=True)


def moebius(f: ArrayLike) -> NDArray[np.float64]:
    """Möbius transform, the inverse of `subset_sums`: g(T) = Σ_{L⊆T} (−1)^{|T|−|L|} f(L).

    Of v it is the Harsanyi dividend, the AND interaction of arXiv 2605.17967.

    Args:
        f: (..., 2^n).

    Returns:
        A new float64 (..., 2^n).

    Raises:
        ValueError: the last axis is no power of two.
    """
    return _apply("moebius", f)


def complement(f: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values at the complements: g(S) = f(N∖S).

    Args:
        f: (..., 2^n).

    Returns:
        float64 (..., 2^n), a view of f.
    """
    return f[..., ::-1]
