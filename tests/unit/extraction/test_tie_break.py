"""The weights of the tie-break: their order, their size, no ties."""

import numpy as np
import pytest

from sft_interactions.extraction.tie_break import (
    TIE_BREAK_SIZE,
    TIE_BREAKS,
    splitmix64,
    tie_break_weights,
)
from sft_interactions.extraction.transforms import orders


def test_hash_is_splitmix64():
    # The first outputs of the generator of Vigna (prng.di.unimi.it/splitmix64.c) of this seed.
    increment = 0x9E3779B97F4A7C15
    states = np.array([1234567 + k * increment & (1 << 64) - 1 for k in range(3)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_plain_weights_are_one():
    for weights in tie_break_weights(5, "plain"):
        np.testing.assert_array_equal(weights, np.ones(32))


@pytest.mark.parametrize("name", sorted(set(TIE_BREAKS) - {"plain"}))
def test_weights_are_near_one_and_without_ties(name):
    weights = np.concatenate(tie_break_weights(12, name))
    assert np.abs(weights - 1).max() <= 1.3 * TIE_BREAK_SIZE
    assert len(np.unique(weights)) == weights.size


def test_canonical_weights_prefer_low_orders_then_and():
    n = 4
    and_weights, or_weights = tie_break_weights(n, "canonical")
    for order in range(n):
        of_order, above = orders(n) == order, orders(n) == order + 1
        assert and_weights[of_order].max() < and_weights[above].min()
        assert and_weights[of_order].max() < or_weights[of_order].min()
        assert or_weights[of_order].max() < or_weights[above].min()


def test_a_tie_break_prefers_high_orders():
    n = 4
    and_weights, or_weights = tie_break_weights(n, "high_order")
    for order in range(n):
        of_order, above = orders(n) == order, orders(n) == order + 1
        assert and_weights[above].max() < and_weights[of_order].min()
        assert or_weights[above].max() < or_weights[of_order].min()
        assert and_weights[of_order].max() < or_weights[of_order].min()
    assert and_weights.min() > 0


def test_another_tie_break_prefers_or():
    and_weights, or_weights = tie_break_weights(4, "prefer_or")
    assert (or_weights < and_weights).all()


def test_seeds_differ():
    weights = [np.stack(tie_break_weights(6, name)) for name in ("canonical", "hash-1", "hash-2")]
    assert (weights[0] != weights[1]).all()
    assert (weights[1] != weights[2]).all()


def test_weights_are_shared_and_cannot_be_changed():
    assert tie_break_weights(3, "canonical") is tie_break_weights(3, "canonical")
    for weights in tie_break_weights(3, "canonical"):
        with pytest.raises(ValueError, match="read-only"):
            weights[0] = 2


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown tie-break 'alphabetical', choose from"):
        tie_break_weights(3, "alphabetical")
