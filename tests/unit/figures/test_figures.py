"""Figures 2, 3 and 4 show the numbers of the tables, all of them and nothing else."""

from dataclasses import replace
from math import log

import numpy as np
import polars as pl
import pytest
from random_runs import STEPS, lines, lookup, make_run, panel, texts, with_values

from sft_interactions.figures import carriers as fig4
from sft_interactions.figures import evolution as fig2
from sft_interactions.figures import quality as fig3
from sft_interactions.figures.style import CLASSES, save


def test_fig2_histograms_have_the_strengths_as_heights():
    run = make_run()
    figure = fig2.draw([run], level=0.95)
    for name in CLASSES:
        for index, step in enumerate(STEPS):
            if name != "preserved" and index == 0:
                continue
            heights = [
                bar.get_height()
                for bar in panel(figure, f"{run.label}:strength:{name}:{index}").patches
            ]
            expected = [
                lookup(run, step, name, metric, order)
                for metric in ("strength_positive", "strength_negative")
                for order in range(1, 5)
            ]
            assert heights == pytest.approx(expected)


def test_fig2_says_where_a_class_does_not_apply():
    figure = fig2.draw([make_run()], level=0.95)
    assert texts(figure).count("not\napplicable\nat t = 0") == 2
    labels = [axes.get_label() for axes in figure.axes]
    assert not any(label.endswith(("strength:removed:0", "strength:emerged:0")) for label in labels)


def test_fig2_panels_after_the_first_share_a_scale_that_holds_every_bar():
    run = make_run()
    figure = fig2.draw([run], level=0.95)
    for name in CLASSES:
        limits = {
            panel(figure, f"{run.label}:strength:{name}:{index}").get_ylim()
            for index in range(1, len(STEPS))
        }
        assert len(limits) == 1
        low, high = limits.pop()
        strengths = run.by_order(name, "strength_positive"), run.by_order(name, "strength_negative")
        assert low < strengths[1][1:].min()
        assert high > strengths[0][1:].max()


def test_fig2_total_bars_reach_the_total_strength():
    run = make_run()
    # As in real metrics, where the total is what both signs add up to.
    total = {
        (step, name): lookup(run, step, name, "strength_positive")
        - lookup(run, step, name, "strength_negative")
        for step in STEPS
        for name in CLASSES
        if name == "preserved" or step
    }
    for (step, name), value in total.items():
        cell = (
            (pl.col("step") == step)
            & (pl.col("class") == name)
            & (pl.col("metric") == "strength_total")
        )
        value_column = pl.when(cell).then(value).otherwise(pl.col("value")).alias("value")
        run = replace(run, metrics=run.metrics.with_columns(value_column))
    figure = fig2.draw([run], level=0.95)
    for name in CLASSES:
        bars = panel(figure, f"{run.label}:total:{name}").patches
        tops = [bar.get_y() + bar.get_height() for bar in bars[len(STEPS) :]]
        assert tops == pytest.approx([total.get((s, name), np.nan) for s in STEPS], nan_ok=True)


def test_fig2_counts_follow_the_metric_under_their_columns():
    run = make_run()
    figure = fig2.draw([run], level=0.95)
    axes = panel(figure, f"{run.label}:counts")
    drawn = lines(axes)
    for name in CLASSES:
        expected = [lookup(run, step, name, "count") for step in STEPS]
        assert drawn[f"count:{name}"] == pytest.approx(np.array(expected, float), nan_ok=True)
    column = panel(figure, f"{run.label}:strength:removed:2").get_position()
    ticks = axes.transData.transform([(x, 0) for x in axes.get_xticks()])[:, 0]
    across = figure.transFigure.inverted().transform([(x, 0) for x in ticks])[:, 0]
    assert across[2] == pytest.approx((column.x0 + column.x1) / 2)


@pytest.mark.parametrize(
    ("module", "shown"),
    [(fig2, ["churn_floor"]), (fig3, ["gamma_churn_floor", "rho_churn_floor"])],
)
def test_a_churn_floor_is_drawn_where_there_is_one(module, shown):
    run = make_run()
    floors = {"churn_floor": 0.1, "gamma_churn_floor": 0.2, "rho_churn_floor": 0.3}
    count = run.metrics.filter(pl.col("metric") == "count")
    rows = [
        count.with_columns(
            metric=pl.lit(name),
            value=pl.when(pl.col("step") > 0).then(value),
            ci_low=pl.when(pl.col("step") > 0).then(value / 2),
            ci_high=pl.when(pl.col("step") > 0).then(2 * value),
        )
        for name, value in floors.items()
    ]
    with_floor = replace(run, metrics=pl.concat([run.metrics, *rows]))

    def drawn(run):
        figure = module.draw([run], level=0.95)
        return sorted(
            gid
            for axes in figure.axes
            for collection in axes.collections
            if "churn_floor" in (gid := collection.get_gid() or "")
        )

    assert drawn(run) == []
    assert drawn(with_floor) == sorted(
        f"{name}:{label}" for name in shown for label in ("emerged", "removed")
    )


def test_fig3_lines_carry_the_metrics_and_their_gaps():
    run = make_run()
    hole = (pl.col("step") == 20) & (pl.col("class") == "emerged") & (pl.col("metric") == "rho")
    value = pl.when(hole).then(None).otherwise(pl.col("value")).alias("value")
    run = replace(run, metrics=run.metrics.with_columns(value))
    gamma, rho = fig3.draw([run], level=0.95).axes
    drawn = lines(gamma) | lines(rho)
    assert np.isnan(drawn["rho:emerged"]).tolist() == [True, False, True, False]
    for metric in ("gamma", "gamma_chance", "rho", "rho_chance"):
        for name in CLASSES:
            expected = [lookup(run, step, name, metric) for step in STEPS]
            assert drawn[f"{metric}:{name}"] == pytest.approx(
                np.array(expected, float), nan_ok=True
            )


def test_fig3_without_a_reference_says_so():
    run = make_run()
    for metric in ("gamma", "gamma_chance"):
        run = with_values(run, metric, None)
    figure = fig3.draw([run], level=0.95)
    assert lines(figure.axes[0]) == {}
    assert texts(figure).count("no reference model") == 1
    expected = {f"{metric}:{name}" for metric in ("rho", "rho_chance") for name in CLASSES}
    assert set(lines(figure.axes[1])) == expected


def test_fig4_bars_are_the_metrics_of_their_checkpoint():
    run = make_run()
    bars = [(300, "removed"), (300, "preserved"), (5, "emerged"), (300, "emerged")]
    figure = fig4.draw([run], level=0.95)
    for axes, metric in zip(figure.axes, ("cross_entropy", "contribution"), strict=True):
        expected = [lookup(run, step, name, metric) for step, name in bars]
        assert [bar.get_height() for bar in axes.patches] == pytest.approx(expected)
        intervals = axes.collections[0].get_segments()
        assert np.array(intervals)[:, :, 1] == pytest.approx(
            np.array([(value - 0.1, value + 0.2) for value in expected])
        )
    assert any(np.allclose(line.get_ydata(), log(2)) for line in figure.axes[0].lines)


def test_fig4_has_no_second_stage_when_removals_never_end():
    run = make_run()
    run = replace(run, stages={**run.stages, "boundary_step": 300})
    figure = fig4.draw([run], level=0.95)
    assert texts(figure).count("n/a") == 2
    assert np.isnan(figure.axes[0].patches[3].get_height())


LONG = "Model-{}B-Instruct on a data set with a long name"
MANY = [make_run(LONG.format(i), tuple(range(0, 10000, 1000)), n=16) for i in range(5)]


@pytest.mark.parametrize(
    ("module", "runs"),
    [
        (fig2, [make_run(steps=(0, 1, 2), n=2)]),
        (fig2, MANY[:1]),
        (fig2, [make_run(), make_run("Another model on data")]),
        (fig3, [make_run()]),
        (fig3, MANY),
        (fig4, [make_run()]),
        (fig4, MANY),
    ],
)
def test_nothing_is_cut_off(module, runs):
    figure = module.draw(runs, level=0.95)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01


@pytest.mark.parametrize("module", [fig2, fig3, fig4])
def test_saving_twice_gives_the_same_bytes(module, tmp_path):
    paths = [tmp_path / name for name in ("a.pdf", "a.png", "b.pdf", "b.png")]
    save(module.draw([make_run()], level=0.95), paths[:2])
    save(module.draw([make_run()], level=0.95), paths[:1:-1])  # the order does not matter
    pdf, png, *again = [path.read_bytes() for path in paths]
    assert [pdf, png] == again
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert b"/Type3" not in pdf  # fonts are embedded as outlines that printers and editors take
