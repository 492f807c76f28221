"""Interactions of a run that still goes on."""

import numpy as np
import polars as pl
import pytest

from sft_interactions.analysis.online import MEASUREMENTS, OnlineRun, Reading

N, SAMPLES = 4, [f"prompt-{number}" for number in range(6)]
FIRST, LATER, OTHER = (0b0011, 0b0101), (0b1100, 0b1010), (0b0110, 0b1001)


def log_odds(patterns):
    """v of nothing but AND interactions, of another size in each sample."""
    masks = np.arange(2**N)
    there = sum(((masks & pattern) == pattern).astype(float) for pattern in patterns)
    return (np.arange(1, 1 + len(SAMPLES))[:, None] * there).astype(np.float32)


def run_of(*patterns):
    run = OnlineRun(SAMPLES, Reading(noise_ratio=0))
    for number, some in enumerate(patterns):
        run.add(10 * number, log_odds(some))
    return run


def test_numbers_of_planted_interactions():
    run = run_of(FIRST, (*FIRST, LATER[0]), (FIRST[0], LATER[0]), LATER)
    table = run.measurements
    assert dict(table.schema) == dict(MEASUREMENTS)
    assert table["step"].to_list() == [0, 10, 20, 30]
    assert table["salient"].to_list() == [2, 3, 2, 2]
    assert table["kept"].to_list() == [None, 2, 2, 1]
    assert table["lost"].to_list() == [None, 0, 1, 1]
    assert table["new"].to_list() == [None, 1, 0, 1]
    assert table["loss_rate"].to_list() == [None, 0, pytest.approx(1 / 3), 0.5]
    assert table["rho"].to_list() == [1, 1, 1, 1]
    assert table["gamma"].to_list() == [None] * 4


def test_gamma_is_what_the_reference_has():
    run = OnlineRun(SAMPLES, Reading(noise_ratio=0), reference=log_odds((FIRST[0],)))
    run.add(0, log_odds(FIRST))
    run.add(10, log_odds(LATER))
    assert run.measurements["gamma"].to_list() == pytest.approx([0.5, 0])


@pytest.mark.slow
def test_a_stage_is_settled_once_it_has_been_the_same_for_a_while():
    run = run_of(FIRST, LATER, LATER)
    assert [(stage.step, stage.high) for stage in run.stages.values()] == [(10, 10)]
    # The detector could not name a later step than 10 yet.
    assert run.settled_stage(1) is None
    run.add(30, log_odds(LATER))
    assert run.settled_stage(1).step == run.settled_stage(2).step == 10
    assert run.settled_stage(3) is None
    run.add(40, log_odds(LATER))
    assert run.settled_stage(3).step == 10


@pytest.mark.slow
def test_a_stage_whose_answer_changes_is_not_settled():
    run = run_of(FIRST, LATER, LATER, FIRST, OTHER, OTHER, OTHER, OTHER)
    answers = [stage.step for stage in run.stages.values()]
    assert len(set(answers)) > 1
    assert run.settled_stage(len(answers)) is None


def test_nothing_is_settled_where_the_rate_does_not_fall():
    run = run_of(FIRST, LATER, FIRST, LATER, FIRST)
    assert {stage.step for stage in run.stages.values()} == {None}
    assert run.settled_stage(1) is None
    assert OnlineRun(SAMPLES, Reading()).settled_stage(1) is None


def test_an_earlier_step_is_refused():
    run = run_of(FIRST, LATER)
    for step in (10, 5):
        with pytest.raises(
            ValueError, match=rf"^step {step}: step 10 has been measured; add later"
        ):
            run.add(step, log_odds(FIRST))
    assert run.steps == [0, 10]


def test_what_is_read_is_kept():
    run = run_of(FIRST, LATER)
    kept = run.log_odds.filter(pl.col("step") == 10)
    assert kept["mask"].to_list() == list(range(2**N)) * len(SAMPLES)
    assert (
        kept["log_odds"].to_numpy().reshape(len(SAMPLES), -1).tolist() == log_odds(LATER).tolist()
    )
    salient = run.interactions.filter(pl.col("step") == 10, pl.col("salient"))
    assert set(salient["pattern"]) == set(LATER)
    np.testing.assert_allclose(salient["effect"], np.repeat(np.arange(1.0, 7.0), 2), atol=1e-6)
