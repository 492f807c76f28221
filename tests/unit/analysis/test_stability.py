import numpy as np
import polars as pl
import pytest

from sft_interactions.analysis import stability
from sft_interactions.extraction.program import reconstruct

SALIENCE = {"rule": "max_effect", "threshold": 0.05}
SAMPLES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def values():
    """Sparse AND-OR models of 4 players plus a little unstructured noise."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(2, 3, 16)) * (rng.random((2, 3, 16)) < 0.3)
    effects[0, :, 15] += 2  # so that v(N) differs from v(empty)
    return reconstruct(np.zeros(3), *effects) + 0.05 * rng.normal(size=(3, 16))


def test_noise_depends_on_the_sample_and_not_on_its_neighbours(values):
    noise = stability.noise_perturbation(1e-2)
    together = stability.perturb(values, SAMPLES, noise, "step-0", seed=0)
    alone = stability.perturb(values[1:2], ["b"], noise, "step-0", seed=0)
    np.testing.assert_array_equal(together[1:2], alone)
    other = stability.perturb(values, SAMPLES, noise, "step-1", seed=0)
    assert not np.array_equal(together, other)


def test_size_of_noise(values):
    wide = np.zeros((1, 4096))
    wide[0, -1] = 5.0
    noisy = stability.perturb(wide, ["a"], stability.noise_perturbation(1e-2), "x", seed=0)
    assert (noisy - wide).std() == pytest.approx(5e-2, rel=0.05)
    rounding = stability.perturb(
        wide, ["a"], stability.Perturbation("dtype", rounds=True), "x", seed=0
    )
    expected = stability.ROUNDINGS * np.finfo(np.float32).eps * 5
    assert (rounding - wide).std() == pytest.approx(expected, rel=0.05)


def interactions(*rows):
    return pl.DataFrame(
        rows,
        schema={
            "sample_id": pl.String,
            "kind": pl.Enum(["and", "or"]),
            "pattern": pl.UInt32,
            "effect": pl.Float64,
        },
        orient="row",
    )


def test_compare_by_hand():
    one = interactions(("a", "and", 3, 1.0), ("a", "or", 3, -1.0), ("a", "and", 1, 2.0))
    two = interactions(("a", "and", 3, -1.0), ("a", "and", 1, 1.0), ("a", "and", 7, 1.0))
    agreement = stability.compare(one, two, ["a", "b"])
    assert agreement["sample_id"].to_list() == ["a", "b"]
    assert agreement["jaccard"].to_list() == [0.5, 1.0]
    assert agreement["sign_agreement"].to_list() == [0.5, None]


def test_measure_is_perfect_without_noise_and_worse_with_more(values):
    checked = [stability.Perturbation("none"), *stability.perturbations([1e-4, 0.2], ["prefer_or"])]
    table = stability.measure(
        {0: values, 5: 2 * values}, SAMPLES, checked, SALIENCE, noise_ratio=0.04, seed=0
    )
    assert len(table) == 2 * 3 * len(checked)
    mean = {
        name: part["rel_l1_distance"].mean()
        for (name,), part in table.partition_by("perturbation", as_dict=True).items()
    }
    assert mean["none"] == 0
    assert mean["dtype"] < mean["noise-0.2"]
    unchanged = table.filter(pl.col("perturbation") == "none")
    assert unchanged["jaccard"].to_list() == [1.0] * 6


def test_unchanged_run_loses_more_the_louder_the_noise(values):
    def removed(size):
        draws = stability.UnchangedRun(
            values,
            SAMPLES,
            [0, 1, 2],
            stability.noise_perturbation(size),
            noise_ratio=0.04,
            draws=3,
            seed=0,
        ).classify(SALIENCE)
        assert len(draws) == 3
        return sum(draw.filter(pl.col("class") == "removed").height for draw in draws)

    assert removed(1e-9) == 0
    assert removed(0.3) > 0
