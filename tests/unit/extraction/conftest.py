"""Tables of log-odds that the tests of the extraction share."""

from pathlib import Path

import numpy as np
import pytest

from sft_interactions.extraction import reconstruct
from sft_interactions.extraction.tie_break import tie_break_weights

REAL_V = Path(__file__).parents[3] / "benchmarks" / "extraction_v.npz"


@pytest.fixture(scope="session")
def real_v():
    """Log-odds of SmolLM2 on masked tweets, {n: (problems, 2^n)}."""
    with np.load(REAL_V) as archive:
        return {int(name[1:]): archive[name].astype(np.float64) for name in archive}


def _random_v(seed, n, batch=1):
    rng = np.random.default_rng(seed)
    size = 1 << n
    decay = 0.5 ** np.array([mask.bit_count() for mask in range(size)])
    effects = rng.normal(size=(2, batch, size)) * decay
    effects[:, :, 0] = 0
    phi = reconstruct(rng.normal(size=batch), effects[0], effects[1])
    return phi + 0.01 * rng.normal(size=phi.shape)


@pytest.fixture(scope="session")
def random_v():
    """(seed, n, batch) to (batch, 2^n) v, something like a model's.

    Low orders dominate, and there is noise on every mask.
    """
    return _random_v


@pytest.fixture(scope="session")
def scaled_problems():
    """(seed, n, batch, noise_ratio) to v, bounds and weights as the solvers take them."""

    def make(seed, n, batch=1, noise_ratio=0.04):
        v = _random_v(seed, n, batch)
        v = (v - v.mean(axis=1, keepdims=True)) / np.ptp(v, axis=1, keepdims=True)
        bound = noise_ratio * np.abs(v[:, -1] - v[:, 0])
        return v, bound, np.stack(tie_break_weights(n, "canonical"))

    return make
