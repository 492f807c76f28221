from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_rgba
from random_runs import make_run, overfitting, panel, texts
from sample_tables import STEPS, N

from sft_interactions.figures import interactions
from sft_interactions.figures.style import CLASSES


def test_boxes_and_bars_are_those_of_the_tables(dynamics, model, prompt):
    figure = interactions.draw(make_run(steps=STEPS, n=N), dynamics, model, prompt)
    shown = texts(figure)
    for row in model.strongest(interactions.SHOWN, interactions.OF_EACH_KIND).iter_rows(named=True):
        assert f"{row['kind'].upper()}  {row['effect']:+.2f}".replace("-", "−") in shown
    n_samples = 9  # of the metrics of make_run
    for step in STEPS:
        axes = panel(figure, f"orders:{step}")
        ends = {"top": np.zeros(N), "bottom": np.zeros(N)}
        for bar in axes.patches:
            order = round(bar.get_x() + bar.get_width() / 2) - 1
            end = "top" if bar.get_height() > 0 else "bottom"
            ends[end][order] += bar.get_height()
        now = dynamics.filter(pl.col("class") != "removed", step=step)
        for sign, end in ((1, "top"), (-1, "bottom")):
            part = now.filter(pl.col("effect") * sign > 0)
            expected = [part.filter(order=k)["effect"].sum() / n_samples for k in range(1, N + 1)]
            assert ends[end] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("steps", "boundary", "chosen"),
    [
        ([0, 4, 12], 1, [0, 4, 12]),
        (list(range(10)), 1, [0, 1, 2, 4, 5, 9]),
        (list(range(7)), 0, [0, 1, 2, 4, 5, 6]),
    ],
)
def test_checkpoints_are_chosen(steps, boundary, chosen):
    assert interactions.choose_steps(steps, boundary, 6) == chosen


@pytest.mark.parametrize(
    ("target", "scored", "shown"),
    [
        ("negative", "negative", "LLM: log-odds of the target “negative” v(N) = "),
        ("cooking", "c", "LLM: log-odds of “c” of “cooking” v(N) = "),
        ("The film was so long that we left", "The", "LLM: log-odds of “The” of “The "),
    ],
)
def test_the_scored_token_is_named(dynamics, model, prompt, target, scored, shown):
    prompt = replace(prompt, target=target, scored=scored)
    figure = interactions.draw(make_run(steps=STEPS, n=N), dynamics, model, prompt)
    (line,) = (text for text in texts(figure) if text.startswith("LLM"))
    assert line.startswith(shown)
    figure.draw_without_rendering()
    assert figure.get_tightbbox().x1 <= figure.get_size_inches()[0] + 0.02


def test_what_is_removed_later_is_hatched_in_the_colour_of_what_is_preserved(
    dynamics, model, prompt
):
    figure = interactions.draw(make_run(steps=STEPS, n=N), dynamics, model, prompt)
    bars = panel(figure, "orders:0").patches
    assert {bar.get_edgecolor() for bar in bars if bar.get_hatch()} == {
        to_rgba(CLASSES["preserved"].color)
    }
    removed = to_rgba(CLASSES["removed"].color)
    everything = [bar for axes in figure.axes for bar in axes.patches]
    assert not any(removed in (bar.get_facecolor(), bar.get_edgecolor()) for bar in everything)


def test_overfitting_is_drawn_where_the_verdict_says_so(dynamics, model, prompt):
    run = make_run(steps=STEPS, n=N)
    assert "Overfitting" not in texts(interactions.draw(run, dynamics, model, prompt))
    assert "Overfitting" in texts(interactions.draw(overfitting(run, 20), dynamics, model, prompt))


def test_one_checkpoint_far_beyond_does_not_hide_the_others(dynamics, model, prompt):
    run = make_run(steps=STEPS, n=N)
    far = pl.when(pl.col("step") == STEPS[-1]).then(50 * pl.col("effect")).otherwise("effect")
    for rows, scale in ((dynamics, "linear"), (dynamics.with_columns(effect=far), "symlog")):
        figure = interactions.draw(run, rows, model, prompt)
        assert {panel(figure, f"orders:{step}").get_yscale() for step in STEPS} == {scale}
        assert any("logarithmic" in text for text in texts(figure)) == (scale == "symlog")
