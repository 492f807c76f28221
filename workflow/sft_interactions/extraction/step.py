"""One predictor-corrector step (Mehrotra 1992) with centrality correctors (Gondzio 1996).

In the notation of `state`, a Newton step on the optimality conditions is, once all but Δy and Δc
are eliminated,

    (A·D·Aᵀ + E)·Δy + Δc = rhs,   ΣΔy = −Σy,   D = x⁺/s⁺ + x⁻/s⁻,   E = 1/(u⁺/t⁺ + u⁻/t⁻).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sft_interactions.extraction.certificate import analysis, synthesis
from sft_interactions.extraction.newton import NewtonSystem
from sft_interactions.extraction.state import SIGNS, State

# A corrector tries a step that is longer by this, and is kept if both steps together grow by that.
_LONGER, _GAIN = 0.3, 0.02
# Complementary products are corrected into this range around their aim, by at most the second.
_LOWEST, _HIGHEST = 0.1, 10.0
# Part of the way to the boundary that a step goes.
_SHORTENED = 0.995


@dataclass(frozen=True)
class _Direction:
    """A Newton step of every variable of `State`, in its shapes."""

    y: NDArray[np.float64]
    c: NDArray[np.float64]
    q: NDArray[np.float64]
    x: NDArray[np.float64]
    t: NDArray[np.float64]
    s: NDArray[np.float64]
    u: NDArray[np.float64]


@dataclass(frozen=True)
class _Products:
    """Products of complementary variables, or what they should become: (B, 2, 2, N), (B, 2, N)."""

    xs: NDArray[np.float64]
    ut: NDArray[np.float64]


@dataclass(frozen=True)
class _Lengths:
    """Lengths of a step, at most 1: float64 (B,) each."""

    primal: NDArray[np.float64]
    dual: NDArray[np.float64]


def advance(
    state: State,
    weights: NDArray[np.float64],
    mask: NDArray[np.bool_],
    by_columns: NDArray[np.bool_],
    correctors: int,
) -> None:
    """Move the iterate by one step.

    Args:
        state: of B problems; is changed.
        weights: (2, N), positive.
        mask: bool (2, N), which effects are variables.
        by_columns: bool (B,), whether to solve by conjugate gradients, see `NewtonSystem`.
        correctors: largest number of centrality correctors.

    Raises:
        LinAlgError: a Newton system is not positive definite to rounding.
    """
    equations = _Equations(state, weights, mask, by_columns)
    target, aim = equations.mehrotra_target()
    direction = equations.direction(target)
    lengths = equations.lengths(direction)
    for _ in range(correctors):
        trial_target = equations.centred(target, aim, direction, lengths)
        trial = equations.direction(trial_target)
        trial_lengths = equations.lengths(trial)
        better = trial_lengths.primal + trial_lengths.dual > lengths.primal + lengths.dual + _GAIN
        if not better.any():
            break
        direction = _pick_direction(better, trial, direction)
        lengths = _Lengths(
            _pick(better, trial_lengths.primal, lengths.primal),
            _pick(better, trial_lengths.dual, lengths.dual),
        )
        target = _Products(
            _pick(better, trial_target.xs, target.xs), _pick(better, trial_target.ut, target.ut)
        )
    _move(state, direction, _shortened(lengths.primal), _shortened(lengths.dual))


class _Equations:
    """The optimality conditions, linearised at an iterate."""

    def __init__(
        self,
        state: State,
        weights: NDArray[np.float64],
        mask: NDArray[np.bool_],
        by_columns: NDArray[np.bool_],
    ) -> None:
        """Residuals and factors at the iterate; the arguments are those of `advance`."""
        self._state, self._mask = state, mask
        self._sign = SIGNS[:, None]
        # Rows that are kept between two bounds; without a bound φ = v.
        self._inequality = state.rows & state.bounded
        self._on = self._inequality[:, None]
        miss = state.v + state.q - synthesis(state.effects()) - state.c[:, None]
        self._residual_p = miss * state.rows
        self._residual_s = (
            weights - self._sign[..., None] * analysis(state.y)[:, None] - state.s
        ) * mask
        self._residual_t = (
            state.bound[:, None, None] - self._sign * state.q[:, None] - state.t
        ) * self._on
        self._residual_y = (state.y + state.u[:, 0] - state.u[:, 1]) * self._inequality
        self._products = _Products(state.x * state.s, state.u * state.t)
        d = (state.x / state.s).sum(axis=1)
        slope = (state.u / state.t).sum(axis=1)
        self._e = np.where(self._inequality, 1 / np.where(self._inequality, slope, 1.0), 0.0)
        self._system = NewtonSystem(d, self._e, state.rows, by_columns)

    def direction(self, target: _Products) -> _Direction:
        """The Newton step that changes the products by `target`, to first order."""
        state = self._state
        pulled = (target.xs - state.x * self._residual_s) / state.s
        pushed = (target.ut - state.u * self._residual_t) / state.t
        rq = (pushed[:, 1] - pushed[:, 0] - self._residual_y) * self._inequality
        rhs = self._residual_p - synthesis(pulled[:, 0] - pulled[:, 1]) + self._e * rq
        dy, dc = self._system.solve(rhs * state.rows, -state.y.sum(axis=1))
        ds = (self._residual_s - self._sign[..., None] * analysis(dy)[:, None]) * self._mask
        dx = (target.xs - state.x * ds) / state.s * self._mask
        dq = self._e * (rq - dy)
        dt = (self._residual_t - self._sign * dq[:, None]) * self._on
        du = (target.ut - state.u * dt) / state.t * self._on
        return _Direction(y=dy, c=dc, q=dq, x=dx, t=dt, s=ds, u=du)

    def lengths(self, direction: _Direction) -> _Lengths:
        """How far one can go, at most 1, until a variable is 0."""
        state = self._state
        return _Lengths(
            np.minimum(_longest(state.x, direction.x), _longest(state.t, direction.t)),
            np.minimum(_longest(state.s, direction.s), _longest(state.u, direction.u)),
        )

    def mehrotra_target(self) -> tuple[_Products, NDArray[np.float64]]:
        """Mehrotra's target, to second order, and what every product should become, (B,).

        How far the affine step comes says how much to centre.
        """
        old = self._products
        affine = self.direction(_Products(-old.xs, -old.ut))
        mu = self._mean(old)
        reached = self._mean(self._products_after(affine, self.lengths(affine)))
        aim = (reached / mu) ** 3 * mu
        return _Products(
            (_along(aim, old.xs) - old.xs - affine.x * affine.s) * self._mask,
            (_along(aim, old.ut) - old.ut - affine.t * affine.u) * self._on,
        ), aim

    def centred(
        self,
        target: _Products,
        aim: NDArray[np.float64],
        direction: _Direction,
        lengths: _Lengths,
    ) -> _Products:
        """Gondzio's target: it moves the outlying products of a longer step towards the aim."""
        longer = _Lengths(
            np.minimum(1, lengths.primal + _LONGER), np.minimum(1, lengths.dual + _LONGER)
        )
        after = self._products_after(direction, longer)
        return _Products(
            (target.xs + _correction(after.xs, _along(aim, after.xs))) * self._mask,
            (target.ut + _correction(after.ut, _along(aim, after.ut))) * self._on,
        )

    def _products_after(self, direction: _Direction, lengths: _Lengths) -> _Products:
        """The products after a step."""
        state, primal, dual = self._state, lengths.primal, lengths.dual
        x = state.x + _along(primal, direction.x) * direction.x
        s = state.s + _along(dual, direction.s) * direction.s
        u = state.u + _along(dual, direction.u) * direction.u
        t = state.t + _along(primal, direction.t) * direction.t
        return _Products(x * s, u * t)

    def _mean(self, products: _Products) -> NDArray[np.float64]:
        """Mean of the products of every problem, (B,)."""
        n_pairs = 2 * self._mask.sum() + 2 * self._inequality.sum(axis=1)
        total = products.xs.sum(axis=(1, 2, 3)) + products.ut.sum(axis=(1, 2))
        mean: NDArray[np.float64] = total / n_pairs
        return mean


def _move(
    state: State,
    direction: _Direction,
    primal: NDArray[np.float64],
    dual: NDArray[np.float64],
) -> None:
    """Move every variable of the iterate along the direction."""
    state.c = state.c + primal * direction.c
    state.q = state.q + _along(primal, direction.q) * direction.q
    state.x = state.x + _along(primal, direction.x) * direction.x
    state.t = state.t + _along(primal, direction.t) * direction.t
    state.y = state.y + _along(dual, direction.y) * direction.y
    state.s = state.s + _along(dual, direction.s) * direction.s
    state.u = state.u + _along(dual, direction.u) * direction.u


def _along(a: NDArray[np.float64], like: NDArray[np.float64]) -> NDArray[np.float64]:
    """A number per problem, (B,), in as many dimensions as another array."""
    return a.reshape(a.shape + (1,) * (like.ndim - 1))


def _longest(value: NDArray[np.float64], change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per problem, (B,), the longest step ≤ 1 that keeps the values at least 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(change < 0, -value / change, np.inf)
    shortest: NDArray[np.float64] = ratio.reshape(len(value), -1).min(axis=1)
    return np.minimum(1.0, shortest)


def _shortened(length: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths that stay off the boundary; a whole step is taken as it is."""
    return np.where(length < 1, _SHORTENED * length, 1.0)


def _correction(product: NDArray[np.float64], aim: NDArray[np.float64]) -> NDArray[np.float64]:
    """How a product changes to come into the range around the aim."""
    change = np.clip(product, _LOWEST * aim, _HIGHEST * aim) - product
    return np.maximum(change, -_HIGHEST * aim)


def _pick(
    better: NDArray[np.bool_], new: NDArray[np.float64], old: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The new values of the problems, (B,), where they are better."""
    return np.where(better.reshape(better.shape + (1,) * (old.ndim - 1)), new, old)


def _pick_direction(better: NDArray[np.bool_], new: _Direction, old: _Direction) -> _Direction:
    """The new direction of the problems, (B,), where it is better."""
    return _Direction(
        y=_pick(better, new.y, old.y),
        c=_pick(better, new.c, old.c),
        q=_pick(better, new.q, old.q),
        x=_pick(better, new.x, old.x),
        t=_pick(better, new.t, old.t),
        s=_pick(better, new.s, old.s),
        u=_pick(better, new.u, old.u),
    )
