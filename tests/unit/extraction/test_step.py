"""One step of the interior point."""

import numpy as np
import pytest

from sft_interactions.extraction.certificate import analysis, effect_mask, synthesis
from sft_interactions.extraction.state import SIGNS, State
from sft_interactions.extraction.step import advance

N = 5
MASK = effect_mask(N)


def start(scaled_problems, noise_ratio, batch=2):
    v, bound, weights = scaled_problems(1, N, batch=batch, noise_ratio=noise_ratio)
    weights = np.where(MASK, weights, 1.0)
    return State.start(v, bound, weights, MASK), weights


def infeasibility(state, weights):
    """Largest violation of the equations of every problem."""
    primal = state.v + state.q - synthesis(state.effects()) - state.c[:, None]
    dual = weights - SIGNS[:, None, None] * analysis(state.y)[:, None] - state.s
    return np.maximum(
        np.abs(primal).max(axis=1), np.abs(dual * MASK).reshape(len(dual), -1).max(axis=1)
    )


def steps(state, weights, number, *, by_columns=False, correctors=2):
    chosen = np.full(len(state.v), by_columns)
    with np.errstate(all="ignore"):
        for _ in range(number):
            advance(state, weights, MASK, chosen, correctors)


@pytest.mark.parametrize("noise_ratio", [0.0, 0.04])
@pytest.mark.parametrize("correctors", [0, 2])
def test_steps_lead_to_a_feasible_point_with_a_small_gap(scaled_problems, noise_ratio, correctors):
    state, weights = start(scaled_problems, noise_ratio)
    before = infeasibility(state, weights)
    steps(state, weights, 12, correctors=correctors)
    assert (infeasibility(state, weights) < 1e-3 * before).all()
    assert (state.relative_gap(weights) < 1e-2).all()


@pytest.mark.parametrize("noise_ratio", [0.0, 0.04])
def test_variables_stay_positive(scaled_problems, noise_ratio):
    state, weights = start(scaled_problems, noise_ratio)
    for _ in range(8):
        steps(state, weights, 1)
        assert (state.x[:, :, MASK] > 0).all()
        assert (state.s[:, :, MASK] > 0).all()
        assert (state.t > 0).all()
        assert ((state.u > 0) | ~state.bounded[:, None]).all()
        assert not state.x[:, :, ~MASK].any()


def test_conjugate_gradients_make_progress_too(scaled_problems):
    state, weights = start(scaled_problems, 0.04)
    steps(state, weights, 15, by_columns=True, correctors=0)
    assert (state.relative_gap(weights) < 0.1).all()


def test_a_problem_does_not_depend_on_the_others_of_its_batch(scaled_problems):
    together, weights = start(scaled_problems, 0.04, batch=3)
    alone = together.take(np.array([False, True, False]))
    steps(together, weights, 3)
    steps(alone, weights, 3)
    np.testing.assert_allclose(alone.x[0], together.x[1], atol=1e-9)
    np.testing.assert_allclose(alone.y[0], together.y[1], atol=1e-9)
