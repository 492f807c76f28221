"""Factors of the normal matrix A·D·Aᵀ + E of one problem, exact and approximate.

A is that of `certificate`, D the diagonal of the effects' weights d (2, 2^n), E that of the rows' e
(2^n,). Two facts, both ours, make it cheap:

- (A·D·Aᵀ)[S,S'] = zeta(D_and)[S∩S'] + zeta(D_or)[N∖(S∪S')] is a look-up in two tables of 2^n, so
  the matrix of any rows can be written down without A.
- While many rows matter, few columns do: A_K·D_K·A_Kᵀ + diagonal, with K the columns that have
  weight, is close to the matrix and is inverted by the Woodbury identity.
"""

from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from sft_interactions.extraction.certificate import analysis, synthesis
from sft_interactions.extraction.transforms import (
    complement,
    n_players,
    orders,
    subset_sums,
    superset_sums,
)

# Rows of a tile of a Cholesky factor.
_TILE = 1024
_MAX_COLUMNS = 6000
# Rows of a Gram matrix that are looked up together, so that the indices stay in the cache.
_GRAM_ROWS = 256
# Relative jitter of the diagonal: what is tried first, and where to give up.
_JITTER, _MAX_JITTER = 1e-15, 1e-9


class Factor(Protocol):
    """What solves with the normal matrix, or with one close to it."""

    def solve(self, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Solution (2^n,) for a right-hand side (2^n,)."""
        ...


class TiledCholesky:
    """Cholesky factor of a symmetric matrix in square tiles, of which half are kept.

    The matrix is (entry(labels, labels) + diag(added)) with its diagonal multiplied by `factor`.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        entry: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]],
        added: NDArray[np.float64],
        factor: float = 1.0,
        tile: int = _TILE,
    ) -> None:
        """Build and factorise the matrix.

        Args:
            labels: (size,) what names the rows and columns.
            entry: gives the entries of two arrays of labels, elementwise with broadcasting.
            added: (size,) to add to the diagonal.
            factor: to multiply the diagonal with thereafter.
            tile: rows of a tile.

        Raises:
            LinAlgError: the matrix is not positive definite.
        """
        self._starts = np.arange(0, len(labels), tile)[1:]
        parts = np.split(labels, self._starts)
        self._tiles: list[list[NDArray[np.float64]]] = []
        for i, own in enumerate(parts):
            # By symmetry a transposed tile, which is contiguous as LAPACK wants it: so the calls
            # below work in place.
            row = [entry(other[:, None], own).T for other in parts[: i + 1]]
            at = np.arange(len(own))
            row[i][at, at] = (row[i][at, at] + added[i * tile : i * tile + len(own)]) * factor
            self._tiles.append(row)
        for j in range(len(parts)):
            self._factorise_column(j)

    def _factorise_column(self, j: int) -> None:
        """Factorise the tiles (i, j), i ≥ j, in place, those to their left being factorised."""
        row = self._tiles[j]
        for k in range(j):
            row[j] = blas.dsyrk(-1.0, row[k], 1.0, row[j], lower=1, overwrite_c=1)
        row[j], info = lapack.dpotrf(row[j], lower=1, overwrite_a=1, clean=0)
        if info:
            raise np.linalg.LinAlgError("the matrix is not positive definite")
        for below in self._tiles[j + 1 :]:
            for k in range(j):
                below[j] = blas.dgemm(
                    -1.0, below[k], row[k], 1.0, below[j], trans_b=1, overwrite_c=1
                )
            below[j] = blas.dtrsm(1.0, row[j], below[j], side=1, lower=1, trans_a=1, overwrite_b=1)

    def solve(self, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Solve with the matrix.

        Args:
            rhs: (size,).

        Returns:
            float64 (size,).
        """
        parts = [part.copy() for part in np.split(rhs, self._starts)]
        for i, row in enumerate(self._tiles):
            for k in range(i):
                parts[i] -= row[k] @ parts[k]
            parts[i] = blas.dtrsv(row[i], parts[i], lower=1)
        for i in reversed(range(len(parts))):
            for k in range(i + 1, len(parts)):
                parts[i] -= self._tiles[k][i].T @ parts[k]
            parts[i] = blas.dtrsv(self._tiles[i][i], parts[i], lower=1, trans=1)
        return np.concatenate(parts)


class RowFactor:
    """Cholesky factor of A·D·Aᵀ + E + shift·11ᵀ on the working rows.

    The free constant makes the limit of A·D·Aᵀ + E regular. Its weight, the shift, is arbitrary,
    since it does not act on steps with a given sum.
    """

    def __init__(
        self, d: NDArray[np.float64], e: NDArray[np.float64], rows: NDArray[np.bool_]
    ) -> None:
        """Factorise, with a jitter on the diagonal if it must be.

        Args:
            d: (2, 2^n) weights of the effects, at least 0.
            e: (2^n,) weights of the rows, at least 0.
            rows: bool (2^n,), the working rows.

        Raises:
            LinAlgError: the matrix is not positive definite to rounding.
        """
        self._rows = np.flatnonzero(rows)
        self._shift = d.max()
        sums = subset_sums(d)
        self._meet, self._join = sums[0], complement(sums[1]).copy()
        added = e[self._rows]
        jitter = 0.0
        while True:
            try:
                self._factor = TiledCholesky(self._rows, self._entry, added, 1 + jitter)
                return
            except np.linalg.LinAlgError:
                if jitter > _MAX_JITTER:
                    raise
            jitter = max(_JITTER, 10 * jitter)

    def _entry(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
        """Entries of A·D·Aᵀ + shift·11ᵀ at two arrays of masks."""
        entries: NDArray[np.float64] = self._meet.take(a & b) + self._join.take(a | b) + self._shift
        return entries

    def solve(self, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Solve on the working rows.

        Args:
            rhs: (2^n,).

        Returns:
            float64 (2^n,), 0 off the working rows.
        """
        out = np.zeros_like(rhs)
        out[self._rows] = self._factor.solve(rhs[self._rows])
        return out


class ColumnFactor:
    """Preconditioner A_K·D_K·A_Kᵀ + diagonal + shift·11ᵀ on all rows, by the Woodbury identity.

    K are the columns with the most weight; the others enter the diagonal. For the shift see
    `RowFactor`.
    """

    def __init__(self, d: NDArray[np.float64], e: NDArray[np.float64]) -> None:
        """Choose the columns and factorise their Gram matrix.

        Args:
            d: (2, 2^n) weights of the effects, at least 0.
            e: (2^n,) weights of the rows, positive.

        Raises:
            LinAlgError: the Gram matrix is singular to rounding.
        """
        flat = d.ravel()
        self._columns = columns = _heavy_columns(d, e)
        self._inverse = _inverse_of_rest(d, e, columns)
        self._root = np.sqrt(np.append(flat[columns], flat.max()))
        matrix = _gram(columns, self._inverse)
        matrix *= self._root
        matrix *= self._root[:, None]
        at = np.arange(len(matrix))
        matrix[at, at] += 1.0
        self._factor: NDArray[np.float64]
        self._factor, info = lapack.dpotrf(matrix.T, lower=0, overwrite_a=1, clean=0)
        if info:
            raise np.linalg.LinAlgError("the preconditioner is singular")

    def solve(self, rhs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Apply the inverse of the preconditioner.

        Args:
            rhs: (2^n,).

        Returns:
            float64 (2^n,).
        """
        r = rhs * self._inverse
        z = np.append(analysis(r).ravel()[self._columns], r.sum()) * self._root
        z = lapack.dpotrs(self._factor, z, lower=0)[0] * self._root
        effects = np.zeros(2 * len(rhs))
        effects[self._columns] = z[:-1]
        solution: NDArray[np.float64] = (
            r - (synthesis(effects.reshape(2, -1)) + z[-1]) * self._inverse
        )
        return solution


def _inverse_of_rest(
    d: NDArray[np.float64], e: NDArray[np.float64], columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Inverse (2^n,) of the diagonal of A·D·Aᵀ + E without the columns, flat indices of d."""
    rest = d.ravel().copy()
    rest[columns] = 0.0
    and_rest, or_rest = rest.reshape(d.shape)
    return 1 / (e + (subset_sums(and_rest) + complement(subset_sums(or_rest))))


def _heavy_columns(d: NDArray[np.float64], e: NDArray[np.float64]) -> NDArray[np.intp]:
    """Flat indices, ascending, of the columns that weigh more than the rest of the matrix.

    What the rest is, is guessed first: all but those with the largest norm.
    """
    size = len(e)
    n = n_players(size)
    norm = d * np.exp2(n - orders(n).astype(np.float64))
    n_guessed = size * 35 // 100
    guessed = np.argpartition(-norm.ravel(), n_guessed)[:n_guessed]
    inverse = _inverse_of_rest(d, e, guessed)
    by_column = np.stack([superset_sums(inverse), complement(subset_sums(inverse))])
    leverage = d.ravel() * by_column.ravel()
    columns = np.flatnonzero(leverage > 1.0)
    limit = min(size // 4, _MAX_COLUMNS)
    if len(columns) > limit:
        columns = np.sort(np.argpartition(-leverage, limit)[:limit])
    return columns


def _gram(columns: NDArray[np.intp], r: NDArray[np.float64]) -> NDArray[np.float64]:
    """[A_K 1]ᵀ·diag(r)·[A_K 1] in its lower triangle; the upper one is filled in part.

    Args:
        columns: (k,) flat indices of K, ascending.
        r: (2^n,).

    Returns:
        float64 (k + 1, k + 1).
    """
    size = len(r)
    ands, ors = columns[columns < size], columns[columns >= size] - size
    n_and = len(ands)
    supersets, avoiding = superset_sums(r), complement(subset_sums(r)).copy()
    disjoint, ternary = _disjoint_sums(r), _ternary_index(n_players(size))
    # Not empty: what the memory held before would be scaled with the rest, and could overflow.
    gram = np.zeros((len(columns) + 1, len(columns) + 1))
    for start in range(0, n_and, _GRAM_ROWS):
        part = ands[start : start + _GRAM_ROWS, None]
        gram[start : start + len(part), :n_and] = supersets.take(part | ands)
    for start in range(0, len(ors), _GRAM_ROWS):
        part = ors[start : start + _GRAM_ROWS, None]
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


@cache
def _ternary_index(n: int) -> NDArray[np.int64]:
    """int64 (2^n,): Σ 3^k over the players k of every mask."""
    index = np.zeros(1, dtype=np.int64)
    for k in range(n):
        index = np.concatenate([index, index + 3**k])
    return index


def _disjoint_sums(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 (3^n,): Σ r(S) over S ⊇ T, S ∩ T' = ∅, at index ternary(T) + 2·ternary(T')."""
    table, width = r.reshape(-1, 1), 1
    for _ in range(n_players(len(r))):
        halves = table.reshape(-1, 2, width)
        without, with_player = halves[:, 0], halves[:, 1]
        table = np.concatenate([without + with_player, with_player, without], axis=1)
        width *= 3
    return table.ravel()
