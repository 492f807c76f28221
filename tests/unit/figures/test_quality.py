from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from random_runs import (
    STEPS,
    floors,
    lines,
    lookup,
    make_run,
    texts,
    with_churn_floor,
    with_reading,
    with_values,
)

from sft_interactions.figures import quality
from sft_interactions.figures.style import CLASSES


def test_lines_carry_the_metrics_and_their_gaps():
    run = make_run()
    hole = (pl.col("step") == 20) & (pl.col("class") == "emerged") & (pl.col("metric") == "rho")
    value = pl.when(hole).then(None).otherwise(pl.col("value")).alias("value")
    run = replace(run, metrics=run.metrics.with_columns(value))
    gamma, rho = quality.draw([run], level=0.95).axes
    drawn = lines(gamma) | lines(rho)
    assert np.isnan(drawn["rho:emerged"]).tolist() == [True, False, True, False]
    for metric in ("gamma", "gamma_chance", "rho", "rho_chance"):
        for name in CLASSES:
            expected = [lookup(run, step, name, metric) for step in STEPS]
            assert drawn[f"{metric}:{name}"] == pytest.approx(
                np.array(expected, float), nan_ok=True
            )


def test_the_other_reading_is_dotted():
    run = make_run()
    drawn: dict = {}
    for axes in quality.draw([with_reading(run, "joint")], level=0.95).axes:
        drawn |= lines(axes)
    for metric in ("gamma", "rho"):
        for name in CLASSES:
            half = np.array([lookup(run, step, name, metric) for step in STEPS], float) / 2
            assert drawn[f"{metric}_joint:{name}"] == pytest.approx(half, nan_ok=True)


def test_without_a_reference_says_so():
    run = make_run()
    for metric in ("gamma", "gamma_chance"):
        run = with_values(run, metric, None)
    figure = quality.draw([run], level=0.95)
    assert lines(figure.axes[0]) == {}
    assert texts(figure).count("no reference model") == 1
    expected = {f"{metric}:{name}" for metric in ("rho", "rho_chance") for name in CLASSES}
    assert set(lines(figure.axes[1])) == expected


def test_a_churn_floor_is_drawn_where_there_is_one():
    run = make_run()
    assert floors(quality.draw([run], level=0.95)) == []
    drawn = floors(quality.draw([with_churn_floor(run)], level=0.95))
    assert drawn == [
        f"{metric}_churn_floor:{label}"
        for metric in ("gamma", "rho")
        for label in ("emerged", "removed")
    ]


def test_without_runs_it_says_so():
    (text,) = texts(quality.draw([], level=0.95))
    assert "No runs remain" in text
