from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from random_runs import (
    STEPS,
    far_beyond,
    floors,
    lines,
    lookup,
    make_run,
    overfitting,
    panel,
    texts,
    with_churn_floor,
    with_reading,
    with_training,
)

from sft_interactions.figures import evolution
from sft_interactions.figures.style import CLASSES


@pytest.mark.slow
def test_histograms_have_the_strengths_as_heights():
    run = make_run()
    figure = evolution.draw([run], level=0.95)
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


def test_says_where_a_class_does_not_apply():
    figure = evolution.draw([make_run()], level=0.95)
    assert texts(figure).count("not\napplicable\nat t = 0") == 2
    labels = [axes.get_label() for axes in figure.axes]
    assert not any(label.endswith(("strength:removed:0", "strength:emerged:0")) for label in labels)


def test_panels_after_the_first_share_a_scale_that_holds_every_bar():
    run = make_run()
    figure = evolution.draw([run], level=0.95)
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


@pytest.mark.slow
def test_total_bars_reach_the_total_strength():
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
    figure = evolution.draw([run], level=0.95)
    for name in CLASSES:
        bars = panel(figure, f"{run.label}:total:{name}").patches
        tops = [bar.get_y() + bar.get_height() for bar in bars[len(STEPS) :]]
        assert tops == pytest.approx([total.get((s, name), np.nan) for s in STEPS], nan_ok=True)


def test_counts_follow_the_metric_under_their_columns():
    run = make_run()
    figure = evolution.draw([run], level=0.95)
    axes = panel(figure, f"{run.label}:counts")
    drawn = lines(axes)
    for name in CLASSES:
        expected = [lookup(run, step, name, "count") for step in STEPS]
        assert drawn[f"count:{name}"] == pytest.approx(np.array(expected, float), nan_ok=True)
    column = panel(figure, f"{run.label}:strength:removed:2").get_position()
    ticks = axes.transData.transform([(x, 0) for x in axes.get_xticks()])[:, 0]
    across = figure.transFigure.inverted().transform([(x, 0) for x in ticks])[:, 0]
    assert across[2] == pytest.approx((column.x0 + column.x1) / 2)


READINGS = {"joint": "reading that changes least", "single": "each checkpoint by itself"}


@pytest.mark.parametrize("reading", READINGS)
def test_the_other_reading_is_dotted(reading):
    run = make_run()
    figure = evolution.draw([with_reading(run, reading)], level=0.95)
    drawn = lines(panel(figure, f"{run.label}:counts"))
    for name in CLASSES:
        expected = [lookup(run, step, name, "count") for step in STEPS]
        half = np.array(expected, float) / 2
        assert drawn[f"count_{reading}:{name}"] == pytest.approx(half, nan_ok=True)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert READINGS[reading] in names
    plain = evolution.draw([run], level=0.95)
    assert not [gid for gid in lines(panel(plain, f"{run.label}:counts")) if reading in gid]
    assert not set(READINGS.values()) & {t.get_text() for t in plain.legends[0].get_texts()}


def test_a_churn_floor_is_drawn_where_there_is_one():
    run = make_run()
    assert floors(evolution.draw([run], level=0.95)) == []
    drawn = floors(evolution.draw([with_churn_floor(run)], level=0.95))
    assert drawn == ["churn_floor:emerged", "churn_floor:removed"]


def stages(axes):
    return [patch.get_gid() for patch in axes.patches if patch.get_gid()]


def test_overfitting_is_drawn_where_the_verdict_says_so_and_nowhere_else():
    run = make_run()
    counts = f"{run.label}:counts"
    figure = evolution.draw([run], level=0.95)
    assert stages(panel(figure, counts)) == ["denoising"]
    assert not any("Overfitting" in text for text in texts(figure))
    figure = evolution.draw([overfitting(run, 20)], level=0.95)
    axes = panel(figure, counts)
    assert stages(axes) == ["denoising", "overfitting"]
    left, right = axes.patches[1].get_x(), axes.patches[1].get_x() + axes.patches[1].get_width()
    places = axes.get_xticks()
    assert (left, right) == pytest.approx((places[2], places[3]))
    assert "Overfitting" in texts(figure)


def test_stages_of_an_older_version_are_refused():
    run = make_run()
    run = replace(run, stages={**run.stages, "evidence": {}})
    with pytest.raises(
        ValueError, match=r"A model on data: overfits_after_step is missing.*delete it"
    ):
        evolution.draw([run], level=0.95)


def test_one_checkpoint_far_beyond_does_not_hide_the_others():
    run = make_run()
    figure = evolution.draw([run], level=0.95)
    note = "Grey ground: the scale is logarithmic"
    assert not any(note in text for text in texts(figure))
    figure = evolution.draw([far_beyond(run, 100)], level=0.95)
    assert sum(note in text for text in texts(figure)) == 1
    for index, step in enumerate(STEPS[1:], start=1):
        axes = panel(figure, f"{run.label}:strength:emerged:{index}")
        assert axes.get_yscale() == "symlog"
        high = max(bar.get_height() for bar in axes.patches if bar.get_gid() is None)
        top = axes.transAxes.inverted().transform(axes.transData.transform([(0, high), (0, 0)]))
        assert top[0, 1] - top[1, 1] > 0.1, step
        assert top[0, 1] <= 1
        assert {patch.get_gid() for patch in axes.patches} == {None, "logarithmic"}
    assert panel(figure, f"{run.label}:strength:removed:1").get_yscale() == "linear"
    # The panels of total strength share one scale.
    assert {panel(figure, f"{run.label}:total:{name}").get_yscale() for name in CLASSES} == {
        "symlog"
    }


def test_losses_stand_under_the_counts_where_they_are_known():
    run = with_training(make_run(), warm_up=4)
    figure = evolution.draw([run, make_run("Tuned elsewhere")], level=0.95)
    axes = panel(figure, f"{run.label}:losses")
    drawn = {line.get_gid(): line for line in axes.get_lines()}
    counts = panel(figure, f"{run.label}:counts")
    places = counts.get_lines()[-1].get_xdata()
    validation = drawn["validation loss"]
    np.testing.assert_allclose(validation.get_xdata(), places)
    assert validation.get_ydata().tolist() == pytest.approx([5 / (1 + step) for step in STEPS])
    assert len(drawn["training loss"].get_xdata()) == STEPS[-1] + 1
    assert axes.get_ylim()[1] > 5
    expected = np.interp(4, STEPS, places)
    assert drawn["warm-up"].get_xdata()[0] == pytest.approx(expected)
    assert "warm-up ends" in [text.get_text() for text in axes.texts]
    assert not any(one.get_label() == "Tuned elsewhere:losses" for one in figure.axes)


def test_without_a_warm_up_none_is_marked():
    figure = evolution.draw([with_training(make_run(), warm_up=1)], level=0.95)
    axes = panel(figure, "A model on data:losses")
    assert "warm-up" not in [line.get_gid() for line in axes.get_lines()]


def test_a_stage_that_can_end_at_one_checkpoint_alone_has_no_interval():
    (told,) = [text for text in texts(evolution.draw([make_run()], level=0.95)) if "ends" in text]
    assert "(interval: " in told
    assert "Best checkpoint" in told
    few = make_run(steps=STEPS[:3])
    (told,) = [text for text in texts(evolution.draw([few], level=0.95)) if "ends" in text]
    assert told.startswith(f"Denoising stage ends\nat step {STEPS[1]}\n(of 3 checkpoints the\nonly")
    assert "interval" not in told
    assert "Best checkpoint" not in told
