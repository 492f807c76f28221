"""Shares of perturbed extractions, against a count by hand."""

import numpy as np
import polars as pl
import polars.testing
import pytest

from sft_interactions import tables
from sft_interactions.analysis import stability
from sft_interactions.analysis.salience import select_salient
from sft_interactions.analysis.selection import Selector, extract_with_shares, list_draws
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import NOISE_SCALES, extract, reconstruct

SALIENCE = {"rule": "max_effect", "threshold": 0.1}
SAMPLES = ["a", "b", "c"]
SELECTION = {
    "draws": 4,
    "noise": 0.05,
    "noise_ratios": [0.02, 0.04, 0.08],
    "tie_breaks": ["canonical", "high_order", "prefer_or", "hash-1"],
}


@pytest.fixture(scope="module")
def values():
    """Sparse AND-OR models of 3 players plus noise; of the last sample v(N) and v(empty) are close."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(2, 3, 8)) * (rng.random((2, 3, 8)) < 0.5)
    effects[:, :, 0] = 0
    v = reconstruct(np.zeros(3), *effects) + 0.05 * rng.normal(size=(3, 8))
    v[2, 7] = v[2, 0] + 0.1
    return v


def canonical(values, samples=SAMPLES, **settings):
    return from_extraction(samples, values, extract(values, **settings))


def count_by_hand(interactions, values, scale, error):
    """Share of every row of the interactions, from one problem at a time and without tables."""
    difference = np.abs(values[:, -1] - values[:, 0])
    size = {
        "sample": difference,
        "mean": np.full(3, difference.mean()),
        "range": np.ptp(values, axis=1),
    }[scale]
    hits = dict.fromkeys(interactions.select("sample_id", "kind", "pattern").rows(), 0)
    signs = dict(zip(hits, np.sign(interactions["effect"]), strict=True))
    for number in range(SELECTION["draws"]):
        noise = stability.perturb(
            # Alone, so that the noise has the size 1.
            np.tile(np.arange(8) / 7, (3, 1)),
            SAMPLES,
            stability.Perturbation("noise-0.05", 1.0),
            f"selection-{number}",
            seed=3,
        ) - np.tile(np.arange(8) / 7, (3, 1))
        noisy = values + noise * np.hypot(SELECTION["noise"] * size, error)[:, None]
        moved = np.abs(noisy[:, -1] - noisy[:, 0])
        bound = {
            "sample": moved,
            "mean": np.full(3, moved.mean()),
            "range": np.ptp(noisy, axis=1),
        }[scale] * SELECTION["noise_ratios"][number % 3]
        for row, sample_id in enumerate(SAMPLES):
            solved = extract(
                noisy[[row]],
                noise_bound=bound[[row]],
                tie_break=SELECTION["tie_breaks"][number],
            )
            effects = {"and": solved.and_effects[0], "or": solved.or_effects[0]}
            largest = max(np.abs(part).max() for part in effects.values())
            for kind, part in effects.items():
                for pattern in np.flatnonzero((np.abs(part) >= 0.1 * largest) & (part != 0)):
                    key = (sample_id, kind, int(pattern))
                    hits[key] = hits.get(key, 0) + (signs.get(key) == np.sign(part[pattern]))
    return [hits[key] / SELECTION["draws"] for key in signs]


@pytest.mark.parametrize("scale", NOISE_SCALES)
@pytest.mark.parametrize("error", [0.0, 0.2])
def test_shares_by_hand(values, scale, error):
    interactions, _ = canonical(values, noise_scale=scale)
    found = Selector(SELECTION, SALIENCE, 3, scale)(interactions, values, SAMPLES, error=error)
    assert found.drop("share").equals(interactions)
    tables.check(found, tables.SELECTION, "test")
    is_bias = found["kind"] == "bias"
    assert found.filter(is_bias)["share"].to_list() == [None] * 3
    effects = found.filter(~is_bias)
    assert effects["share"].to_list() == count_by_hand(effects, values, scale, error)
    assert effects["share"].n_unique() > 1


@pytest.mark.parametrize("scale", NOISE_SCALES)
def test_shares_depend_neither_on_the_order_of_samples_nor_on_those_left_out(values, scale):
    selector = Selector(SELECTION, SALIENCE, 3, scale)
    interactions, _ = canonical(values, noise_scale=scale)
    together = selector(interactions, values, SAMPLES)
    back = selector(interactions[::-1], values[::-1], SAMPLES[::-1])
    pl.testing.assert_frame_equal(back[::-1], together)
    first = interactions.filter(pl.col("sample_id") == "a")
    alone = selector(first, values, SAMPLES, n_samples=1)
    pl.testing.assert_frame_equal(alone, together.filter(pl.col("sample_id") == "a"))
    other = Selector(SELECTION, SALIENCE, 4, scale)(interactions, values, SAMPLES)
    assert not other.equals(together)


def test_without_a_perturbation_all_that_is_salient_is_found_again(values):
    same = {"draws": 2, "noise": 1e-12, "noise_ratios": [0.04], "tie_breaks": ["canonical"]}
    for rule in ("max_effect", "stable"):
        selector = Selector(same, {"rule": rule, "threshold": 0.1}, 0)
        found, solve = extract_with_shares(values, SAMPLES, selector)
        salient = select_salient(found, solve, **SALIENCE)
        assert 0 < len(salient) < found["share"].count()
        assert found["share"].drop_nulls().sum() == len(salient)
        assert set(found["share"]) == {0.0, 1.0, None}


def test_another_sign_is_another_interaction(values):
    same = {"draws": 1, "noise": 1e-12, "noise_ratios": [0.04], "tie_breaks": ["canonical"]}
    interactions, _ = canonical(values)
    turned = interactions.with_columns(-pl.col("effect"))
    found = Selector(same, SALIENCE, 0)(turned, values, SAMPLES)
    assert set(found["share"]) == {0.0, None}


def test_extraction_and_shares_in_one_call(values):
    selector = Selector(SELECTION, SALIENCE, 3, "range")
    done = []
    found, solve = extract_with_shares(
        values, SAMPLES, selector, noise_ratio=0.1, error=0.1, progress=done.append
    )
    interactions, expected = canonical(values, noise_ratio=0.1, noise_scale="range")
    pl.testing.assert_frame_equal(solve, expected)
    pl.testing.assert_frame_equal(found, selector(interactions, values, SAMPLES, error=0.1))
    assert sum(done) == 3 * (1 + SELECTION["draws"])


def test_draws_have_every_ratio_and_every_tie_break():
    draws = list_draws({**SELECTION, "draws": 10})
    assert len(draws) == 10
    assert {draw.noise_ratio for draw in draws[:3]} == set(SELECTION["noise_ratios"])
    assert [draw.tie_break for draw in draws[4:8]] == SELECTION["tie_breaks"]
    for wrong in ({"draws": 3}, {"noise_ratios": []}, {"tie_breaks": []}):
        with pytest.raises(
            ValueError, match=r"selection: \d draws for .*; list one of each at least"
        ):
            list_draws({**SELECTION, **wrong})


def test_interactions_of_other_samples_are_refused(values):
    interactions, _ = canonical(values)
    selector = Selector(SELECTION, SALIENCE, 3)
    for samples, n_samples in ((["a", "b", "d"], None), (SAMPLES, 2)):
        with pytest.raises(ValueError, match="interactions: sample c has no log-odds; give both"):
            selector(interactions, values, samples, n_samples=n_samples)
