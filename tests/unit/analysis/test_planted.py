"""Planted runs hold what they say, and the scores count what is right."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sft_interactions.analysis import planted
from sft_interactions.analysis.dynamics import CLASSES, KEY, add_generalizability, classify
from sft_interactions.analysis.planted import (
    SCENARIOS,
    count_hits,
    default_count,
    metric_errors,
    plant,
    score,
)
from sft_interactions.analysis.salience import select_salient
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.program import extract, reconstruct

EVERYTHING = {"rule": "absolute", "threshold": 1e-12}
SALIENCE = {"rule": "max_effect", "threshold": 0.05}
P, E, R = range(3)


def truth(run, salience=EVERYTHING):
    return classify(run.salient(salience))


def counts(run, salience=EVERYTHING):
    """(steps, classes) planted interactions of all samples."""
    rows = truth(run, salience)
    return count_hits(rows, rows, list(run.samples), run.steps)[..., 1].sum(axis=0)


def bits(mask):
    return {k for k in range(16) if mask >> k & 1}


def test_log_odds_are_those_of_the_definition():
    run = plant("mixed", 5, 2, background=1.0)
    for step, row, mask in [(0, 0, 0), (0, 1, 31), (3, 0, 13), (5, 1, 6)]:
        kept = bits(mask)
        expected = run.bias[row]
        for pattern in range(1, 32):
            expected += run.effects[step][row, 0, pattern] * (bits(pattern) <= kept)
            expected += run.effects[step][row, 1, pattern] * bool(bits(pattern) & kept)
        assert run.values[step][row, mask] == pytest.approx(expected, abs=1e-12)


def test_shapes():
    run = plant("mixed", 6, 11, n_checkpoints=4, noise=0.01)
    assert run.steps == [0, 1, 2, 3]
    assert run.n_players == 6
    assert list(run.samples) == sorted(run.samples)
    assert len(set(run.samples)) == 11
    assert run.bias.shape == (11,)
    assert run.reference_effects.shape == (11, 2, 64)
    assert run.reference_values.shape == (11, 64)
    for step in run.steps:
        assert run.effects[step].shape == (11, 2, 64)
        assert run.values[step].shape == (11, 64)


def test_a_sample_depends_on_the_seed_alone():
    few, many = plant("mixed", 5, 2, noise=0.01), plant("mixed", 5, 12, noise=0.01)
    other = plant("mixed", 5, 2, noise=0.01, seed=1)
    for step in few.steps:
        np.testing.assert_array_equal(few.effects[step], many.effects[step][:2])
        np.testing.assert_array_equal(few.values[step], many.values[step][:2])
        assert not np.array_equal(few.values[step], other.values[step])
    np.testing.assert_array_equal(few.reference_values, many.reference_values[:2])
    assert not np.array_equal(few.values[0][0], few.values[0][1])


def test_noise_is_in_parts_of_the_range_and_leaves_the_truth():
    clean = plant("mixed", 8, 3)
    noisy = {size: plant("mixed", 8, 3, noise=size) for size in (0.002, 0.02)}
    for step in clean.steps:
        v = clean.values[step]
        drawn = [
            (run.values[step] - v) / (size * np.ptp(v, axis=1, keepdims=True))
            for size, run in noisy.items()
        ]
        np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-9)
        assert np.std(drawn[0]) == pytest.approx(1, abs=0.1)
        for run in noisy.values():
            np.testing.assert_array_equal(run.effects[step], clean.effects[step])


def test_sizes_orders_and_kinds():
    run = plant("mixed", 8, 20)
    first = run.salient(EVERYTHING)[0]
    assert len(first) == 20 * default_count(8) == 480
    size = first["effect"].abs()
    assert size.min() >= planted.SMALLEST_SIZE
    assert size.max() <= planted.LARGEST_SIZE
    assert size.median() == pytest.approx(planted.SMALLEST_SIZE * 2 ** (1 / planted.TAIL), rel=0.2)
    assert first["order"].mean() == pytest.approx(1 + 7 * (0.2 * 0.25 + 0.8 * 0.4), abs=0.2)
    ors = first.filter(pl.col("kind") == "or")
    assert ors["order"].min() >= 2
    assert len(ors) / len(first) == pytest.approx(planted.OR_SHARE, abs=0.05)


def test_background_is_weak_and_changes_at_its_places():
    without, run = plant("mixed", 7, 3), plant("mixed", 7, 3, background=2.0)
    places = []
    for step in run.steps:
        weak = run.effects[step] - without.effects[step]
        assert np.abs(weak).max() <= planted.BACKGROUND_SIZE
        assert not (weak.astype(bool) & without.effects[step].astype(bool)).any()
        places.append(weak != 0)
    assert (places[0].sum(axis=(1, 2)) == 2 * default_count(7)).all()
    assert all((place == places[0]).all() for place in places)
    assert not np.array_equal(run.effects[0][places[0]], run.effects[1][places[0]])
    np.testing.assert_array_equal(run.reference_effects, without.reference_effects)


def test_interactions_of_the_reference_model_are_shared_as_planted(monkeypatch):
    for share in (0.0, 1.0):
        groups = [replace(g, in_reference=share) for g in SCENARIOS["unchanged"].groups]
        scenario = replace(SCENARIOS["unchanged"], groups=groups)
        monkeypatch.setattr(planted, "SCENARIOS", {"x": scenario})
        run = plant("x", 7, 4)
        rows = add_generalizability(truth(run), run.reference_salient(EVERYTHING), 7)
        assert rows["generalizable"].mean() == share
        assert len(run.reference_salient(EVERYTHING)) == 4 * default_count(7)


def test_mixed_has_all_three_classes():
    found = counts(plant("mixed", 8, 10))
    n = 10 * default_count(8)
    assert found[0].tolist() == [n, 0, 0]
    assert (found[1:, P] + found[1:, R] == n).all()
    assert (np.diff(found[:, R]) >= 0).all()
    assert (np.diff(found[:, E]) >= 0).all()
    assert found[1, R] / n == pytest.approx(0.55, abs=0.05)
    assert found[-1, P] / n == pytest.approx(0.2, abs=0.02)
    assert found[-1, E] == n


def test_two_stages_end_where_they_are_planted():
    found = counts(plant("two_stages", 8, 10, n_checkpoints=6))
    assert found[2, R] == found[-1, R] == 190
    assert found[2, E] == 40
    assert found[-1, E] == 40 + 240


@pytest.mark.parametrize(
    ("scenario", "empty"),
    [("unchanged", (E, R)), ("drift", (E, R)), ("overfitting", (R,)), ("denoising", (E,))],
)
def test_classes_that_are_missing(scenario, empty):
    found = counts(plant(scenario, 6, 4))
    assert (found[:, empty] == 0).all()
    others = [label for label in (P, E, R) if label not in empty]
    assert (found[-1, others] > 0).all()


def test_unchanged_has_one_model_and_drift_other_sizes():
    run, drift = plant("unchanged", 6, 2), plant("drift", 6, 2)
    np.testing.assert_array_equal(run.effects[0], run.effects[5])
    changed = drift.effects[0] != 0
    assert (np.sign(drift.effects[0]) == np.sign(drift.effects[5])).all()
    assert (drift.effects[0][changed] != drift.effects[5][changed]).all()


def test_independent_checkpoints_share_no_more_than_chance():
    run = plant("independent", 8, 10)
    n, n_cells = default_count(8), 2 * 2**8 - 8 - 2
    kept = counts(run)[1, P] / (10 * n)
    # Patterns of middle order are drawn more often than others.
    assert n / n_cells < kept < 4 * n / n_cells


def test_interpolation_is_a_straight_line():
    run = plant("interpolation", 6, 3, n_checkpoints=5)
    middle = (run.values[0] + run.values[4]) / 2
    np.testing.assert_allclose(run.values[2], middle, atol=1e-12)
    assert (counts(run)[4] > 0).all()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_at_few_and_many_checkpoints(scenario):
    for n_checkpoints in (2, 8):
        run = plant(scenario, 5, 1, n_checkpoints=n_checkpoints, noise=0.01)
        assert len(run.steps) == n_checkpoints
        assert all(np.isfinite(v).all() for v in run.values.values())
        assert len(run.salient(SALIENCE)[0]) > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scenario": "x"}, "unknown scenario 'x'; choose from mixed, two_stages"),
        ({"n_players": 4}, "n_players is 4; it must be at least 5"),
        ({"n_players": 17}, "n_players is 17; it must be at most 16"),
        ({"n_samples": 0}, "n_samples is 0; it must be at least 1"),
        ({"n_checkpoints": 1}, "n_checkpoints is 1; it must be at least 2"),
        ({"n_interactions": 1}, "n_interactions is 1; it must be at least 2"),
        ({"n_interactions": 40}, "5 players have too few patterns"),
        ({"noise": -0.1}, "noise is -0.1; it must be at least 0"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"background": float("inf")}, "background is inf"),
    ],
)
def test_what_cannot_be_planted_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        plant(**{"scenario": "mixed", "n_players": 5, "n_samples": 1, **changed})


def test_without_noise_a_sparse_model_of_one_sign_is_found_again(monkeypatch):
    groups = [replace(group, positive=1.0) for group in SCENARIOS["mixed"].groups]
    monkeypatch.setattr(planted, "SCENARIOS", {"x": replace(SCENARIOS["mixed"], groups=groups)})
    run = plant("x", 6, 2, n_interactions=5, n_checkpoints=4)
    found = {}
    for step, v in run.values.items():
        solved = extract(v, noise_ratio=0.0)
        np.testing.assert_allclose(solved.and_effects, run.effects[step][:, 0], atol=1e-6)
        np.testing.assert_allclose(solved.or_effects, run.effects[step][:, 1], atol=1e-6)
        found[step] = select_salient(
            *from_extraction(list(run.samples), v, solved), "max_effect", 0.05
        )
    columns = ["step", "class", *KEY]
    mine, true = (
        rows.select(columns).with_columns(pl.col("class", "kind").cast(pl.String)).sort(columns)
        for rows in (classify(found), truth(run, SALIENCE))
    )
    assert_frame_equal(mine, true)


def test_two_models_of_one_table_and_one_l1():
    """An OR of two words less an AND of one of them: docs/validity.md says that no reading can tell."""
    planted_effects, other = np.zeros((2, 2, 32))
    planted_effects[1, 0b11], planted_effects[0, 0b01] = 1.0, -0.4
    other[1, 0b11], other[0, 0b10], other[0, 0b11] = 0.6, 0.4, -0.4
    np.testing.assert_allclose(
        reconstruct(0.0, *planted_effects), reconstruct(0.0, *other), atol=1e-12
    )
    assert np.abs(planted_effects).sum() == pytest.approx(np.abs(other).sum())


def rows(*entries):
    """Rows (sample, step, class, kind, pattern, effect)."""
    schema = ["sample_id", "step", "class", "kind", "pattern", "effect"]
    return pl.DataFrame(entries, schema=schema, orient="row")


def test_an_interaction_is_right_with_its_class_kind_pattern_and_sign():
    true = rows(
        ("a", 1, "preserved", "and", 3, 0.5),
        ("a", 1, "removed", "or", 3, 0.5),
        ("b", 2, "emerged", "and", 1, -0.5),
        ("b", 0, "preserved", "and", 1, -0.5),
    )
    found = rows(
        ("a", 1, "preserved", "and", 3, 0.1),
        ("a", 1, "removed", "or", 3, -0.5),
        ("a", 1, "emerged", "and", 3, 0.5),
        ("b", 2, "emerged", "or", 1, -0.5),
        ("b", 2, "emerged", "and", 1, -9.0),
        ("b", 2, "emerged", "and", 2, -0.5),
    )
    hits = count_hits(found, true, ["a", "b"], [1, 2])
    assert hits.shape == (2, 2, 3, 3)
    assert hits[0, 0].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert hits[1, 1].tolist() == [[0, 0, 0], [3, 1, 1], [0, 0, 0]]
    assert hits[0, 1].sum() == hits[1, 0].sum() == 0


def test_scores():
    hits = np.zeros((2, 2, len(CLASSES), 3), dtype=np.int64)
    hits[0, 0, P], hits[1, 0, P] = (4, 2, 1), (0, 2, 0)
    hits[0, 1, P] = (2, 2, 2)
    hits[1, 1, E] = (3, 0, 0)
    scores = score(hits)
    np.testing.assert_allclose(scores.precision, [(1 / 4 + 1) / 2, 0, np.nan])
    np.testing.assert_allclose(scores.recall, [(1 / 4 + 1) / 2, np.nan, np.nan])
    np.testing.assert_allclose(scores.f1, [(2 / 8 + 1) / 2, 0, np.nan])
    np.testing.assert_allclose(scores.count_ratio, [1, np.nan, np.nan])


def test_the_truth_has_a_perfect_score():
    run = plant("mixed", 6, 2, n_checkpoints=3)
    true = add_generalizability(truth(run), run.reference_salient(EVERYTHING), 6)
    scores = score(count_hits(true, true, list(run.samples), run.steps[1:]))
    for values in (scores.precision, scores.recall, scores.f1, scores.count_ratio):
        np.testing.assert_array_equal(values, 1)
    errors = metric_errors(true, true, run.samples, run.steps, 6)
    assert sorted(errors["metric"].unique()) == ["gamma", "mean_order", "rho"]
    assert (errors["error"] == 0).all()
    assert len(errors) == 9


def test_errors_of_metrics_are_means_over_the_later_checkpoints():
    true = rows(
        ("a", 0, "preserved", "and", 3, 1.0),
        ("a", 1, "preserved", "and", 3, 1.0),
        ("a", 2, "preserved", "and", 3, 1.0),
    ).with_columns(order=pl.lit(2), generalizable=pl.lit(True), chance=pl.lit(0.1))
    found = true.with_columns(
        order=pl.when(pl.col("step") == 2).then(5).otherwise(2),
        generalizable=pl.col("step") != 1,
    )
    errors = metric_errors(found, true, ["a"], [0, 1, 2], 5).filter(pl.col("class") == "preserved")
    assert dict(errors.select("metric", "error").rows()) == {
        "mean_order": pytest.approx(1.5),
        "gamma": pytest.approx(-0.5),
        "rho": 0,
    }


def test_repeats_of_a_training_start_alike_and_differ_later():
    first, second = (plant("mixed", 6, 3, noise=0.01, training=number) for number in (0, 1))
    np.testing.assert_array_equal(first.values[0], second.values[0])
    np.testing.assert_array_equal(first.reference_values, second.reference_values)
    assert not np.allclose(first.values[3], second.values[3])
    there, also = (np.abs(run.effects[5]).reshape(3, -1) > 0 for run in (first, second))
    # What comes and goes is the same, at other times.
    assert 0.5 < (there & also).sum() / (there | also).sum() <= 1
    again = plant("mixed", 6, 3, noise=0.01, training=1)
    np.testing.assert_array_equal(again.values[3], second.values[3])
