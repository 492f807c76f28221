import json

import numpy as np
import polars as pl
import pytest
from tiny_models import build_model
from tiny_training import Rows, build_trainer

from sft_interactions import tables
from sft_interactions.analysis import intervals, stages
from sft_interactions.analysis.runs import tell_few_checkpoints
from sft_interactions.analysis.stages import (
    LEAST_ERROR,
    Training,
    _precision,
    bootstrap_weights,
    detect_stages,
    find_boundary,
    find_stages,
    mean_losses,
    scale_signals,
    tabulate,
    validation_losses,
)

STEPS = [0, 5, 20, 80]
SAMPLES = ["a", "b"]
N = 8

# Read off figures 2 and 3 of arXiv 2605.17967: counts (divided by the largest), γ and ρ.
PAPER = {
    "Llama-3-8B": (
        [200, 9, 4, 4, 3],
        [0, 192, 191, 186, 179],
        [0, 31, 41, 91, 190],
        [0.08, 0.47, 0.42, 0.47, 0.47],
        [0.11, 0.60, 0.53, 0.64, 0.62],
    ),
    "Qwen2.5-7B": (
        [360, 10, 6, 5, 3],
        [0, 350, 349, 340, 317],
        [0, 24, 37, 120, 330],
        [0.08, 0.64, 0.67, 0.73, 0.73],
        [0.04, 0.47, 0.57, 0.54, 0.66],
    ),
}


@pytest.mark.parametrize("run", PAPER)
def test_boundary_of_the_papers_runs_is_the_one_it_draws(run):
    signals = np.array(PAPER[run], dtype=float).T
    removed = signals[:, 1].copy()
    signals[:, :3] /= signals[:, :3].max()
    assert find_boundary(signals)[0] == 1  # step 1000
    best = {"Llama-3-8B": 2, "Qwen2.5-7B": 3}[run]  # steps 2000 and 2500
    assert find_stages(signals, removed, 0.9) == (1, best)


def test_what_emerges_late_moves_the_best_checkpoint_and_not_the_boundary():
    removed = np.array([0, 60, 98, 100, 99, 98, 97.0])
    emerged = np.array([0, 9, 10, 12, 14, 16, 900.0])
    signals = np.stack([removed, emerged], axis=1)
    assert find_boundary(signals)[0] == 5
    assert find_stages(signals, removed, 0.9) == (2, 5)
    # Where most removals come last, so does the end of the denoising stage.
    assert find_stages(signals[:4], np.array([0, 1, 2, 100.0]), 0.9)[0] == 2


def test_the_end_of_denoising_is_looked_for_up_to_the_last_removals_alone():
    removed = np.array([0, 45, 90, 95, 100, 100, 100.0])
    emerged = np.array([0, 0, 0, 0, 0, 0, 900.0])
    assert find_stages(np.stack([removed, emerged], axis=1), removed, 0.95) == (2, 5)


def test_where_no_pace_changes_the_best_checkpoint_is_the_end_of_denoising():
    removed = np.array([0, 10, 10, 10, 10.0])
    assert find_stages(removed[:, None], removed, 0.9) == (1, 1)
    assert find_stages(removed[:2, None], removed[:2], 0.9) == (1, 1)


@pytest.mark.parametrize("boundary", [1, 2, 4])
def test_boundary_is_where_the_slopes_change(boundary):
    index = np.arange(6)
    kinked = np.minimum(index, boundary) / boundary
    found, explained = find_boundary(np.stack([kinked, 1 - kinked], axis=1))
    assert found == boundary
    assert explained == pytest.approx(1)


def test_signals_are_weighed_by_how_much_they_move():
    large = np.array([0, 1, 1, 1, 1.0])
    small = np.array([0, 0, 0, 0, 0.3])
    assert find_boundary(small[:, None])[0] == 3
    assert find_boundary(np.stack([large, small], axis=1))[0] == 1


def test_constant_signals_explain_nothing():
    assert find_boundary(np.ones((4, 2)))[1] == 0


def test_two_checkpoints_leave_no_choice():
    assert find_boundary(np.array([[0.0], [1.0]])) == (1, 0.0)


def test_three_checkpoints_leave_one_boundary():
    assert find_boundary(np.array([[0.0], [2.0], [2.0]])) == (1, 1.0)


def test_what_a_cut_explains_is_the_share_of_the_squared_deviations():
    # Increments 6, 3, 1, 2, of mean 3; cut after the first, they are 6 and 3, 1, 2, of mean 2.
    index, explained = find_boundary(np.array([[0.0], [6], [9], [10], [12]]))
    assert index == 1
    assert explained == pytest.approx(1 - (1 + 0 + 1) / (9 + 0 + 4 + 1))


def test_precision_is_one_over_the_error_of_the_increments():
    # One signal moves as a whole from draw to draw, one by steps of 1 or 3, one by steps of -2 or 4.
    courses = np.array(
        [
            [[0.0, 0.0, 0.0], [1.0, 1.0, -2.0], [2.0, 2.0, -4.0]],
            [[7.0, 0.0, 0.0], [8.0, 3.0, 4.0], [9.0, 6.0, 8.0]],
        ]
    )
    np.testing.assert_allclose(_precision(courses), [1 / LEAST_ERROR, 1 / 1, 1 / 3])


def test_signals_are_scaled_together_and_gaps_are_no_change():
    gap = np.nan
    means = {
        ("count", "preserved"): np.array([8.0, 2, 1]),
        ("count", "emerged"): np.array([0.0, 4, 4]),
        ("count", "removed"): np.array([0.0, 6, 7]),
        ("strength_total", "preserved"): np.zeros(3),
        ("strength_total", "emerged"): np.zeros(3),
        ("strength_total", "removed"): np.zeros(3),
        ("gamma", "preserved"): np.full(3, gap),
        ("rho", "preserved"): np.array([0.2, 0.5, gap]),
        ("rho", "emerged"): np.array([gap, 0.5, 0.4]),
    }
    signals = scale_signals(means)
    assert signals["count_removed"].tolist() == [0, 6 / 8, 7 / 8]
    assert signals["strength_total_removed"].tolist() == [0, 0, 0]
    assert "gamma_preserved" not in signals
    assert signals["rho_preserved"].tolist() == [0.2, 0.5, 0.5]
    assert signals["rho_emerged"].tolist() == [0.5, 0.5, 0.4]


def courses(counts):
    """``dynamics`` in which each sample has lost so many of 12 interactions at each step."""
    rows = []
    for sample_id, row in zip(SAMPLES, counts, strict=True):
        for step, count in zip(STEPS, row, strict=True):
            for pattern in range(1, 13):
                label = "removed" if pattern <= count else "preserved"
                rows.append((sample_id, step, label, "and", pattern, 2, 1.0, None, None))
    return pl.DataFrame(rows, schema=tables.DYNAMICS.columns, orient="row")


def test_validation_losses_are_those_of_the_steps_that_have_one():
    rows = [(0, 1.0, 2.0, 0.1), (1, 1.0, None, 0.1), (2, 1.0, 1.5, 0.1)]
    training = pl.DataFrame(rows, schema=tables.TRAINING.columns, orient="row")
    assert validation_losses(training) == {0: 2.0, 2: 1.5}


def detect(counts, losses=None, **options):
    settings = {"share": 0.9, "resamples": 100, "level": 0.95, "seed": 0, **options}
    return detect_stages(courses(counts), losses or {}, SAMPLES, STEPS, N, **settings)


@pytest.fixture(autouse=True)
def two_samples_have_an_interval(monkeypatch):
    """So that what is expected can be reckoned by hand."""
    monkeypatch.setattr(stages, "FEWEST_SAMPLES", 2)


def test_fewer_than_five_samples_have_no_interval(monkeypatch):
    monkeypatch.setattr(stages, "FEWEST_SAMPLES", intervals.FEWEST_SAMPLES)
    found = detect([[0, 5, 10, 10], [0, 5, 10, 10]])
    assert (found["boundary_step"], found["best_checkpoint_step"]) == (20, 20)
    assert found["ci_low_step"] is found["ci_high_step"] is None
    assert found["evidence"]["best_ci_low_step"] is found["evidence"]["best_ci_high_step"] is None


def test_weights_are_draws_with_replacement():
    weights = bootstrap_weights(7, 100, 0)
    assert weights.shape == (100, 7)
    assert (weights.sum(1) == 7).all()
    assert weights.max() > 1
    assert bootstrap_weights(7, 0, 0).shape == (0, 7)
    assert (bootstrap_weights(9, 50, 1) == bootstrap_weights(9, 50, 1)).all()
    assert (bootstrap_weights(9, 50, 1) != bootstrap_weights(9, 50, 2)).any()


def test_samples_that_agree_leave_no_uncertainty():
    found = detect([[0, 5, 10, 10], [0, 5, 10, 10]])
    assert found["boundary_step"] == found["best_checkpoint_step"] == 20
    assert (found["ci_low_step"], found["ci_high_step"]) == (20, 20)
    assert found["evidence"]["resamples_at_boundary"] == 1


def test_interval_spans_samples_that_do_not():
    found = detect([[0, 10, 10, 10], [0, 4, 8, 8]])
    assert (found["ci_low_step"], found["ci_high_step"]) == (5, 20)
    assert 0 < found["evidence"]["resamples_at_boundary"] < 1


def test_a_signal_counts_as_much_as_the_samples_agree_on_it():
    # Both samples lose all at once; their effects then go opposite ways, late.
    rows = []
    for sample_id, late in zip(SAMPLES, (1.0, 80.0), strict=True):
        for step in STEPS:
            for pattern in range(1, 9):
                label = "preserved" if step == 0 or pattern <= 4 - (step == 80) else "removed"
                effect = late if step == 80 and label == "preserved" else 1.0
                rows.append((sample_id, step, label, "and", pattern, 2, effect, None, None))
    frame = pl.DataFrame(rows, schema=tables.DYNAMICS.columns, orient="row")
    # Of the removals the last is at the last checkpoint, so the boundary may lie anywhere.
    settings = {"share": 1.0, "level": 0.95, "seed": 0}
    found = detect_stages(frame, {}, SAMPLES, STEPS, N, resamples=100, **settings)
    assert found["boundary_step"] == 5
    # So it is in every resample.
    assert (found["ci_low_step"], found["ci_high_step"]) == (5, 5)
    strength = found["evidence"]["signals"]["strength_total_preserved"]
    assert strength["boundary_step"] == 20


def test_without_removals_the_boundary_is_the_first_step():
    found = detect([[0] * 4, [0] * 4])
    steps = [found[f"{name}_step"] for name in ("boundary", "ci_low", "ci_high")]
    assert steps == [0, 0, 0]


def test_without_resamples_there_is_no_interval():
    found = detect([[0, 10, 10, 10], [0, 4, 8, 8]], resamples=0)
    assert (found["ci_low_step"], found["ci_high_step"]) == (None, None)
    names = ("resamples_at_boundary", "best_ci_low_step", "best_ci_high_step")
    assert [found["evidence"][name] for name in names] == [None] * 3


@pytest.mark.parametrize("counts", [[[0, 1, 9, 10], [0, 8, 9, 9]], [[0, 5, 6, 10], [0, 1, 8, 8]]])
def test_the_checkpoints_do_not_hang_on_whether_intervals_are_asked_for(counts):
    without, default = detect(counts, resamples=0), detect(counts, resamples=1000)
    for name in ("boundary_step", "best_checkpoint_step"):
        assert without[name] == default[name]


def test_where_nothing_goes_no_step_has_most_removals():
    assert detect([[0] * 4, [0] * 4])["evidence"]["removed_share_step"] is None


def test_evidence():
    found = detect([[0, 1, 9, 10], [0, 2, 10, 10]], {0: 3.0, 5: 1.5, 20: 1.0, 80: 2.0})
    assert found["detector"] == "change_point"
    evidence = found["evidence"]
    assert evidence["removed_share_step"] == 20
    assert evidence["removed_count"] == {"0": 0, "5": 1.5, "20": 9.5, "80": 10}
    assert evidence["lowest_validation_loss_step"] == 20
    assert evidence["validation_loss"] == {"0": 3.0, "5": 1.5, "20": 1.0, "80": 2.0}
    assert set(evidence["signals"]) == {
        f"{metric}_{label}"
        for metric in ("count", "strength_total", "rho")
        for label in ("preserved", "emerged", "removed")
    } - {"rho_emerged"}
    assert evidence["signals"]["count_removed"]["boundary_step"] == 20
    assert 0 < evidence["signals"]["count_removed"]["explained"] <= 1
    assert json.loads(json.dumps(found)) == found


def test_own_checkpoints_have_no_validation_loss():
    evidence = detect([[0, 1, 9, 10], [0, 2, 10, 10]])["evidence"]
    assert evidence["lowest_validation_loss_step"] is None
    assert evidence["validation_loss"] == {}


def test_the_table_says_what_else_could_choose():
    losses = {0: 3.0, 5: 1.0, 20: 1.5, 80: 2.0}
    ours = {"run": "a-d", **detect([[0, 5, 10, 10]] * 2, losses)}
    own = {"run": "b-d", **detect([[0, 10, 10, 10]] * 2)}
    first, second = tabulate([ours, own], [Training(32, 4, 2), None]).rows(named=True)
    assert (first["run"], first["best_checkpoint_step"], first["best_checkpoint_epoch"]) == (
        "a-d",
        20,
        5,
    )
    assert (first["lowest_validation_loss_step"], first["removed_share_step"]) == (5, 20)
    assert (first["validation_loss_at_best"], first["lowest_validation_loss"]) == (1.5, 1.0)
    assert (second["best_checkpoint_step"], second["ci_high_step"]) == (5, 5)
    unknown = ("best_checkpoint_epoch", "lowest_validation_loss_step", "lowest_validation_loss")
    assert [second[column] for column in unknown] == [None] * 3


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "accumulation", "steps_of_epoch"),
    [(32, 4, 2, 4), (5, 2, 2, 2), (24, 4, 8, 1), (100, 8, 1, 13), (9, 2, 2, 3)],
)
def test_epochs_are_those_of_the_trainer(
    tmp_path, n_samples, batch_size, accumulation, steps_of_epoch
):
    training = Training(n_samples, batch_size, accumulation)
    trainer = build_trainer(
        tmp_path,
        build_model("llama"),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=2 * steps_of_epoch,
        save_strategy="no",
    )
    trainer.train_dataset = Rows(n_samples)
    trainer.train()
    assert trainer.state.epoch == training.epochs(2 * steps_of_epoch) == 2
    assert training.epochs(0) == 0
    if steps_of_epoch > 1:
        seen = batch_size * accumulation / n_samples
        assert training.epochs(steps_of_epoch + 1) == pytest.approx(1 + seen)


def test_same_seed_same_stages():
    counts = [[0, 10, 10, 10], [0, 4, 8, 8]]
    assert detect(counts, seed=3) == detect(counts, seed=3)


@pytest.mark.parametrize(
    ("counts", "of_both", "wide"),
    [
        ([[0, 8, 8, 8], [0, 2, 12, 12]], 20, (5, 20)),  # the first alone: 5
        ([[0, 10, 10, 12], [0, 6, 12, 12]], 5, (5, 20)),  # the second alone: 20
    ],
)
def test_the_interval_leaves_out_as_much_on_either_side(counts, of_both, wide):
    # Of two samples a quarter of the resamples has the first alone, and a quarter the second.
    for level, interval in ((0.4, (of_both, of_both)), (0.6, wide)):
        found = detect(counts, level=level, resamples=400, share=1.0)
        assert found["boundary_step"] == of_both
        assert (found["ci_low_step"], found["ci_high_step"]) == interval
        assert found["evidence"]["resamples_at_boundary"] == pytest.approx(0.75, abs=0.06)


def losses_of(*rows):
    """Rows (step, split, loss, n_tokens) as of a ``losses`` table."""
    return pl.DataFrame(rows, schema=["step", "split", "loss", "n_tokens"], orient="row")


def test_mean_losses_are_those_of_a_token_of_the_validation_samples():
    rows = [(5, "validation", 6.0, 2), (5, "validation", 2.0, 6), (5, "test", 90.0, 1)]
    assert mean_losses(losses_of(*rows, (0, "validation", 9.0, 3))) == {0: 3.0, 5: 1.0}


def test_mean_losses_are_of_all_samples_where_none_is_of_validation():
    rows = [(5, "test", 6.0, 2), (0, "train", 1.0, 4), (5, "train", 1.0, 2)]
    assert mean_losses(losses_of(*rows)) == {0: 0.25, 5: 1.75}


def test_columns_have_their_type_where_nothing_is_known():
    own = {"run": "b-d", **detect([[0, 10, 10, 10]] * 2, resamples=0)}
    schema = tabulate([own], [None]).schema
    assert schema["best_checkpoint_epoch"] == schema["lowest_validation_loss"] == pl.Float64
    assert schema["validation_loss_at_best"] == pl.Float64
    assert schema["lowest_validation_loss_step"] == pl.Int64


def test_a_place_that_is_the_only_one_is_told():
    (two, three) = tell_few_checkpoints({"a": [0, 4], "b": [0, 2, 4], "c": [0, 1, 2, 4], "d": [0]})
    assert two.startswith("a has 2 checkpoints, of which step 4 alone can end the denoising stage")
    assert three.startswith("b has 3 checkpoints, of which step 2 alone can end")
    signals = np.random.default_rng(0).normal(size=(50, 3, 2))
    assert {find_boundary(one)[0] for one in signals} == {1}
    longer = np.random.default_rng(0).normal(size=(50, 4, 2))
    assert {find_boundary(one)[0] for one in longer} == {1, 2}
