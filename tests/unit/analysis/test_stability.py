import numpy as np
import polars as pl
import polars.testing
import pytest

from sft_interactions.analysis import stability
from sft_interactions.analysis.salience import select_salient
from sft_interactions.analysis.selection import Selector, extract_with_shares
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import NOISE_SCALES, extract, reconstruct

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


def unchanged(values, **changed):
    settings = {
        "noise_ratio": 0.04,
        "draws": 2,
        "seed": 0,
        "n_samples": 2,
        "errors": {0: 0.01, 1: 0.02, 2: 0.03},
        **changed,
    }
    noise = stability.noise_perturbation(0.1)
    return stability.UnchangedRun(values, SAMPLES, [0, 1, 2], noise, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("scale", NOISE_SCALES)
def test_tables_of_an_unchanged_run_give_it_back(values, scale, monkeypatch):
    run = unchanged(values, noise_scale=scale)
    solved = run.to_tables()
    assert solved[1].select("draw", "step").unique(maintain_order=True).rows() == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
    ]
    monkeypatch.setattr(stability, "extract", None)  # nothing is extracted
    again = unchanged(values, noise_scale=scale, solved=solved)
    for reading in ("single", "joint"):
        expected = run.classify(SALIENCE, reading)
        found = again.classify(SALIENCE, reading)
        assert [rows.equals(other) for rows, other in zip(found, expected, strict=True)] == [
            True
        ] * 2


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"noise_ratio": 0.001}, {"errors": {0: 0.5, 1: 0.02, 2: 0.03}}],
    ids=str,
)
def test_tables_of_another_unchanged_run_are_refused(values, changed):
    solved = unchanged(values).to_tables()
    with pytest.raises(
        ValueError, match=r"sample [ab]: the effects miss the log-odds by .*; rebuild"
    ):
        unchanged(values, solved=solved, **changed)


def test_tables_of_other_draws_are_refused(values):
    solved = unchanged(values).to_tables()
    for draws in (1, 3):
        with pytest.raises(ValueError, match="5 pairs of a draw and a step, or others, where "):
            unchanged(values, solved=solved, draws=draws)


def test_noise_is_relative_to_the_noise_scale():
    wide = np.zeros((2, 4096))
    wide[0, -1], wide[0, 1] = 1.0, 9.0
    wide[1, -1] = 5.0
    noise = stability.noise_perturbation(1e-2)
    for scale, sizes in (("sample", (1, 5)), ("mean", (3, 3)), ("range", (9, 5))):
        noisy = stability.perturb(wide, ["a", "b"], noise, "x", seed=0, noise_scale=scale)
        assert (noisy - wide).std(axis=1) == pytest.approx(1e-2 * np.array(sizes), rel=0.05)


@pytest.mark.parametrize("scale", NOISE_SCALES)
def test_checkpoints_have_noise_bounds_of_their_own(values, scale):
    common = {"noise_ratio": 0.1, "noise_scale": scale, "seed": 0}
    checked = [stability.Perturbation("none"), stability.noise_perturbation(1e-2)]
    # Beside a checkpoint of large log-odds, the mean over both would leave the small one no interaction.
    both = {0: values, 5: 100 * values}
    together = stability.measure(both, SAMPLES, checked, SALIENCE, **common)
    alone = stability.measure({0: values}, SAMPLES, checked, SALIENCE, **common)
    assert alone["rel_l1_distance"].null_count() == 0
    order = ["perturbation", "sample_id"]
    pl.testing.assert_frame_equal(
        together.filter(step=0).sort(order), alone.sort(order), rel_tol=1e-9
    )


def test_the_mean_is_over_samples_that_are_not_extracted_too(values):
    values = values * np.array([[1.0], [1.0], [50.0]])
    common = {"noise_ratio": 0.1, "noise_scale": "mean", "seed": 0}

    def salient(n_samples):
        noise = stability.noise_perturbation(1e-9)
        run = stability.UnchangedRun(
            values, SAMPLES, [0, 1], noise, draws=1, n_samples=n_samples, **common
        )
        assert run.n_samples == (n_samples or len(SAMPLES))
        (rows,) = run.classify(SALIENCE)
        return rows.filter(pl.col("step") == 0)

    solved = extract(values, noise_ratio=0.1, noise_scale="mean")
    expected = select_salient(*from_extraction(SAMPLES, values, solved), **SALIENCE)
    key = ["sample_id", "kind", "pattern", "effect"]
    for n_samples in (None, 3, 2, 1):
        kept = expected.filter(pl.col("sample_id").is_in(SAMPLES[:n_samples]))
        found = salient(n_samples).select(key).sort(key)
        pl.testing.assert_frame_equal(found, kept.select(key).sort(key))
    two = stability.measure(
        {0: values}, SAMPLES, [stability.Perturbation("none")], SALIENCE, n_samples=2, **common
    )
    assert two["sample_id"].to_list() == SAMPLES[:2]


STABLE = {"rule": "stable", "threshold": 0.05, "stable_share": 0.8}
SELECTION = {
    "draws": 3,
    "noise": 0.05,
    "noise_ratios": [0.02, 0.08],
    "tie_breaks": ["canonical", "high_order", "prefer_or"],
}


@pytest.mark.slow
@pytest.mark.parametrize("scale", NOISE_SCALES)
def test_the_floor_of_stable_interactions_is_made_of_shares_of_its_own(values, scale):
    selector = Selector(SELECTION, STABLE, 5, scale)
    common = {"noise_ratio": 0.04, "noise_scale": scale, "seed": 0, "n_samples": 2}
    noise, errors = stability.noise_perturbation(0.1), {0: 0.03, 4: 0.04}
    run = stability.UnchangedRun(
        values, SAMPLES, [0, 4], noise, draws=2, errors=errors, add_shares=selector, **common
    )
    key = ["sample_id", "kind", "pattern", "effect"]

    def expected(v, error):
        shared, solve = extract_with_shares(v, SAMPLES, selector, error=error)
        salient = select_salient(shared, solve, **STABLE)
        return salient.filter(pl.col("sample_id") < "c").select(key).sort(key)

    for draw, rows in enumerate(run.classify(STABLE)):
        before = rows.filter(pl.col("step") == 0).select(key).sort(key)
        pl.testing.assert_frame_equal(before, expected(values, 0.03))
        noisy = stability.perturb(
            values, SAMPLES, noise, f"draw-{draw}-step-4", seed=0, noise_scale=scale, error=0.05
        )
        after = rows.filter(pl.col("step") == 4, pl.col("class") != "removed")
        pl.testing.assert_frame_equal(after.select(key).sort(key), expected(noisy, 0.04))
    measured = stability.measure(
        {0: values}, SAMPLES, [noise], STABLE, errors=errors, add_shares=selector, **common
    )
    noisy = stability.perturb(
        values, SAMPLES, noise, "step-0", seed=0, noise_scale=scale, error=0.03
    )
    agreement = stability.compare(expected(values, 0.03), expected(noisy, 0.03), SAMPLES[:2])
    assert measured["jaccard"].to_list() == agreement["jaccard"].to_list()
    with pytest.raises(ValueError, match="column share is missing"):
        stability.measure({0: values}, SAMPLES, [noise], STABLE, **common)
