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
from sft_interactions.figures.panels import beside_another
from sft_interactions.figures.style import CLASSES


def test_lines_carry_the_metrics_and_their_gaps():
    run = make_run()
    hole = (pl.col("step") == 20) & (pl.col("class") == "emerged") & (pl.col("metric") == "rho")
    value = pl.when(hole).then(None).otherwise(pl.col("value")).alias("value")
    run = replace(run, metrics=run.metrics.with_columns(value))
    drawn: dict = {}
    for axes in quality.draw([run], level=0.95).axes:
        drawn |= lines(axes)
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
    assert [lines(axes) for axes in figure.axes[:3]] == [{}, {}, {}]
    assert texts(figure).count("no reference model") == 3
    found = [set(lines(axes)) for axes in figure.axes[3:]]
    assert found == [{f"rho:{name}", f"rho_chance:{name}"} for name in CLASSES]


def test_a_churn_floor_is_drawn_where_there_is_one():
    run = make_run()
    assert floors(quality.draw([run], level=0.95)) == []
    drawn = floors(quality.draw([with_churn_floor(run)], level=0.95))
    assert drawn == [
        f"{metric}_churn_floor:{label}"
        for metric in ("gamma", "rho")
        for label in ("emerged", "removed")
    ]


def test_a_floor_of_one_checkpoint_alone_draws_no_line():
    run = with_churn_floor(make_run())
    elsewhere = pl.col("metric").str.contains("_churn_floor") & (pl.col("step") != run.steps[-2])
    ends = [pl.when(~elsewhere).then(pl.col(end)).alias(end) for end in ("ci_low", "ci_high")]
    figure = quality.draw([replace(run, metrics=run.metrics.with_columns(ends))], level=0.95)
    drawn = [part for axes in figure.axes for part in axes.collections if part.get_gid()]
    assert drawn
    assert sum(len(path.vertices) for part in drawn for path in part.get_paths()) == 0


@pytest.mark.parametrize(
    ("there", "beside"),
    [("1", "0"), ("01", "10"), ("11", "11"), ("010", "101"), ("110", "111"), ("01001", "10110")],
)
def test_what_is_beside_another_checkpoint(there, beside):
    found = beside_another(np.array([digit == "1" for digit in there]))
    assert "".join(str(int(one)) for one in found) == beside


def test_a_panel_holds_one_class_alone():
    run = make_run()
    figure = quality.draw([with_reading(with_churn_floor(run), "joint")], level=0.95)
    for axes in figure.axes:
        own = axes.get_label().rpartition(":")[2]
        floor = [part.get_gid() for part in axes.collections if part.get_gid()]
        assert {gid.rpartition(":")[2] for gid in [*lines(axes), *floor]} == {own}


def test_a_row_has_one_scale_that_holds_all_that_is_drawn():
    low = with_values(with_values(make_run(), "gamma", 0.1), "gamma_chance", 0.2)
    chosen = (pl.col("metric") == "gamma") & (pl.col("class") == "removed")
    high = (
        pl.when(chosen & (pl.col("step") > 0))
        .then(0.4)
        .otherwise(pl.col("ci_high"))
        .alias("ci_high")
    )
    low = replace(low, metrics=low.metrics.with_columns(high))
    tops = {("gamma", name): 0.5 if name == "removed" else 0.25 for name in CLASSES}
    tops |= {("rho", name): 1.0 for name in CLASSES}
    figure = quality.draw([low], level=0.95)
    assert {axes.get_label(): axes.get_ylim()[1] for axes in figure.axes} == {
        f"{low.label}:{metric}:{name}": pytest.approx(1.03 * top)
        for (metric, name), top in tops.items()
    }
    both = quality.draw([low, make_run("Another")], level=0.95)
    assert {axes.get_ylim()[1] for axes in both.axes} == {1.03}
