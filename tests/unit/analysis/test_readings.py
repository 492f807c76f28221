"""Readings of a run's tables, and the ranges that they rest on."""

import numpy as np
import polars as pl
import pytest

from sft_interactions import tables
from sft_interactions.analysis.choices import READINGS
from sft_interactions.analysis.dynamics import KEY, classify
from sft_interactions.analysis.ranges import add_ranges
from sft_interactions.analysis.readings import RunReader, only_certain
from sft_interactions.analysis.salience import select_salient
from sft_interactions.analysis.stability import UnchangedRun, noise_perturbation
from sft_interactions.extraction import extract
from sft_interactions.extraction.interactions import from_extraction
from sft_interactions.extraction.joint import extract_joint
from sft_interactions.extraction.ranges import effect_ranges

SAMPLES = ["a", "b", "c"]
SALIENCE = {"rule": "max_effect", "threshold": 0.05}


@pytest.fixture(scope="module")
def values():
    """A run of three checkpoints, n = 3."""
    start, end = np.random.default_rng(0).normal(size=(2, 3, 8)).cumsum(axis=-1)
    return {step: start + share * end for step, share in ((0, 0.0), (4, 0.3), (9, 1.0))}


@pytest.fixture(scope="module")
def solved(values):
    return {step: extract(v) for step, v in values.items()}


def read_run(reading, values, solved, samples, salience):
    return RunReader(values, solved, samples).salient(reading, salience)


def test_rows_have_the_ranges_of_their_effects(values, solved):
    interactions, solve = from_extraction(SAMPLES, values[4], solved[4])
    salient = select_salient(interactions, solve, **SALIENCE)
    found = add_ranges(interactions, solve, values[4], SAMPLES, SALIENCE, tolerance=1e-6)
    tables.check(found, tables.RANGES, "ranges")
    assert found.select(interactions.columns).equals(interactions)
    assert found["effect_low"].is_not_null().sum() == len(salient)
    everything = np.ones((3, 2, 8), dtype=bool)
    expected = effect_ranges(values[4], solved[4], everything)
    for row in found.drop_nulls().iter_rows(named=True):
        place = (SAMPLES.index(row["sample_id"]), ["and", "or"].index(row["kind"]), row["pattern"])
        assert row["effect_low"] == pytest.approx(expected.low[place], abs=1e-6)
        assert row["effect_high"] == pytest.approx(expected.high[place], abs=1e-6)
        assert row["sign_certain"] == expected.sign_certain[place]
    assert found["sign_certain"].any()
    assert not found["sign_certain"].all()


def test_the_certain_reading_keeps_what_every_optimum_has(values, solved):
    single = read_run("single", values, solved, SAMPLES, SALIENCE)
    certain = read_run("certain", values, solved, SAMPLES, SALIENCE)
    for step, v in values.items():
        interactions, solve = from_extraction(SAMPLES, v, solved[step])
        assert single[step].equals(select_salient(interactions, solve, **SALIENCE))
        ranges = add_ranges(interactions, solve, v, SAMPLES, SALIENCE, tolerance=1e-6)
        assert certain[step].equals(only_certain(single[step], ranges))
        assert 0 < len(certain[step]) < len(single[step])
        assert certain[step].join(single[step], on=[*KEY, "effect"], how="anti").is_empty()


def test_the_joint_reading_is_that_of_joint_extraction(values, solved):
    joint = extract_joint(list(values.values()), list(solved.values()))
    found = read_run("joint", values, solved, SAMPLES, SALIENCE)
    for step, checkpoint in zip(values, joint.checkpoints, strict=True):
        expected = select_salient(*from_extraction(SAMPLES, values[step], checkpoint), **SALIENCE)
        assert found[step].equals(expected)


def test_joint_extraction_serves_every_salience_rule(values, solved, monkeypatch):
    reader = RunReader(values, solved, SAMPLES)
    few = reader.salient("joint", {"rule": "top_k", "threshold": 2})
    monkeypatch.setattr("sft_interactions.analysis.readings.extract_joint", None)
    assert all(len(rows) <= 2 * len(SAMPLES) for rows in few.values())
    assert sum(map(len, reader.salient("joint", SALIENCE).values())) > sum(map(len, few.values()))


def test_checkpoints_may_come_in_any_order(values, solved):
    backwards = dict(reversed(values.items()))
    expected = read_run("joint", values, solved, SAMPLES, SALIENCE)
    found = read_run("joint", backwards, solved, SAMPLES, SALIENCE)
    assert list(found) == list(expected)
    assert all(found[step].equals(rows) for step, rows in expected.items())


def test_unknown_readings_and_ranges_of_something_else_are_refused(values, solved):
    with pytest.raises(ValueError, match="unknown reading 'all'; choose from single, certain"):
        read_run("all", values, solved, SAMPLES, SALIENCE)
    interactions, solve = from_extraction(SAMPLES, values[0], solved[0])
    ranges = add_ranges(interactions, solve, values[0], SAMPLES, SALIENCE, tolerance=1e-6)
    salient = select_salient(interactions, solve, **SALIENCE)
    others = salient.with_columns(pattern=pl.lit(0, pl.UInt32))
    with pytest.raises(ValueError, match="of other interactions"):
        only_certain(others, ranges)


@pytest.mark.parametrize("reading", READINGS)
def test_the_churn_floor_has_the_reading_of_the_run(values, reading):
    run = UnchangedRun(
        values[0],
        SAMPLES,
        list(values),
        noise_perturbation(1e-2),
        noise_ratio=0.04,
        draws=2,
        seed=0,
    )
    noisy = run._extracted
    found = run.classify(SALIENCE, reading)
    for draw, rows in enumerate(found):
        places = {0: 0, 4: 1 + 2 * draw, 9: 2 + 2 * draw}
        solutions = {step: noisy.solution(place) for step, place in places.items()}
        expected = classify(
            read_run(
                reading,
                {step: v for step, (v, _) in solutions.items()},
                {step: one for step, (_, one) in solutions.items()},
                SAMPLES,
                SALIENCE,
            )
        )
        assert rows.equals(expected)
