"""Fast transforms against sums over subsets written out."""

import numpy as np
import pytest

from sft_interactions.extraction import transforms


def brute_force(f, contributes):
    size = len(f)
    return np.array([sum(f[t] for t in range(size) if contributes(t, s)) for s in range(size)])


@pytest.mark.parametrize("n", range(7))
def test_against_brute_force(n):
    f = np.random.default_rng(n).normal(size=1 << n)
    subset = brute_force(f, lambda t, s: t & s == t)
    superset = brute_force(f, lambda t, s: t & s == s)
    np.testing.assert_allclose(transforms.subset_sums(f), subset, atol=1e-12)
    np.testing.assert_allclose(transforms.superset_sums(f), superset, atol=1e-12)
    signed = [
        sum((-1) ** (t.bit_count() - s.bit_count()) * f[s] for s in range(1 << n) if s & t == s)
        for t in range(1 << n)
    ]
    np.testing.assert_allclose(transforms.moebius(f), signed, atol=1e-12)
    np.testing.assert_array_equal(transforms.orders(n), [t.bit_count() for t in range(1 << n)])
    assert transforms.orders(n).dtype == np.uint8


# 11 to 16 players take three or four matrix products, which small n do not reach.
@pytest.mark.parametrize("n", [9, 11, 14, 16])
def test_large_and_batched(n):
    f = np.random.default_rng(n).integers(-5, 6, size=(2, 3, 1 << n)).astype(np.float64)
    g = transforms.subset_sums(f)
    assert g.shape == f.shape
    np.testing.assert_array_equal(transforms.moebius(g), f)
    rng = np.random.default_rng(0)
    for s in rng.integers(0, 1 << n, size=5):
        inside = np.arange(1 << n) & s == np.arange(1 << n)
        np.testing.assert_array_equal(g[..., s], f[..., inside].sum(axis=-1))
    h = np.random.default_rng(1).integers(-5, 6, size=f.shape)
    assert (transforms.subset_sums(f) * h).sum() == (f * transforms.superset_sums(h)).sum()


def test_input_is_not_changed():
    f = np.arange(8.0)
    transforms.subset_sums(f)
    np.testing.assert_array_equal(f, np.arange(8.0))
    alone = np.array([2.0])
    assert not np.shares_memory(transforms.subset_sums(alone), alone)


@pytest.mark.parametrize("size", [0, 3, 12])
def test_size_must_be_a_power_of_two(size):
    with pytest.raises(ValueError, match="power of two"):
        transforms.subset_sums(np.zeros(size))


def test_number_of_players():
    assert [transforms.n_players(1 << n) for n in range(17)] == list(range(17))


def test_complement_is_the_value_at_the_other_players():
    f = np.random.default_rng(0).normal(size=(2, 16))
    expected = f[:, [15 ^ mask for mask in range(16)]]
    np.testing.assert_array_equal(transforms.complement(f), expected)


def test_orders_are_shared_and_cannot_be_changed():
    assert transforms.orders(4) is transforms.orders(4)
    with pytest.raises(ValueError, match="read-only"):
        transforms.orders(4)[0] = 1
