from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from random_runs import make_run, panel, texts
from sample_tables import STEPS, N

from sft_interactions.figures import interactions


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
