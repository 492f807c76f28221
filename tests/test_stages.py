import json

import numpy as np
import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.stages import detect_stages, find_boundary

STEPS = [0, 5, 20, 80]
SAMPLES = ["a", "b"]


@pytest.mark.parametrize(
    ("counts", "share", "index"),
    [
        ([0, 2, 9, 10], 0.9, 2),
        ([0, 2, 8.9, 10], 0.9, 3),
        ([0, 10, 9, 8], 0.9, 1),
        ([0, 5, 10, 6], 1.0, 2),
        ([0, 4, 4, 4], 0.5, 1),
        ([0, 0, 0, 0], 0.9, 0),
    ],
)
def test_boundary_is_where_most_removals_are_done(counts, share, index):
    assert find_boundary(np.array(counts, dtype=float), share) == index


def removals(counts):
    """``dynamics`` with so many removed interactions of each sample at each step."""
    rows = [
        (sample_id, step, "removed", "and", pattern, 2, 1.0, None, None)
        for sample_id, row in zip(SAMPLES, counts, strict=True)
        for step, count in zip(STEPS, row, strict=True)
        for pattern in range(1, count + 1)
    ]
    rows.append(("a", 80, "emerged", "or", 3, 2, 1.0, None, None))
    return pl.DataFrame(rows, schema=tables.DYNAMICS.columns, orient="row")


def training(losses):
    rows = [(step, 1.0, loss, 0.1) for step, loss in losses.items()]
    return pl.DataFrame(rows, schema=tables.TRAINING.columns, orient="row")


def detect(counts, losses=None, **options):
    settings = {"share": 0.9, "resamples": 100, "level": 0.95, "seed": 0, **options}
    losses = losses and training(losses)
    return detect_stages(removals(counts), losses, SAMPLES, STEPS, **settings)


def test_samples_that_agree_leave_no_uncertainty():
    found = detect([[0, 1, 9, 10], [0, 2, 10, 10]])
    assert found["boundary_step"] == found["best_checkpoint_step"] == 20
    assert (found["ci_low_step"], found["ci_high_step"]) == (20, 20)


def test_interval_spans_samples_that_do_not():
    found = detect([[0, 10, 10, 10], [0, 0, 0, 12]])
    assert found["boundary_step"] == 80
    assert (found["ci_low_step"], found["ci_high_step"]) == (5, 80)


def test_without_removals_the_boundary_is_the_first_step():
    found = detect([[0] * 4, [0] * 4])
    steps = [found[f"{name}_step"] for name in ("boundary", "ci_low", "ci_high")]
    assert steps == [0, 0, 0]


def test_without_resamples_the_interval_is_the_boundary():
    found = detect([[0, 10, 10, 10], [0, 0, 0, 12]], resamples=0)
    assert (found["ci_low_step"], found["ci_high_step"]) == (80, 80)


def test_evidence():
    found = detect([[0, 1, 9, 10], [0, 2, 10, 10]], {0: 3.0, 1: None, 5: 1.5, 20: 1.0, 80: 2.0})
    assert found["detector"] == "removed_share"
    assert found["evidence"] == {
        "removed_share": 0.9,
        "removed_count": {"0": 0, "5": 1.5, "20": 9.5, "80": 10},
        "lowest_validation_loss_step": 20,
    }
    assert json.loads(json.dumps(found)) == found


def test_own_checkpoints_have_no_validation_loss():
    found = detect([[0, 1, 9, 10], [0, 2, 10, 10]])
    assert found["evidence"]["lowest_validation_loss_step"] is None


def test_same_seed_same_stages():
    counts = [[0, 10, 10, 10], [0, 0, 0, 12]]
    assert detect(counts, seed=3) == detect(counts, seed=3)
