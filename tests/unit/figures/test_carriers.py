from dataclasses import replace
from math import log

import numpy as np
import pytest
from random_runs import lines, lookup, make_run, texts, with_reading

from sft_interactions.figures import carriers


def note_of(figure):
    return " ".join(figure.get_supxlabel().split())


def test_bars_are_the_metrics_of_their_checkpoint():
    run = make_run()
    bars = [(300, "removed"), (300, "preserved"), (5, "emerged"), (300, "emerged")]
    figure = carriers.draw([run], level=0.95)
    for axes, metric in zip(figure.axes, ("cross_entropy", "contribution"), strict=True):
        expected = [lookup(run, step, name, metric) for step, name in bars]
        assert [bar.get_height() for bar in axes.patches] == pytest.approx(expected)
        intervals = axes.collections[0].get_segments()
        assert np.array(intervals)[:, :, 1] == pytest.approx(
            np.array([(value - 0.1, value + 0.2) for value in expected])
        )
    assert any(np.allclose(line.get_ydata(), log(2)) for line in figure.axes[0].lines)


def test_the_other_reading_is_marked_beside_its_bar():
    run = make_run()
    bars = [(300, "removed"), (300, "preserved"), (5, "emerged"), (300, "emerged")]
    figure = carriers.draw([with_reading(run, "joint")], level=0.95)
    for axes, metric in zip(figure.axes, ("cross_entropy", "contribution"), strict=True):
        expected = [lookup(run, step, name, metric) / 2 for step, name in bars]
        assert lines(axes)[f"{metric}_joint"] == pytest.approx(expected)


def test_has_no_second_stage_when_removals_never_end():
    run = make_run()
    run = replace(run, stages={**run.stages, "boundary_step": 300})
    figure = carriers.draw([run], level=0.95)
    assert texts(figure).count("n/a") == 2
    assert "n/a: the run has no such stage or class." in note_of(figure)
    assert "n/a" not in note_of(carriers.draw([make_run()], level=0.95))
    assert np.isnan(figure.axes[0].patches[3].get_height())
