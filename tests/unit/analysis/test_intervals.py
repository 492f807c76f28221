"""Intervals of shares: each side as far as the logit of the share asks for."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from sft_interactions.analysis.intervals import (
    Shares,
    interval,
    jackknife_error,
    larger,
    leave_one_out,
)


def shares_of(hits, sizes, chance=0.0):
    """A share of all samples and without each."""
    share = leave_one_out(np.asarray(hits, dtype=float)) / leave_one_out(
        np.asarray(sizes, dtype=float)
    )
    return Shares.of(share, chance)


HITS, SIZES = [1, 0, 2, 1, 0, 1, 3, 0], [9, 11, 8, 10, 12, 9, 10, 7]
OTHER = [6, 7, 8, 2, 9, 3, 7, 5], [9, 11, 8, 10, 12, 9, 10, 7]


def test_the_interval_of_a_share_is_that_of_its_logit():
    value, low, high = interval(shares_of(HITS, SIZES), 0.95)
    share = leave_one_out(np.array(HITS)) / leave_one_out(np.array(SIZES))
    reach = stats.t.ppf(0.975, 7) * jackknife_error(logit(share))
    assert value == pytest.approx(8 / 76)
    assert [low, high] == pytest.approx(expit(logit(share[0]) + np.array([-reach, reach])))
    assert high - value > value - low > 0


def test_of_a_share_less_chance_it_is_moved_by_that():
    alone = interval(shares_of(HITS, SIZES), 0.95)
    above = interval(shares_of(HITS, SIZES, chance=0.05), 0.95)
    assert np.array(above) == pytest.approx(np.array(alone) - 0.05)


def test_two_shares_are_put_together_with_their_correlation():
    one, other = shares_of(HITS, SIZES), shares_of(*OTHER)
    value, low, high = interval(one - other, 0.95)
    (v1, l1, u1), (v2, l2, u2) = interval(one, 0.95), interval(other, 0.95)
    r = np.corrcoef(one.values[1:], other.values[1:])[0, 1]
    assert abs(r) > 0.1
    assert value == pytest.approx(v1 - v2)
    down = (v1 - l1) ** 2 + (u2 - v2) ** 2 - 2 * r * (v1 - l1) * (u2 - v2)
    up = (u1 - v1) ** 2 + (v2 - l2) ** 2 - 2 * r * (u1 - v1) * (v2 - l2)
    assert [value - low, high - value] == pytest.approx([down**0.5, up**0.5])
    mirrored = interval(other - one, 0.95)
    assert mirrored == pytest.approx((-value, -high, -low))


@pytest.mark.parametrize(
    "hits", [[0] * 8, SIZES, [0, 0, 0, 4, 0, 0, 0, 0]], ids=["none", "all", "of one sample"]
)
def test_a_share_that_is_none_or_all_without_a_sample_has_the_plain_interval(hits):
    found = shares_of(hits, SIZES)
    assert interval(found, 0.95) == pytest.approx(interval(found.values, 0.95))


def test_the_larger_of_two_is_so_without_each_sample_too():
    small, large = shares_of(HITS, SIZES, chance=0.02), shares_of(*OTHER)
    close = shares_of(np.roll(HITS, 3), SIZES)
    (found,) = larger(small, large).terms
    np.testing.assert_array_equal(found.values, large.values)
    np.testing.assert_array_equal(found.share, large.terms[0].share)
    (found,) = larger(close, small).terms
    np.testing.assert_array_equal(found.values, np.maximum(small.values, close.values))
    np.testing.assert_array_equal(found.share, close.terms[0].share)


def test_the_larger_of_two_is_undefined_if_one_is():
    one, nothing = shares_of(HITS, SIZES), Shares.of(np.full(9, np.nan))
    for found in (larger(one, nothing), larger(nothing, one)):
        assert interval(one - found, 0.95) == (None, None, None)


def test_fewer_than_five_samples_have_none():
    value, low, high = interval(shares_of(HITS[:4], SIZES[:4]), 0.95)
    assert value is not None
    assert low is high is None


def test_a_rare_share_is_held_where_the_plain_interval_is_too_short():
    """A tenth is shared of effects of unequal size; eight samples with six each, one with a shared one."""
    draw = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        sizes = draw.lognormal(0, 1.2, (8, 6))
        hits = sizes * (draw.random((8, 6)) < 0.1)
        if not hits.any():
            continue
        found = shares_of(hits.sum(axis=1), sizes.sum(axis=1))
        ends = [interval(one, 0.95)[1:] for one in (found, found.values)]
        held.append([low <= 0.1 <= high for low, high in ends])
    by_logit, plain = np.mean(held, axis=0)
    assert by_logit > 0.91
    assert plain < 0.85
